// The interface of what runs a bundle's graph: a backend and its slots.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace tcmoa {

// The graph's tensors in host memory, row-major: x [B, H, W, C] and so on, see contract.hpp. Held extremes are not
// among them: a slot fills them once.
struct HostTensors {
    std::span<std::uint8_t> x, y;
    std::span<float> scale, shift;  // empty if the network has no prompt
    std::span<std::uint8_t> fused;
    std::span<float> prompt;  // empty if the graph has no such output
};

// A source in GPU memory: packed like its tensor, and the stream whose earlier work writes it.
struct DeviceFrame {
    void *pointer = nullptr;  // nullptr: the source is in the host tensor
    void *stream = nullptr;   // CUstream; nullptr: the legacy default stream
};

// The caller's host memory, packed like the tensors, that the network uses instead of the slot's own tensors; nullptr:
// the slot's own. Used only while the network runs.
struct ExternalBuffers {
    const std::uint8_t *x = nullptr, *y = nullptr;
    std::uint8_t *fused = nullptr;
};

// One frame in flight. Used by one thread at a time; slots of one backend may be used by several threads at a time.
// After `start` or `wait_for` threw, the slot can be started again.
class Slot {
public:
    virtual ~Slot() = default;

    // Inputs to write before `start`, outputs to read after `collect`. The memory does not move.
    [[nodiscard]] virtual const HostTensors &tensors() const noexcept = 0;

    // Use these buffers from the next start on. Called only if the backend supports it.
    virtual void bind(const ExternalBuffers &) {}

    // Start the network on the host tensors, except for sources in GPU memory. Returns without waiting for it.
    virtual void start(const DeviceFrame &x, const DeviceFrame &y) = 0;

    // Wait for at most `timeout`, or without limit if it is negative. Returns whether the network is done; then the
    // sources may be changed. Throws Error if the network failed.
    virtual bool wait_for(std::chrono::milliseconds timeout) = 0;

    // After `wait_for` returned true: make the results available in the host tensors.
    virtual void collect() = 0;

    // After `wait_for` returned true: copy the fused frame to GPU memory, in the order of `stream`. The copy is done
    // when this returns.
    virtual void collect_to(void *pointer, void *stream) = 0;
};

class Backend {
public:
    virtual ~Backend() = default;

    // Name and device, e.g. "openvino (CPU)".
    [[nodiscard]] virtual std::string name() const = 0;

    // Whether frames may be in GPU memory.
    [[nodiscard]] virtual bool accepts_cuda() const noexcept = 0;

    // Whether slots can use the caller's host memory, see ExternalBuffers.
    [[nodiscard]] virtual bool accepts_external_buffers() const noexcept { return false; }

    // The backend must outlive its slots.
    [[nodiscard]] virtual std::unique_ptr<Slot> new_slot() = 0;
};

struct BackendOptions {
    std::string name = "auto";  // "auto", "openvino", "openvino-bf16" or "tensorrt"
    int threads = 0;            // of a backend on the CPU; 0: all cores
    int cuda_device = 0;
    bool cuda_graph = true;
    bool trust_engines = false;  // also load engines that this user did not build
    std::string note;            // for the name of the backend: why it was taken in place of a better one
};

}  // namespace tcmoa
