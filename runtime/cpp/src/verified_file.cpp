#include "verified_file.hpp"

#include <fstream>
#include <system_error>

#include "error.hpp"
#include "sha256.hpp"

namespace tcmoa {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kShownDigits = 12;  // of a hash, in messages

std::uintmax_t verify_size(const fs::path &path, const FileEntry &expected, std::string_view manifest,
                           std::string_view remedy) {
    std::error_code error;
    const auto bytes = fs::file_size(path, error);
    if (error) fail_bundle(path.string(), "cannot be read: " + error.message(), remedy);
    if (expected.bytes < 0 || bytes != static_cast<std::uintmax_t>(expected.bytes)) {
        fail_bundle(path.string(),
                    std::to_string(bytes) + " bytes, truncated or another file; expected " +
                        std::to_string(expected.bytes) + " as in " + std::string(manifest),
                    "copy the whole bundle, or " + std::string(remedy));
    }
    return bytes;
}

void verify_hash(const fs::path &path, const std::string &actual, const FileEntry &expected, std::string_view manifest,
                 std::string_view remedy) {
    if (actual == expected.sha256) return;
    fail_bundle(path.string(),
                "SHA-256 is " + actual.substr(0, kShownDigits) +
                    "…, so the file was changed since it was written; expected " +
                    printable(expected.sha256, kShownDigits) + " as in " + std::string(manifest),
                "copy the bundle again, or " + std::string(remedy));
}

}  // namespace

void verify_file(const fs::path &path, const FileEntry &expected, std::string_view manifest, std::string_view remedy) {
    verify_size(path, expected, manifest, remedy);
    try {
        verify_hash(path, sha256_file(path), expected, manifest, remedy);
    } catch (const fs::filesystem_error &error) {
        fail_bundle(path.string(), "cannot be read: " + error.code().message(), remedy);
    }
}

std::string read_verified_file(const fs::path &path, const FileEntry &expected, std::string_view manifest,
                               std::string_view remedy) {
    std::string data(verify_size(path, expected, manifest, remedy), '\0');
    std::ifstream file(path, std::ios::binary);
    file.read(data.data(), static_cast<std::streamsize>(data.size()));
    if (!file) fail_bundle(path.string(), "cannot be read", "make it readable, or " + std::string(remedy));
    verify_hash(path, sha256(data), expected, manifest, remedy);
    return data;
}

}  // namespace tcmoa
