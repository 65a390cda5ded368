// Any bytes as bundle.json. Each input is tried as it is, and where it is JSON also with the hash of its own that it
// should have, so that what lies behind that check is reached. Only refusals may come of it.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "bundle.hpp"
#include "cache.hpp"
#include "error.hpp"

namespace {

namespace fs = std::filesystem;

// A folder whose graph is empty: 0 bytes, as the hash of nothing.
const fs::path &folder() {
    static const fs::path made = [] {
        fs::path path = fs::temp_directory_path() / ("tcmoa-fuzz-" + std::to_string(getpid()));
        fs::create_directories(path);
        std::ofstream(path / "fusion.onnx");
        std::atexit([] { fs::remove_all(folder()); });
        return path;
    }();
    return made;
}

void open(std::string_view text) {
    std::ofstream(folder() / "bundle.json", std::ios::binary | std::ios::trunc)
        .write(text.data(), static_cast<std::streamsize>(text.size()));
    try {
        const auto bundle = tcmoa::Bundle::open(folder());
        if (bundle.contract.width < 1 || bundle.contract.height < 1 || bundle.contract.tokens() < 1) std::abort();
        (void)tcmoa::cache_prefix(bundle);
        bundle.check();
        (void)bundle.read_graph();
    } catch (const tcmoa::Error &error) {
        const std::string_view line = error.what();
        if (error.status() != TCMOA_ERROR_BUNDLE || line.empty() || line.find('\n') != line.npos) std::abort();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char *>(data), size);
    open(text);
    auto manifest = tcmoa::Manifest::parse(text, nullptr, false);
    if (!manifest.is_object()) return 0;
    try {
        manifest.erase("manifest_sha256");
        manifest["manifest_sha256"] = tcmoa::sha256(manifest.dump(-1, ' ', true));
        open(manifest.dump());
    } catch (const tcmoa::Manifest::exception &) {  // not to be written as JSON again
    }
    return 0;
}
