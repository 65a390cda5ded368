// SHA-256 as lowercase hexadecimal text.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace tcmoa {

std::string sha256(std::string_view bytes);

// Throws std::filesystem::filesystem_error if the file cannot be read.
std::string sha256_file(const std::filesystem::path &path);

}  // namespace tcmoa
