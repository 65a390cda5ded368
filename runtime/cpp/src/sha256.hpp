// SHA-256 as lowercase hexadecimal text.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace tcmoa {

// The hash of bytes that arrive in parts.
class Sha256 {
public:
    Sha256();
    ~Sha256();
    Sha256(const Sha256 &) = delete;
    Sha256 &operator=(const Sha256 &) = delete;

    void update(const char *data, std::size_t bytes);
    std::string hex();  // call it once, at the end

private:
    struct State;
    std::unique_ptr<State> state_;
};

std::string sha256(std::string_view bytes);

// Throws std::filesystem::filesystem_error if the file cannot be read.
std::string sha256_file(const std::filesystem::path &path);

}  // namespace tcmoa
