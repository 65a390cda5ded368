// What runs a bundle's graph. One backend is one file; all keep the same small contract.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "bundle.hpp"
#include "tcmoa.h"

namespace tcmoa {

// The graph's tensors in memory that the host reads and writes; batch 1, so x is [H, W, C] and so on.
struct Tensors {
    std::span<std::uint8_t> x, y;
    std::span<float> scale, shift;
    std::span<std::uint8_t> fused;
    std::span<float> prompt;  // empty where the graph has no such output
};

// A source that lies on the GPU: packed as the tensor is, and the stream whose earlier work writes it.
struct DeviceFrame {
    void *pointer = nullptr;  // nullptr: the source lies in the host tensor
    void *stream = nullptr;   // CUstream; nullptr is the legacy default one
};

// Memory of the caller, packed as the tensors are, that the network reads and writes in place of the slot's tensors;
// nullptr: the slot's own. It is the caller's for as long as the network runs, and not touched after that.
struct Borrowed {
    const std::uint8_t *x = nullptr, *y = nullptr;
    std::uint8_t *fused = nullptr;
};

// One frame in flight. Used by one thread at a time; different slots of a backend run beside each other, or in turn.
// After `start` threw, or `ready` threw, the slot can be started again.
class Slot {
public:
    virtual ~Slot() = default;

    // Where the host's inputs are written before `start`, and outputs are found after `collect`. Never moves.
    [[nodiscard]] virtual const Tensors &tensors() const noexcept = 0;

    // For the starts that follow. Called only where the backend borrows.
    virtual void borrow(const Borrowed &) {}

    // Start the network on the host tensors, but for sources that lie on the GPU. Returns without waiting for it.
    virtual void start(const DeviceFrame &x, const DeviceFrame &y) = 0;

    // Whether the network is done, after waiting for at most `timeout`; negative: without limit. Throws what went
    // wrong in the network. The sources may be changed once it returned true.
    virtual bool ready(std::chrono::milliseconds timeout) = 0;

    // After `ready`: bring the results into the host tensors.
    virtual void collect() = 0;

    // After `ready`: copy the fused frame to GPU memory, ordered in `stream`; done when it returns.
    virtual void collect_to(void *pointer, void *stream) = 0;
};

class Backend {
public:
    virtual ~Backend() = default;

    // Name and device, as `openvino (CPU)`.
    [[nodiscard]] virtual std::string name() const = 0;

    // Whether frames may lie on the GPU.
    [[nodiscard]] virtual bool takes_cuda() const noexcept = 0;

    // Whether its slots can work in the caller's host memory.
    [[nodiscard]] virtual bool borrows() const noexcept { return false; }

    // A new slot. The backend outlives its slots.
    [[nodiscard]] virtual std::unique_ptr<Slot> new_slot() = 0;
};

struct BackendOptions {
    std::string name = "auto";
    int threads = 0;  // of a backend on the CPU; 0: all cores
    int cuda_device = 0;
    bool cuda_graph = true;
};

// Check what the backend needs of the bundle and load it. `auto` takes tensorrt where the bundle has an engine that
// runs on this machine, else openvino. Throws Error.
std::unique_ptr<Backend> load_backend(const Bundle &bundle, const BackendOptions &options);

std::unique_ptr<Backend> load_openvino(const Bundle &bundle, const BackendOptions &options);

// nullptr, with the reason in `unfit`, where the bundle's engines are sound but none runs here, or TensorRT, a driver
// or a GPU is not there; throws where an engine is damaged.
std::unique_ptr<Backend> load_tensorrt(const Bundle &bundle, const BackendOptions &options,
                                       std::unique_ptr<class Error> &unfit);

}  // namespace tcmoa
