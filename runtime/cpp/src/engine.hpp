// TensorRT engines of a bundle: their descriptions, checked before anything is loaded; see tcmoa_runtime/engine.py.
//
//   engines/<flavor>-<version>-<targets>-<precision>.engine   as TensorRT serialized it
//   engines/<same name>.json                                  its description, with the engine's hash and its own
//
// Engines of a bundle that was installed with the Python package are in the user's data folder.
//
// An engine is native code: it is loaded only from inside its bundle, only with a matching hash, only by the library
// version and on the GPUs that it was built for, and only if its maker is trusted, see engine_trust.hpp.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bundle.hpp"

namespace tcmoa {

enum class Flavor { tensorrt, rtx };  // TensorRT, TensorRT-RTX

const char *name_of(Flavor flavor);

// A CUDA compute capability, e.g. {8, 9}.
using Capability = std::pair<int, int>;

// E.g. "8.9".
std::string to_string(Capability capability);

class Engine {
public:
    // Read and check the JSON file beside the engine at `path`; cheap, the engine is not read yet. Throws Error
    // (TCMOA_ERROR_BUNDLE) if the engine is outside of the bundle, its JSON is missing, damaged, of another format,
    // of a newer version or edited, or describes an engine of another graph.
    static Engine open(const Bundle &bundle, const std::filesystem::path &path);

    std::filesystem::path path;
    Flavor flavor = Flavor::tensorrt;
    std::string version;               // of the library that built it, the only version that runs it
    std::string precision;             // "fp16", "bf16" or "fp32"
    std::vector<std::string> targets;  // GPUs that it was built for ahead of time, e.g. "sm86"
    std::string compatibility;         // other GPUs: "none", "ampere_plus" or "same_compute_capability"
    std::optional<Capability> gpu;     // of the machine that built it
    std::string gpu_name;
    bool stripped = false;  // holds no weights
    FileEntry file;
    std::string remedy;  // what to do if it cannot be used

    // File name without suffix that follows from the description.
    [[nodiscard]] std::string stem() const;

    // Order of preference; the lowest comes first.
    [[nodiscard]] int rank() const;

    // The engine's bytes, verified as they were read. Throws Error (TCMOA_ERROR_BUNDLE).
    [[nodiscard]] std::string read() const;

    // Why the engine does not run with this version of the library on this GPU; empty if it runs.
    [[nodiscard]] std::string incompatibility(const std::string &library_version, Capability capability) const;

private:
    std::filesystem::path bundle_path_;
    std::string graph_key_;
};

// Paths of the engines in a bundle and in the user's data folder, each sorted by name; none is opened. Throws Error (TCMOA_ERROR_BUNDLE).
std::vector<std::filesystem::path> find_engines(const Bundle &bundle);

// The command that builds an engine whose file has this name; without a name, of either flavor.
std::string build_command(const std::filesystem::path &bundle, std::string_view name = "");

}  // namespace tcmoa
