// Files of this user that are written whole or not at all.
#pragma once

#include <filesystem>
#include <string_view>

namespace tcmoa {

// Write a temporary file that only its owner can read in the same folder, and rename it to `path`. Throws std::filesystem::filesystem_error and
// leaves no temporary file behind.
void atomic_write(const std::filesystem::path &path, std::string_view data);

}  // namespace tcmoa
