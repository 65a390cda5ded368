#include <cstdint>
#include <fstream>
#include <iterator>

#include "cache.hpp"
#include "tensorrt.hpp"

namespace tcmoa {
namespace {

constexpr std::string_view kMagic = "tcmoa runtime cache 1\n";
constexpr std::size_t kHashBytes = 32;

// A SHA-256 as bytes.
std::string raw(const std::string &hex) {
    const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    std::string bytes;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
        bytes += static_cast<char>(static_cast<unsigned char>(digit(hex[i]) * 16 + digit(hex[i + 1])));
    }
    return bytes;
}

}  // namespace

KernelCache::KernelCache(const Engine &engine) : path_(engine.path), engine_hash_(engine.file.sha256) {
    path_.replace_extension(".runtime_cache");
}

// Which engine's kernels these are, and their hash: the library only checks where they were made.
std::string KernelCache::header(std::string_view blob) const {
    return std::string(kMagic) + raw(engine_hash_) + raw(sha256(blob));
}

void KernelCache::load(LoadedEngine &loaded) {
    std::error_code error;
    if (!std::filesystem::is_regular_file(path_, error)) return;
    std::ifstream file(path_, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const std::size_t start = kMagic.size() + 2 * kHashBytes;
    if (text.size() <= start) return;
    const auto blob = std::string_view(text).substr(start);
    if (std::string_view(text).substr(0, start) == header(blob) && loaded.take_kernels(blob)) kept_ = blob;
}

void KernelCache::save(const LoadedEngine &loaded) noexcept {
    try {
        const auto blob = loaded.kernels();
        if (!blob.empty() && blob != kept_) write_file(path_, header(blob) + blob);
    } catch (...) {  // nobody to tell: kernels are compiled again at the next start
    }
}

}  // namespace tcmoa
