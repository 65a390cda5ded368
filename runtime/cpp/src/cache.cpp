#include "cache.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <system_error>

#include "error.hpp"

namespace tcmoa {
namespace {

namespace fs = std::filesystem;

constexpr const char *kSeal = "cache.json";

Manifest read_seal(const fs::path &folder) {
    std::ifstream file(folder / kSeal, std::ios::binary);
    const auto seal = Manifest::parse(file, nullptr, false);
    if (!seal.is_object()) return Manifest::object();
    const auto files = seal.find("files");
    return files != seal.end() && files->is_object() ? *files : Manifest::object();
}

[[noreturn]] void fail_write(const fs::path &path) {
    throw fs::filesystem_error("cannot be written", path, std::error_code(errno, std::generic_category()));
}

}  // namespace

std::string cache_prefix(const Bundle &bundle) {
    std::string hashes = bundle.files.at(kGraph).sha256;
    if (bundle.files.size() > 1) {
        // The manifest's own order of files, which is what the hash has always been over, is lost in a parsed object;
        // there is only one file that can come besides the graph.
        hashes = sha256(hashes + bundle.files.at(kGraphData).sha256);
    }
    std::string name = bundle.graph_name, digest = hashes.substr(0, 12);
    // Per character, as in Python: one of several bytes becomes one underscore.
    std::string safe;
    for (char c : name) {
        const auto byte = static_cast<unsigned char>(c);
        if ((byte & 0xc0) == 0x80) continue;
        safe += (byte < 0x80 && (isalnum(byte) || c == '_' || c == '-')) ? c : '_';
    }
    for (char &c : digest) {
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) c = '_';
    }
    return safe.substr(0, 80) + "-" + digest;
}

void write_file(const fs::path &path, std::string_view data) {
    std::string name = ".";
    name += path.filename().string();
    name += ".XXXXXX";
    std::string partial = (path.parent_path() / name).string();
    const int handle = mkstemp(partial.data());
    if (handle < 0) fail_write(path);
    const mode_t mask = umask(0);
    umask(mask);
    bool good = fchmod(handle, 0666 & ~mask) == 0;
    while (good && !data.empty()) {
        const auto written = ::write(handle, data.data(), data.size());
        if (written > 0) {
            data.remove_prefix(static_cast<std::size_t>(written));
        } else if (written < 0 && errno != EINTR) {
            good = false;
        }
    }
    good = ::close(handle) == 0 && good && ::rename(partial.c_str(), path.c_str()) == 0;
    if (!good) {
        const int reason = errno;
        ::unlink(partial.c_str());
        errno = reason;
        fail_write(path);
    }
}

std::optional<Cache> Cache::open(const Bundle &bundle, const std::string &backend) {
    try {
        const auto engines = bundle.path / kEngines;
        const Cache cache(engines / (backend + "-" + cache_prefix(bundle)));
        fs::create_directories(cache.folder_);
        // A link would lead out of the bundle, and what is there runs as code.
        if (fs::canonical(cache.folder_) != fs::canonical(bundle.path) / kEngines / cache.folder_.filename()) {
            return std::nullopt;
        }
        cache.drop_unsealed();
        return cache.seal() ? std::optional(cache) : std::nullopt;
    } catch (const fs::filesystem_error &) {
        return std::nullopt;
    }
}

bool Cache::seal() const noexcept {
    try {
        auto files = Manifest::object();
        for (const auto &entry : fs::directory_iterator(folder_)) {
            const auto name = entry.path().filename().string();
            if (name != kSeal) files[name] = sha256_file(entry.path());
        }
        write_file(folder_ / kSeal, Manifest{{"files", files}}.dump(2) + "\n");
        return true;
    } catch (const std::exception &) {
        return false;
    }
}

void Cache::drop_unsealed() const {
    const auto known = read_seal(folder_);
    for (const auto &entry : fs::directory_iterator(folder_)) {
        const auto name = entry.path().filename().string();
        if (name == kSeal) continue;
        const auto hash = known.find(name);
        if (entry.is_symlink() || hash == known.end() || *hash != sha256_file(entry.path())) fs::remove(entry.path());
    }
}

}  // namespace tcmoa
