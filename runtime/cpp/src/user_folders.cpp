#include "user_folders.hpp"

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <vector>

namespace tcmoa {
namespace {

namespace fs = std::filesystem;

constexpr const char *kApp = "tcmoa";

// The home folder; empty if it is unknown.
fs::path home() {
    if (const char *text = std::getenv("HOME"); text != nullptr && *text != '\0') return text;
    std::vector<char> buffer(16384);
    passwd entry{};
    passwd *found = nullptr;
    if (getpwuid_r(geteuid(), &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr) return {};
    return found->pw_dir;
}

// The folder of this program; empty if it is unknown. The XDG specification ignores relative paths.
fs::path root_of(UserFolder kind) {
    const bool is_cache = kind == UserFolder::cache;
    const char *text = std::getenv(is_cache ? "XDG_CACHE_HOME" : "XDG_DATA_HOME");
    if (text != nullptr && fs::path(text).is_absolute()) return fs::path(text) / kApp;
    const auto parent = home();
    if (!parent.is_absolute()) return {};
    return parent / (is_cache ? fs::path(".cache") : fs::path(".local") / "share") / kApp;
}

bool is_private(const fs::path &folder) {
    struct stat status {};
    return ::lstat(folder.c_str(), &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == geteuid() &&
           (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

}  // namespace

std::optional<fs::path> open_user_folder(UserFolder kind, std::initializer_list<std::string> names, bool create) {
    auto folder = root_of(kind);
    if (folder.empty()) return std::nullopt;
    std::error_code error;
    if (create) fs::create_directories(folder.parent_path(), error);
    const auto open = [create](const fs::path &path) {
        if (create && ::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return false;
        return is_private(path);
    };
    if (!open(folder)) return std::nullopt;
    for (const auto &name : names) {
        folder /= name;
        if (!open(folder)) return std::nullopt;
    }
    return folder;
}

}  // namespace tcmoa
