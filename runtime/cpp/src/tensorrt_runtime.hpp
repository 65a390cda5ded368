// What the backend needs of TensorRT or TensorRT-RTX, without their headers: both define the same names differently,
// and most machines that build this library have neither.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "contract.hpp"
#include "engine.hpp"

namespace tcmoa {

// The inputs and outputs that an engine reports.
struct EngineTensors {
    std::vector<ReportedTensor> inputs, outputs;
    std::string unsupported;  // name of a tensor that is not in linear GPU memory; empty if there is none
};

// Runs an engine, once at a time. The GPU must be current in all calls.
class EngineContext {
public:
    virtual ~EngineContext() = default;

    // Use this GPU memory, 256-byte aligned, for intermediate results.
    virtual void set_scratch(void *memory, std::size_t bytes) = 0;
    virtual void bind(const char *tensor, void *address) = 0;

    // Enqueue the engine once in `stream`. Throws Error with what the library logged.
    virtual void enqueue(void *stream) = 0;

    // Whether the library supports capturing the engine in a CUDA graph. Only TensorRT-RTX can be asked; true
    // otherwise.
    [[nodiscard]] virtual bool can_capture(void *stream) const = 0;
};

class LoadedEngine {
public:
    virtual ~LoadedEngine() = default;
    [[nodiscard]] virtual std::size_t scratch_bytes() const = 0;  // needed by a context
    [[nodiscard]] virtual EngineTensors tensors() const = 0;

    // Load kernels that were compiled in an earlier process, before the first context. Returns false if the library
    // refuses them. Only TensorRT-RTX compiles kernels at run time.
    virtual bool load_kernels(std::string_view kernels) = 0;
    [[nodiscard]] virtual std::string compiled_kernels() const = 0;  // empty if there are none
    [[nodiscard]] virtual std::unique_ptr<EngineContext> new_context() = 0;
};

class TensorRt {
public:
    virtual ~TensorRt() = default;

    // All four numbers, e.g. "1.7.1.116".
    [[nodiscard]] virtual std::string version() const = 0;

    // Load an engine from its bytes. Throws Error (TCMOA_ERROR_BUNDLE) with what the library logged if it refuses
    // them. `description` is only read during the call.
    [[nodiscard]] virtual std::unique_ptr<LoadedEngine> load(const Engine &description, std::string_view bytes) = 0;
};

// Major and minor number.
using MinorVersion = std::pair<int, int>;

// The versions of a library that run code which was compiled with `headers`, e.g. "version 1.7"; empty if `library` is
// one of them. TensorRT keeps its virtual tables within a major version and adds to their ends. TensorRT-RTX changes
// them from one minor version to the next, under one file name.
std::string expected_version(Flavor flavor, MinorVersion headers, MinorVersion library);

// The library of a flavor in this process. Throws Error (TCMOA_ERROR_MISSING) if it is not installed, or if
// libtcmoa was built without it.
TensorRt &tensorrt_library(Flavor flavor);

// Each is compiled if its headers were found; only `tensorrt_library` calls them.
TensorRt &open_tensorrt();
TensorRt &open_tensorrt_rtx();

}  // namespace tcmoa
