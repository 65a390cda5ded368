// Fuzzes bundle.json. Each input is tried unchanged and, if it is JSON, also with the correct hash of its own, so
// that the code after that check is reached. The only allowed error is TCMOA_ERROR_BUNDLE with a message of one line.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "bundle.hpp"
#include "compile_cache.hpp"
#include "error.hpp"
#include "sha256.hpp"

namespace {

namespace fs = std::filesystem;

// A bundle folder with an empty graph.
const fs::path &folder() {
    static const fs::path created = [] {
        fs::path path = fs::temp_directory_path() / ("tcmoa-fuzz-" + std::to_string(getpid()));
        fs::create_directories(path);
        std::ofstream(path / "fusion.onnx");
        std::atexit([] { fs::remove_all(folder()); });
        return path;
    }();
    return created;
}

void open(std::string_view text) {
    std::ofstream(folder() / "bundle.json", std::ios::binary | std::ios::trunc)
        .write(text.data(), static_cast<std::streamsize>(text.size()));
    try {
        const auto bundle = tcmoa::Bundle::open(folder());
        if (bundle.contract.width < 1 || bundle.contract.height < 1 || bundle.contract.num_tokens() < 1) std::abort();
        (void)tcmoa::graph_key(bundle);
        bundle.verify_files();
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
        manifest.erase(tcmoa::kManifestHash);
        manifest[tcmoa::kManifestHash] = tcmoa::sha256(manifest.dump(-1, ' ', true));
        open(manifest.dump());
    } catch (const tcmoa::Manifest::exception &) {  // e.g. invalid UTF-8, which cannot be written as JSON
    }
    return 0;
}
