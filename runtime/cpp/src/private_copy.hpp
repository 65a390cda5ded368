// What a library loads by path: copies that only this user can reach.
#pragma once

#include <filesystem>
#include <string>

#include "bundle.hpp"

namespace tcmoa {

// A folder with copies of a bundle's graph and weights, which is deleted with the object.
//
// Libraries find weights beside the graph by the graph's path only, and open them again. So both files are copied while
// they are hashed, into a new folder that only this user can enter, and the copies are what is loaded.
class PrivateCopy {
public:
    // Throws Error: the bundle is refused, or the folder for temporary files has no room.
    explicit PrivateCopy(const Bundle &bundle);
    ~PrivateCopy();
    PrivateCopy(const PrivateCopy &) = delete;
    PrivateCopy &operator=(const PrivateCopy &) = delete;

    [[nodiscard]] std::filesystem::path graph_path() const { return folder_ / kGraph; }

private:
    std::filesystem::path folder_;

    void remove() noexcept;
};

}  // namespace tcmoa
