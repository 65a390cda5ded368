// What the backend needs of TensorRT or TensorRT-RTX, without a word of their headers: those two define the same names
// differently, and most machines that build this library have neither.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine.hpp"

namespace tcmoa {

// An engine's input or output as the library has it.
struct EngineTensor {
    std::string name, type;  // type as in messages: "uint8", "float32" or another
    std::vector<std::int64_t> shape;
    bool input = false;
    bool plain = false;  // linear memory of the GPU
};

// What runs an engine once at a time. All calls want the GPU's context to be current.
class EngineContext {
public:
    virtual ~EngineContext() = default;

    // Use so much memory of the GPU to work in, 256-byte aligned.
    virtual void work_in(void *scratch, std::size_t bytes) = 0;
    virtual void bind(const char *name, void *address) = 0;

    // Queue the engine once in `stream`; throws what the library logged when it refuses.
    virtual void enqueue(void *stream) = 0;

    // Whether the library says that it can be captured. TensorRT has no such question, TensorRT-RTX has.
    [[nodiscard]] virtual bool can_capture(void *stream) const = 0;
};

class LoadedEngine {
public:
    virtual ~LoadedEngine() = default;
    [[nodiscard]] virtual std::size_t scratch_bytes() const = 0;  // that a context works in
    [[nodiscard]] virtual std::vector<EngineTensor> tensors() const = 0;

    // The kernels that were compiled in an earlier run, before the first context; false where the library refuses
    // them. And those of this run; empty where there are none. Only TensorRT-RTX compiles any.
    virtual bool take_kernels(std::string_view blob) = 0;
    [[nodiscard]] virtual std::string kernels() const = 0;
    [[nodiscard]] virtual std::unique_ptr<EngineContext> new_context() = 0;
};

class TensorRt {
public:
    virtual ~TensorRt() = default;

    // All four numbers, as "1.7.1.116".
    [[nodiscard]] virtual std::string version() const = 0;

    // Throws Error (TCMOA_ERROR_BUNDLE) with what the library logged when it refuses `blob`, the engine's bytes. The
    // description is only read during the call.
    [[nodiscard]] virtual std::unique_ptr<LoadedEngine> load(const Engine &description, std::string_view blob) = 0;
};

// The library of a flavour in this process; Error (TCMOA_ERROR_MISSING) that says what to do where there is none, or
// where this library was built without it.
TensorRt &tensorrt_library(Flavour flavour);

// One of these each is built per flavour; `tensorrt_library` is what knows which are.
TensorRt &open_tensorrt();
TensorRt &open_tensorrt_rtx();

}  // namespace tcmoa
