#include "regular_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace tcmoa {
namespace {

constexpr std::size_t kMaxReadBytes = 1 << 30;  // Linux reads at most 2 GiB at a time

std::string describe_kind(mode_t mode) {
    if (S_ISDIR(mode)) return "a folder";
    if (S_ISFIFO(mode)) return "a named pipe";
    if (S_ISSOCK(mode)) return "a socket";
    if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
    if (S_ISLNK(mode)) return "a symbolic link";
    return "something else";
}

void check_kind(mode_t mode) {
    if (!S_ISREG(mode)) throw FileError(describe_kind(mode) + "; expected a regular file", false);
}

[[noreturn]] void fail(int reason) {
    throw FileError(std::generic_category().message(reason), reason == ENOENT || reason == ENOTDIR);
}

}  // namespace

RegularFile::RegularFile(const std::filesystem::path &path, std::optional<std::uintmax_t> max_bytes, Links links) {
    struct stat status {};
    const bool follow = links == Links::follow;
    // Opening a device may already do something.
    if ((follow ? ::stat(path.c_str(), &status) : ::lstat(path.c_str(), &status)) != 0) fail(errno);
    check_kind(status.st_mode);
    do {
        descriptor_ = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
    } while (descriptor_ < 0 && errno == EINTR);
    if (descriptor_ < 0) {
        if (errno == ELOOP && !follow) throw FileError("a symbolic link; expected a regular file", false);
        fail(errno);
    }
    try {
        if (::fstat(descriptor_, &status) != 0) fail(errno);
        check_kind(status.st_mode);
        bytes_ = static_cast<std::uintmax_t>(status.st_size);
        if (max_bytes && bytes_ > *max_bytes) {
            throw FileError(std::to_string(bytes_) + " bytes; expected at most " + std::to_string(*max_bytes), false);
        }
    } catch (...) {
        ::close(descriptor_);
        throw;
    }
}

RegularFile::~RegularFile() { ::close(descriptor_); }

std::size_t RegularFile::read(char *data, std::size_t size) {
    for (;;) {
        const auto got = ::read(descriptor_, data, std::min(size, kMaxReadBytes));
        if (got >= 0) return static_cast<std::size_t>(got);
        if (errno != EINTR) fail(errno);
    }
}

std::string RegularFile::read_all() {
    std::string text(bytes_, '\0');
    std::size_t filled = 0;
    while (filled < text.size()) {
        const auto got = read(text.data() + filled, text.size() - filled);
        if (got == 0) break;
        filled += got;
    }
    text.resize(filled);
    char more = 0;
    if (filled == bytes_ && read(&more, 1) != 0) throw FileError("grew while it was read", false);
    return text;
}

std::string read_regular_file(const std::filesystem::path &path, std::uintmax_t max_bytes, Links links) {
    return RegularFile(path, max_bytes, links).read_all();
}

}  // namespace tcmoa
