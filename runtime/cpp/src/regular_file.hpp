// Reading files that may be something else: a pipe, a device, a link, or larger than anything expected there. The Python
// runtime has the same rules, see tcmoa_runtime/regular_file.py.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>

namespace tcmoa {

// Why a file cannot be read, without its path, e.g. "a named pipe; expected a regular file" or "Permission denied".
class FileError : public std::runtime_error {
public:
    FileError(const std::string &problem, bool missing) : std::runtime_error(problem), missing_(missing) {}

    // Whether there is no such file.
    [[nodiscard]] bool missing() const noexcept { return missing_; }

private:
    bool missing_;
};

// Whether a symbolic link in the last part of a path is followed; links in the folders before it always are.
enum class Links { refuse, follow };

// An open regular file. Its kind and size are checked after opening, which never waits.
class RegularFile {
public:
    // Throws FileError if the file is missing, not a regular one, unreadable, or larger than `max_bytes`.
    explicit RegularFile(const std::filesystem::path &path, std::optional<std::uintmax_t> max_bytes = std::nullopt,
                         Links links = Links::refuse);
    ~RegularFile();
    RegularFile(const RegularFile &) = delete;
    RegularFile &operator=(const RegularFile &) = delete;

    // Size when it was opened.
    [[nodiscard]] std::uintmax_t bytes() const noexcept { return bytes_; }

    // Read at most `size` bytes to `data`; returns their number, 0 at the end. Throws FileError.
    std::size_t read(char *data, std::size_t size);

    // The bytes from here to the end. Throws FileError, also if the file has grown beyond `bytes`.
    std::string read_all();

private:
    int descriptor_ = -1;
    std::uintmax_t bytes_ = 0;
};

// The bytes of a regular file of at most `max_bytes`. Throws FileError.
std::string read_regular_file(const std::filesystem::path &path, std::uintmax_t max_bytes, Links links = Links::refuse);

}  // namespace tcmoa
