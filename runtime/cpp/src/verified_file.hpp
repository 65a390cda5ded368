// Files whose size and SHA-256 a manifest lists.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace tcmoa {

// Size and hash of a file, as a manifest lists them.
struct FileEntry {
    std::string sha256;  // hexadecimal
    std::int64_t bytes = 0;
    bool operator==(const FileEntry &) const = default;
};

// Throw Error (TCMOA_ERROR_BUNDLE) unless the file has the size and the hash of `expected`. It is opened once, and the
// size is compared before anything is read. `manifest` names the file that lists them, for the message.
void verify_file(const std::filesystem::path &path, const FileEntry &expected, std::string_view manifest,
                 std::string_view remedy);

// Copy a file to a new one that only this user can read, and verify it like `verify_file`: what is copied is what is
// hashed. Throws std::system_error if the copy cannot be written.
void copy_verified_file(const std::filesystem::path &path, const FileEntry &expected, std::string_view manifest,
                        std::string_view remedy, const std::filesystem::path &target);

// Read a file, verify it like `verify_file`, and return the bytes that were hashed.
std::string read_verified_file(const std::filesystem::path &path, const FileEntry &expected, std::string_view manifest,
                               std::string_view remedy);

}  // namespace tcmoa
