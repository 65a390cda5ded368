#include "atomic_write.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>

namespace tcmoa {
namespace {

[[noreturn]] void fail_write(const std::filesystem::path &path) {
    throw std::filesystem::filesystem_error("cannot be written", path,
                                            std::error_code(errno, std::generic_category()));
}

bool write_all(int descriptor, std::string_view data) {
    while (!data.empty()) {
        const auto written = ::write(descriptor, data.data(), data.size());
        if (written > 0) {
            data.remove_prefix(static_cast<std::size_t>(written));
        } else if (written < 0 && errno != EINTR) {
            return false;
        }
    }
    return true;
}

}  // namespace

void atomic_write(const std::filesystem::path &path, std::string_view data) {
    std::string name(".");
    name += path.filename().string();
    name += ".XXXXXX";
    std::string temporary = (path.parent_path() / name).string();
    const int descriptor = mkstemp(temporary.data());  // with mode 0600
    if (descriptor < 0) fail_write(path);
    bool good = write_all(descriptor, data);
    good = ::close(descriptor) == 0 && good && ::rename(temporary.c_str(), path.c_str()) == 0;
    if (!good) {
        const int reason = errno;
        ::unlink(temporary.c_str());
        errno = reason;
        fail_write(path);
    }
}

}  // namespace tcmoa
