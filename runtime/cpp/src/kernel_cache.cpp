#include "kernel_cache.hpp"

#include "atomic_write.hpp"
#include "compile_cache.hpp"
#include "regular_file.hpp"
#include "sha256.hpp"
#include "user_folders.hpp"

namespace tcmoa {
namespace {

constexpr std::string_view kMagic = "tcmoa runtime cache 1\n";
constexpr std::size_t kHashBytes = 32;
constexpr const char *kFolder = "kernels";
constexpr std::uintmax_t kMaxBytes = 1 << 30;

// A hexadecimal SHA-256 as bytes.
std::string from_hex(const std::string &hex) {
    const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    std::string bytes;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
        bytes += static_cast<char>(static_cast<unsigned char>(digit(hex[i]) * 16 + digit(hex[i + 1])));
    }
    return bytes;
}

}  // namespace

KernelCache::KernelCache(const Engine &engine, const std::string &gpu_name, Capability capability)
    : name_("rtx-" + cache_key({engine.file.sha256, gpu_name, to_string(capability)}) + ".runtime_cache"),
      engine_hash_(engine.file.sha256) {}

// Format, the engine's hash, and the kernels' hash: TensorRT-RTX itself only checks for which GPU they were compiled.
std::string KernelCache::header(std::string_view kernels) const {
    return std::string(kMagic) + from_hex(engine_hash_) + from_hex(sha256(kernels));
}

void KernelCache::load(LoadedEngine &loaded) {
    const auto folder = open_user_folder(UserFolder::cache, {kFolder});
    if (!folder) return;
    std::string text;
    try {
        text = read_regular_file(*folder / name_, kMaxBytes);
    } catch (const FileError &) {
        return;
    }
    const std::size_t start = kMagic.size() + 2 * kHashBytes;
    if (text.size() <= start) return;
    const auto kernels = std::string_view(text).substr(start);
    if (std::string_view(text).substr(0, start) == header(kernels) && loaded.load_kernels(kernels)) {
        loaded_kernels_ = kernels;
    }
}

void KernelCache::save(const LoadedEngine &loaded) noexcept {
    try {
        const auto kernels = loaded.compiled_kernels();
        if (kernels.empty() || kernels == loaded_kernels_) return;
        const auto folder = open_user_folder(UserFolder::cache, {kFolder}, true);
        if (folder) atomic_write(*folder / name_, header(kernels) + kernels);
    } catch (...) {
    }
}

}  // namespace tcmoa
