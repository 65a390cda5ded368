// The folder in which a backend keeps what it compiled for a bundle's graph. tcmoa_runtime uses the same folders, so
// that C and Python share their caches.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "bundle.hpp"

namespace tcmoa {

// What a backend reads from its cache runs as native code. The files are hashed after they were written (`seal`), and a
// file that differs from its hash is deleted before the next session reads it. That finds damage and interrupted
// sessions. It is no protection against whoever made the bundle: they can write a matching hash.
class CompileCache {
public:
    // The cache of a bundle and a backend, e.g. "openvino-2026.4.1"; nothing if the bundle is not writable.
    static std::optional<CompileCache> open(const Bundle &bundle, const std::string &backend);

    [[nodiscard]] const std::filesystem::path &folder() const { return folder_; }

    // Record the hash of each file. Returns false if that fails: the next session then compiles everything.
    bool seal() const noexcept;

private:
    explicit CompileCache(std::filesystem::path folder) : folder_(std::move(folder)) {}
    void delete_unsealed() const;
    std::filesystem::path folder_;
};

// A name that no other graph has: the graph's own, and the first 12 digits of its files' SHA-256.
std::string cache_prefix(const Bundle &bundle);

}  // namespace tcmoa
