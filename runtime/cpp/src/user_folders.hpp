// The user's own folders for what belongs to a machine and not to a bundle: caches, and the record of engines built.
// tcmoa_runtime/user_folders.py uses the same ones.
//
// What lies there decides which native code runs. So a folder is not used if it is a link, belongs to another user, or
// can be written to by others.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>

namespace tcmoa {

enum class UserFolder {
    cache,  // may be deleted at any time: $XDG_CACHE_HOME/tcmoa or ~/.cache/tcmoa
    data,   // is kept: $XDG_DATA_HOME/tcmoa or ~/.local/share/tcmoa
};

// A folder below one of them, after checking it and those above it; nothing if one is missing or not private.
// `create`: create those that are missing, for the user alone.
std::optional<std::filesystem::path> open_user_folder(UserFolder kind, std::initializer_list<std::string> names,
                                                      bool create = false);

}  // namespace tcmoa
