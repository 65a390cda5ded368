// Bundles on disk for the tests, as tests/cpp_bundles.py made them, and folders that vanish.
#pragma once

#include <stdlib.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tcmoa.h"

namespace tcmoa::testing {

namespace fs = std::filesystem;
using Bytes = std::vector<std::uint8_t>;

// The folder of a test bundle; the build passes where they are.
inline fs::path bundle_folder(const std::string &name) {
    const char *folder = std::getenv("TCMOA_TEST_BUNDLES");
    if (folder == nullptr) FAIL("TCMOA_TEST_BUNDLES is not set: run the tests with ctest, or `make cpp`");
    const auto path = fs::path(folder) / name;
    if (!fs::exists(path)) FAIL(path << " is missing: run `make cpp`, which makes it with tests/cpp_bundles.py");
    return path;
}

inline Bytes read_bytes(const fs::path &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) FAIL(path << " cannot be read");
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline std::string read_text(const fs::path &path) {
    const auto bytes = read_bytes(path);
    return {bytes.begin(), bytes.end()};
}

inline void write_text(const fs::path &path, std::string_view text) {
    std::ofstream(path, std::ios::binary | std::ios::trunc).write(text.data(), static_cast<std::streamsize>(text.size()));
}

// A folder that is gone with its test.
class Scratch {
public:
    Scratch() {
        std::string name = (fs::temp_directory_path() / "tcmoa-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) FAIL("no temporary folder");
        path_ = name;
    }
    ~Scratch() {
        std::error_code ignored;
        fs::permissions(path_, fs::perms::owner_all, ignored);
        fs::remove_all(path_, ignored);
    }
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;

    [[nodiscard]] const fs::path &path() const { return path_; }

    // A copy of a test bundle without what was compiled from it.
    [[nodiscard]] fs::path copy(const std::string &name) const {
        const auto target = path_ / name;
        fs::create_directory(target);
        for (const auto &entry : fs::directory_iterator(bundle_folder(name))) {
            if (entry.is_regular_file()) fs::copy(entry, target);
        }
        return target;
    }

private:
    fs::path path_;
};

inline std::string error_of(const tcmoa_fuser *fuser) {
    std::string text(tcmoa_error(fuser, nullptr, 0), '\0');
    tcmoa_error(fuser, text.data(), text.size() + 1);
    return text;
}

// A pair of a test bundle and what the Python runtime's OpenVINO backend makes of it.
struct Reference {
    Bytes x, y, fused, steered;

    explicit Reference(const std::string &name) {
        const auto folder = bundle_folder(name + "-reference");
        x = read_bytes(folder / "x.raw");
        y = read_bytes(folder / "y.raw");
        fused = read_bytes(folder / "fused.raw");
        steered = read_bytes(folder / "steered.raw");
    }
};

}  // namespace tcmoa::testing
