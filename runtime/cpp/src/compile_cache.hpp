// The folder in which a backend keeps what it compiled for a bundle's graph, in the user's cache folder and never in the
// bundle. tcmoa_runtime uses the same folders, so that C and Python share their caches.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>

#include "bundle.hpp"

namespace tcmoa {

// What a backend reads from its cache runs as native code. So only the user can write to the folder, and the files are
// hashed after they were written (`seal`): a file that differs from its hash, after damage or an interrupted session, is
// deleted before the next session reads it. One session at a time uses the folder, as long as this object lives, so that
// no other reads or deletes a file that is half written.
class CompileCache {
public:
    // The cache of a bundle's graph. backend: e.g. "openvino". library: name and version of what compiles. device: what
    // it compiles for. Nothing if the user's cache folder cannot be used, or another session uses it for a minute.
    static std::optional<CompileCache> open(const Bundle &bundle, const std::string &backend,
                                            const std::string &library, const std::string &device);

    [[nodiscard]] const std::filesystem::path &folder() const { return folder_; }

    // Record the hash of each file. Returns false if that fails: the next session then compiles everything.
    bool seal() const noexcept;

private:
    // A locked file, unlocked by closing it.
    struct Unlock {
        void operator()(const int *descriptor) const noexcept;
    };
    using Lock = std::unique_ptr<const int, Unlock>;

    CompileCache(std::filesystem::path folder, Lock lock) : folder_(std::move(folder)), lock_(std::move(lock)) {}
    static Lock lock_folder(const std::filesystem::path &folder);
    void delete_unsealed() const;
    std::filesystem::path folder_;
    Lock lock_;
};

// A name that no other graph has: the SHA-256 of the hashes of the bundle's files.
std::string graph_key(const Bundle &bundle);

// A file name for what depends on all of these texts.
std::string cache_key(std::initializer_list<std::string_view> parts);

// Text that is the same only on CPUs with the same instructions.
std::string cpu_identity();

}  // namespace tcmoa
