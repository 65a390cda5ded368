// Bundles: a folder with one fixed graph and its description; see tcmoa_runtime/bundle.py.
//
//   bundle.json   description; lists the hashes of the other files and carries its own
//   fusion.onnx   the graph, with fusion.data if the weights exceed the size of one ONNX file
//   engines/      TensorRT engines, each with a .json that carries its hash; compile caches of backends
//
// A bundle is checked before anything of it is loaded; what does not match is refused.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "contract.hpp"
#include "manifest.hpp"
#include "verified_file.hpp"

namespace tcmoa {

inline constexpr const char *kGraph = "fusion.onnx";
inline constexpr const char *kGraphData = "fusion.data";
inline constexpr const char *kEngines = "engines";

inline constexpr const char *kExportAgain = "export it again with `tcmoa export`";  // a remedy

class Bundle {
public:
    // Read and check bundle.json; cheap, the graph is not read yet. Throws Error (TCMOA_ERROR_BUNDLE).
    static Bundle open(const std::filesystem::path &path);

    std::filesystem::path path;
    Manifest manifest;
    Contract contract;
    std::string task;           // "vif", "mef" or "mff"
    std::string preset;         // "tiny", "base", "large", "custom" ...; the name of a wrapped network
    std::string precision;      // of the graph's arithmetic, e.g. "fp32"
    std::string channel_order;  // "rgb" or "bgr"
    std::string fit;            // "pad", "crops" or "resize": how the graph covers the frame; resize: it cannot be tiled
    std::string graph_name;
    bool wrapped = false;   // a network of others (`tcmoa wrap`), which has no prompt
    int token_pixels = 8;   // side of a token in pixels: 8 or 16; 0 of a wrapped network
    int tile_step = 8;      // tiles start at multiples of it: a token, or 1 to 64 pixels of a wrapped network
    int window_pixels = 8;  // side of an attention window; tile_step if bundle.json states no window
    float default_scale = 1, default_shift = 0;
    std::map<std::string, FileEntry> files;  // by name

    [[nodiscard]] std::filesystem::path graph_path() const { return path / kGraph; }
    [[nodiscard]] bool has_external_data() const { return files.contains(kGraphData); }

    // Compare every file with bundle.json, and check the graph; throws Error (TCMOA_ERROR_BUNDLE) at the first fault.
    void verify_files() const;

    // The graph's bytes, verified as they were read: what is loaded is what was checked. Throws Error
    // (TCMOA_ERROR_BUNDLE) also if the graph holds what a bundle may not hold, see graph_check.hpp.
    [[nodiscard]] std::string read_graph() const;

    // Copy the weights beside the graph to a new file, verified as they were read. Throws std::system_error if the copy
    // cannot be written.
    void copy_weights(const std::filesystem::path &target) const;
};

}  // namespace tcmoa
