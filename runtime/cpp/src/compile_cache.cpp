#include "compile_cache.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <fstream>
#include <thread>
#include <vector>

#include "atomic_write.hpp"
#include "regular_file.hpp"
#include "sha256.hpp"
#include "user_folders.hpp"

namespace tcmoa {
namespace {

namespace fs = std::filesystem;

constexpr const char *kSeal = "cache.json";
constexpr const char *kLock = ".lock";
constexpr std::chrono::seconds kLockWait{60};  // for another session: longer than a compilation takes
constexpr std::chrono::milliseconds kLockPoll{50};
constexpr std::size_t kKeyDigits = 32;
constexpr std::uintmax_t kMaxSealBytes = 1 << 20;
constexpr std::size_t kChunkBytes = 1 << 20;

// Hashes by file name; empty if the seal is missing or damaged.
Manifest read_seal(const fs::path &folder) {
    try {
        const auto seal = Manifest::parse(read_regular_file(folder / kSeal, kMaxSealBytes), nullptr, false);
        if (!seal.is_object()) return Manifest::object();
        const auto files = seal.find("files");
        return files != seal.end() && files->is_object() ? *files : Manifest::object();
    } catch (const FileError &) {
        return Manifest::object();
    }
}

// Throws FileError unless it is a regular file that can be read.
std::string hash_of(const fs::path &path) {
    RegularFile file(path);
    Sha256 hash;
    std::vector<char> chunk(kChunkBytes);
    while (const auto got = file.read(chunk.data(), chunk.size())) hash.update(chunk.data(), got);
    return hash.hex();
}

// Whether the file is another process's temporary one of a seal (atomic_write), or its like.
bool is_hidden(const std::string &name) { return name.starts_with('.'); }

bool has_hash(const fs::path &path, const Manifest &expected) {
    try {
        return expected == hash_of(path);
    } catch (const FileError &) {
        return false;
    }
}

std::string join(const std::vector<std::string> &lines) {
    std::string text;
    for (const auto &line : lines) text += (text.empty() ? "" : "\n") + line;
    return text;
}

std::string strip(const std::string &text) {
    constexpr const char *kSpace = " \t\r\n\f\v";
    const auto first = text.find_first_not_of(kSpace);
    return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace

std::string graph_key(const Bundle &bundle) {
    std::vector<std::string> hashes{bundle.files.at(kGraph).sha256};
    for (const auto &[name, entry] : bundle.files) {
        if (name != kGraph) hashes.push_back(entry.sha256);
    }
    return sha256(join(hashes));
}

std::string cache_key(std::initializer_list<std::string_view> parts) {
    return sha256(join({parts.begin(), parts.end()})).substr(0, kKeyDigits);
}

std::string cpu_identity() {
    constexpr std::array<const char *, 5> kKeys{"model name", "flags", "CPU implementer", "CPU part", "Features"};
    std::ifstream file("/proc/cpuinfo");
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) {
        const auto colon = line.find(':');
        if (colon == std::string::npos) break;  // the end of the first core
        const auto name = strip(line.substr(0, colon));
        for (const char *key : kKeys) {
            if (name == key) lines.push_back(name + ":" + strip(line.substr(colon + 1)));
        }
    }
    return join(lines);
}

std::optional<CompileCache> CompileCache::open(const Bundle &bundle, const std::string &backend,
                                               const std::string &library, const std::string &device) {
    try {
        const auto key = cache_key({backend, library, device, graph_key(bundle)});
        const auto folder = open_user_folder(UserFolder::cache, {"compiled", backend + "-" + key}, true);
        if (!folder) return std::nullopt;
        auto lock = lock_folder(*folder);
        if (!lock) return std::nullopt;
        CompileCache cache(*folder, std::move(lock));
        cache.delete_unsealed();
        return cache.seal() ? std::optional(std::move(cache)) : std::nullopt;
    } catch (const fs::filesystem_error &) {
        return std::nullopt;
    }
}

void CompileCache::Unlock::operator()(const int *descriptor) const noexcept {
    ::close(*descriptor);
    delete descriptor;
}

// Nothing if another session, also one of this process, holds the folder for kLockWait.
CompileCache::Lock CompileCache::lock_folder(const fs::path &folder) {
    const int descriptor = ::open((folder / kLock).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
    if (descriptor < 0) return nullptr;
    Lock lock(new int(descriptor));
    const auto end = std::chrono::steady_clock::now() + kLockWait;
    while (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
        if (std::chrono::steady_clock::now() >= end) return nullptr;
        std::this_thread::sleep_for(kLockPoll);
    }
    return lock;
}

bool CompileCache::seal() const noexcept {
    try {
        auto files = Manifest::object();
        for (const auto &entry : fs::directory_iterator(folder_)) {
            const auto name = entry.path().filename().string();
            if (name == kSeal || is_hidden(name)) continue;
            files[name] = hash_of(entry.path());
            ::chmod(entry.path().c_str(), S_IRUSR | S_IWUSR);  // the library made it with the umask
        }
        atomic_write(folder_ / kSeal, Manifest{{"files", files}}.dump(2) + "\n");
        return true;
    } catch (const std::exception &) {
        return false;
    }
}

void CompileCache::delete_unsealed() const {
    const auto sealed = read_seal(folder_);
    for (const auto &entry : fs::directory_iterator(folder_)) {
        const auto name = entry.path().filename().string();
        if (name == kSeal || is_hidden(name)) continue;
        const auto hash = sealed.find(name);
        if (hash == sealed.end() || !has_hash(entry.path(), *hash)) fs::remove(entry.path());
    }
}

}  // namespace tcmoa
