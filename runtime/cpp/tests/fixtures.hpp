// Test bundles that tests/cpp_bundles.py made, and temporary folders.
#pragma once

#include <stdlib.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "tcmoa.h"

namespace tcmoa::testing {

namespace fs = std::filesystem;
using Bytes = std::vector<std::uint8_t>;

// The folder of a test bundle. The environment variable TCMOA_TEST_BUNDLES names their folder.
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

// A temporary folder that is deleted at the end of the test.
class TemporaryFolder {
public:
    TemporaryFolder() {
        std::string name = (fs::temp_directory_path() / "tcmoa-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("a temporary folder cannot be created");
        path_ = name;
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        fs::permissions(path_, fs::perms::owner_all, ignored);
        fs::remove_all(path_, ignored);
    }
    TemporaryFolder(const TemporaryFolder &) = delete;
    TemporaryFolder &operator=(const TemporaryFolder &) = delete;

    [[nodiscard]] const fs::path &path() const { return path_; }

    // Copy a test bundle without its engines.
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

// The user's cache and data folders, empty ones until the end of the test.
class UserFolders {
public:
    UserFolders() {
        for (std::size_t i = 0; i < 2; ++i) {
            if (const char *text = std::getenv(kNames[i])) previous_[i] = text;
            setenv(kNames[i], (temporary_.path() / kFolders[i]).c_str(), 1);
        }
    }
    ~UserFolders() {
        for (std::size_t i = 0; i < 2; ++i) setenv(kNames[i], previous_[i].c_str(), 1);
    }
    UserFolders(const UserFolders &) = delete;
    UserFolders &operator=(const UserFolders &) = delete;

    [[nodiscard]] fs::path cache() const { return temporary_.path() / kFolders[0] / "tcmoa"; }
    [[nodiscard]] fs::path data() const { return temporary_.path() / kFolders[1] / "tcmoa"; }

private:
    static constexpr const char *kNames[] = {"XDG_CACHE_HOME", "XDG_DATA_HOME"};
    static constexpr const char *kFolders[] = {"cache", "data"};
    TemporaryFolder temporary_;
    std::string previous_[2];
};

// The message of the last failed call.
inline std::string error_of(const tcmoa_fuser *fuser) {
    std::string text(tcmoa_error(fuser, nullptr, 0), '\0');
    tcmoa_error(fuser, text.data(), text.size() + 1);
    return text;
}

// A pair of frames for a test bundle, and the results of the Python runtime with OpenVINO.
struct Reference {
    Bytes x, y, fused, prompted;  // fused: alpha 1, beta 0; prompted: alpha 1.5, beta 0.25

    explicit Reference(const std::string &name) {
        const auto folder = bundle_folder(name + "-reference");
        x = read_bytes(folder / "x.raw");
        y = read_bytes(folder / "y.raw");
        fused = read_bytes(folder / "fused.raw");
        prompted = read_bytes(folder / "prompted.raw");
    }
};

}  // namespace tcmoa::testing
