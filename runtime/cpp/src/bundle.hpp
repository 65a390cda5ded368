// Bundles: a folder with one fixed graph and everything needed to know what it is; see tcmoa_runtime/bundle.py.
//
//   bundle.json   what the bundle is; carries the hashes of all other files and its own
//   fusion.onnx   the graph (fusion.data beside it where the weights exceed what one ONNX file can hold)
//   engines/      TensorRT engines, each with a .json that carries its hash; what backends compiled
//
// A bundle is checked before anything of it is loaded, and what does not match is refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "contract.hpp"
#include "manifest.hpp"

namespace tcmoa {

inline constexpr const char *kGraph = "fusion.onnx";
inline constexpr const char *kGraphData = "fusion.data";
inline constexpr const char *kEngines = "engines";

// `sha256` (hexadecimal) and `bytes` of a file.
struct FileEntry {
    std::string sha256;
    std::int64_t bytes = 0;
    bool operator==(const FileEntry &) const = default;
};

class Bundle {
public:
    // Read and check bundle.json; cheap, the graph is not touched yet. Throws Error (TCMOA_ERROR_BUNDLE).
    static Bundle open(const std::filesystem::path &path);

    std::filesystem::path path;
    Manifest manifest;
    Contract contract;
    std::string task, preset, precision, channel_order, fit, graph_name;
    int token_pixels = 8;
    float default_scale = 1, default_shift = 0;
    std::map<std::string, FileEntry> files;

    [[nodiscard]] std::filesystem::path graph_path() const { return path / kGraph; }
    [[nodiscard]] bool has_external_data() const { return files.contains(kGraphData); }

    // Compare every file with bundle.json; throws on the first that differs.
    void check() const;

    // The graph's bytes, hashed as read, so that what is loaded is what was checked.
    [[nodiscard]] std::string read_graph() const;
};

// The bytes of a file, hashed as read; throws unless they are `wanted`. `says` is the file that said so, `again` the
// advice.
std::string read_checked(const std::filesystem::path &path, const FileEntry &wanted, std::string_view says,
                         std::string_view again);

// SHA-256 of bytes, or of a file, hexadecimal. The latter throws std::filesystem::filesystem_error.
std::string sha256(std::string_view bytes);
std::string sha256_file(const std::filesystem::path &path);

}  // namespace tcmoa
