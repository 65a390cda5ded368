#include "verified_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <functional>
#include <system_error>
#include <vector>

#include "error.hpp"
#include "regular_file.hpp"
#include "sha256.hpp"

namespace tcmoa {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kShownDigits = 12;  // of a hash, in messages
constexpr std::size_t kChunkBytes = 4 << 20;

std::string shown_digits(std::string_view text) {
    std::string digits(text.substr(0, kShownDigits));
    for (char &c : digits) {
        if (std::isxdigit(static_cast<unsigned char>(c)) == 0) c = '?';
    }
    return digits;
}

// How a file is verified and described.
struct Listing {
    const fs::path &path;
    const FileEntry &expected;
    std::string_view manifest, remedy;

    void compare_size(std::uintmax_t bytes) const {
        if (expected.bytes >= 0 && bytes == static_cast<std::uintmax_t>(expected.bytes)) return;
        fail_bundle(path.string(),
                    std::to_string(bytes) + " bytes, truncated or another file; expected " +
                        std::to_string(expected.bytes) + " as in " + std::string(manifest),
                    "copy the whole bundle, or " + std::string(remedy));
    }

    void compare_hash(const std::string &actual) const {
        if (actual == expected.sha256) return;
        fail_bundle(path.string(),
                    "SHA-256 is " + actual.substr(0, kShownDigits) +
                        "…, so the file was changed since it was written; expected " +
                        shown_digits(expected.sha256) + "… as in " + std::string(manifest),
                    "copy the bundle again, or " + std::string(remedy));
    }

    // Read the file once, in chunks, while hashing it.
    void read(const std::function<void(const char *, std::size_t)> &receive) const {
        try {
            RegularFile file(path);
            compare_size(file.bytes());
            auto left = static_cast<std::uintmax_t>(expected.bytes);
            std::vector<char> chunk(static_cast<std::size_t>(std::min<std::uintmax_t>(left, kChunkBytes)));
            Sha256 digest;
            while (left > 0) {
                const auto most = static_cast<std::size_t>(std::min<std::uintmax_t>(left, chunk.size()));
                const auto bytes = file.read(chunk.data(), most);
                if (bytes == 0) break;
                left -= bytes;
                digest.update(chunk.data(), bytes);
                receive(chunk.data(), bytes);
            }
            compare_size(static_cast<std::uintmax_t>(expected.bytes) - left);
            compare_hash(digest.hex());
        } catch (const FileError &error) {
            fail_bundle(path.string(), std::string("cannot be read: ") + error.what(), remedy);
        }
    }
};

void write_all(int descriptor, const char *data, std::size_t size) {
    while (size > 0) {
        const auto written = ::write(descriptor, data, size);
        if (written < 0) {
            if (errno == EINTR) continue;
            throw std::system_error(errno, std::generic_category());
        }
        data += written;
        size -= static_cast<std::size_t>(written);
    }
}

}  // namespace

void verify_file(const fs::path &path, const FileEntry &expected, std::string_view manifest, std::string_view remedy) {
    Listing{path, expected, manifest, remedy}.read([](const char *, std::size_t) {});
}

void copy_verified_file(const fs::path &path, const FileEntry &expected, std::string_view manifest,
                        std::string_view remedy, const fs::path &target) {
    const int descriptor = ::open(target.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (descriptor < 0) throw std::system_error(errno, std::generic_category());
    try {
        Listing{path, expected, manifest, remedy}.read(
            [&](const char *data, std::size_t size) { write_all(descriptor, data, size); });
    } catch (...) {
        ::close(descriptor);
        throw;
    }
    if (::close(descriptor) != 0) throw std::system_error(errno, std::generic_category());
}

std::string read_verified_file(const fs::path &path, const FileEntry &expected, std::string_view manifest,
                               std::string_view remedy) {
    std::string data;
    Listing{path, expected, manifest, remedy}.read([&](const char *chunk, std::size_t size) {
        if (data.empty()) data.reserve(static_cast<std::size_t>(expected.bytes));
        data.append(chunk, size);
    });
    return data;
}

}  // namespace tcmoa
