// Where a backend keeps what it compiled for a bundle's graph; the same folders and files as
// tcmoa_runtime/backends/providers.py has, so that both serve each other.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "bundle.hpp"

namespace tcmoa {

// What a backend reads from its cache runs as native code. So the files are hashed when they were written (`seal`),
// and what is not as it was left is deleted before the next session. That finds damage, and runs that ended half-way;
// nothing keeps a bundle's maker from putting in what they like.
class Cache {
public:
    // The cache of a bundle and backend, as `openvino-2026.4.1`; none where the bundle cannot be written to.
    static std::optional<Cache> open(const Bundle &bundle, const std::string &backend);

    [[nodiscard]] const std::filesystem::path &folder() const { return folder_; }

    // Note the hash of each file. False when that cannot be written: everything is compiled anew next time.
    bool seal() const noexcept;

private:
    explicit Cache(std::filesystem::path folder) : folder_(std::move(folder)) {}
    void drop_unsealed() const;
    std::filesystem::path folder_;
};

// A name of the bundle's graph that no other graph has: its own, and the start of its files' SHA-256.
std::string cache_prefix(const Bundle &bundle);

// Write a file beside its place and rename it; throws std::filesystem::filesystem_error, with nothing left behind.
void write_file(const std::filesystem::path &path, std::string_view data);

}  // namespace tcmoa
