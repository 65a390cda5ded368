#include "private_copy.hpp"

#include <stdlib.h>

#include <cerrno>
#include <fstream>
#include <system_error>

#include "error.hpp"

namespace tcmoa {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void no_room(const fs::path &folder, const Bundle &bundle, const std::string &reason) {
    fail_input(folder.string(),
               "cannot be written (" + reason + "); expected room for a copy of the weights, " +
                   std::to_string(bundle.files.at(kGraphData).bytes) + " bytes",
               "set the environment variable TMPDIR to another folder");
}

}  // namespace

PrivateCopy::PrivateCopy(const Bundle &bundle) {
    const auto graph = bundle.read_graph();
    std::error_code error;
    const auto parent = fs::temp_directory_path(error);
    if (error) no_room("TMPDIR", bundle, error.message());
    std::string name = (parent / "tcmoa-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) no_room(parent, bundle, std::generic_category().message(errno));
    folder_ = name;
    try {
        std::ofstream file(graph_path(), std::ios::binary);
        file.write(graph.data(), static_cast<std::streamsize>(graph.size()));
        file.close();
        if (!file) no_room(parent, bundle, "the graph was not written");
        bundle.copy_weights(folder_ / kGraphData);
    } catch (const std::system_error &failed) {
        remove();
        no_room(parent, bundle, failed.code().message());
    } catch (...) {
        remove();
        throw;
    }
}

PrivateCopy::~PrivateCopy() { remove(); }

void PrivateCopy::remove() noexcept {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
}

}  // namespace tcmoa
