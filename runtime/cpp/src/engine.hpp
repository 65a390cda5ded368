// TensorRT engines of a bundle: what is known of one before anything of it is loaded; see tcmoa_runtime/engine.py.
//
//   engines/<flavour>-<version>-<targets>-<precision>.engine   as the builder serialised it
//   engines/<same name>.json                                   what it is; carries the engine's hash and its own
//
// Loading an engine equals running native code: only from inside the bundle, only with a matching hash, only on the
// library version and the kind of GPU that it was built for.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bundle.hpp"

namespace tcmoa {

// `tensorrt` for data centres and workstations, `rtx` for GeForce and RTX.
enum class Flavour { tensorrt, rtx };

std::string name_of(Flavour flavour);

// A compute capability as {8, 9}.
using Capability = std::pair<int, int>;

class Engine {
public:
    // Read and check the JSON beside the engine at `path`; cheap, the engine is not touched yet. Throws Error
    // (TCMOA_ERROR_BUNDLE) when the engine lies outside the bundle, when its JSON is missing, damaged, foreign, of a
    // newer format or edited by hand, and when it describes an engine of another graph.
    static Engine open(const Bundle &bundle, const std::filesystem::path &path);

    std::filesystem::path path;
    Flavour flavour = Flavour::tensorrt;
    std::string version;                // exact, of the library that built it, the only one that runs it
    std::string precision;              // "fp16", "bf16" or "fp32"
    std::vector<std::string> targets;   // GPUs it was built for ahead of time, as "sm86"
    std::string compatibility;          // on which other GPUs it runs: "none", "ampere_plus", "same_compute_capability"
    std::optional<Capability> gpu;      // of the machine that it was built on
    std::string gpu_name;
    bool stripped = false;              // holds no weights
    FileEntry file;
    std::string again;                  // what to do when it must not be used

    // The name that its description asks for, without suffix.
    [[nodiscard]] std::string stem() const;

    // Its place in the order of preference; less is better.
    [[nodiscard]] int rank() const;

    // The engine's bytes, hashed as read, so that what is loaded is what was checked; else Error (TCMOA_ERROR_BUNDLE).
    [[nodiscard]] std::string read() const;

    // Why it does not run on this library and GPU; empty when it does.
    [[nodiscard]] std::string unfit(const std::string &installed, Capability gpu_here) const;

private:
    std::filesystem::path root_;  // the bundle's folder
};

// Paths of the engines in a bundle, by name; none of them is opened. Throws Error when unreadable.
std::vector<std::filesystem::path> find_engines(const Bundle &bundle);

// What to do about an engine of this name, or about there being none.
std::string build_again(const std::filesystem::path &bundle, std::string_view name = "");

}  // namespace tcmoa
