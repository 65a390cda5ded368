#include "compile_cache.hpp"

#include <cctype>
#include <fstream>

#include "atomic_write.hpp"
#include "sha256.hpp"

namespace tcmoa {
namespace {

namespace fs = std::filesystem;

constexpr const char *kSeal = "cache.json";
constexpr std::size_t kMaxNameBytes = 80, kDigestDigits = 12;

// Hashes by file name; empty if the seal is missing or damaged.
Manifest read_seal(const fs::path &folder) {
    std::ifstream file(folder / kSeal, std::ios::binary);
    const auto seal = Manifest::parse(file, nullptr, false);
    if (!seal.is_object()) return Manifest::object();
    const auto files = seal.find("files");
    return files != seal.end() && files->is_object() ? *files : Manifest::object();
}

}  // namespace

std::string cache_prefix(const Bundle &bundle) {
    std::string hashes = bundle.files.at(kGraph).sha256;
    // The hash is over the files in the manifest's order: the graph, then its data. A parsed object is sorted by name.
    if (bundle.files.size() > 1) hashes = sha256(hashes + bundle.files.at(kGraphData).sha256);
    // As in Python, one underscore replaces one character, which may be several bytes.
    std::string safe;
    for (char c : bundle.graph_name) {
        const auto byte = static_cast<unsigned char>(c);
        if ((byte & 0xc0) == 0x80) continue;
        safe += (byte < 0x80 && (isalnum(byte) || c == '_' || c == '-')) ? c : '_';
    }
    std::string digest = hashes.substr(0, kDigestDigits);
    for (char &c : digest) {
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) c = '_';
    }
    return safe.substr(0, kMaxNameBytes) + "-" + digest;
}

std::optional<CompileCache> CompileCache::open(const Bundle &bundle, const std::string &backend) {
    try {
        const CompileCache cache(bundle.path / kEngines / (backend + "-" + cache_prefix(bundle)));
        fs::create_directories(cache.folder_);
        // A symbolic link would lead out of the bundle, and what is read there runs as code.
        if (fs::canonical(cache.folder_) != fs::canonical(bundle.path) / kEngines / cache.folder_.filename()) {
            return std::nullopt;
        }
        cache.delete_unsealed();
        return cache.seal() ? std::optional(cache) : std::nullopt;
    } catch (const fs::filesystem_error &) {
        return std::nullopt;
    }
}

bool CompileCache::seal() const noexcept {
    try {
        auto files = Manifest::object();
        for (const auto &entry : fs::directory_iterator(folder_)) {
            const auto name = entry.path().filename().string();
            if (name != kSeal) files[name] = sha256_file(entry.path());
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
        if (name == kSeal) continue;
        const auto hash = sealed.find(name);
        if (entry.is_symlink() || hash == sealed.end() || *hash != sha256_file(entry.path())) fs::remove(entry.path());
    }
}

}  // namespace tcmoa
