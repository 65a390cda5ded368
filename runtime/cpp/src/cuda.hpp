// A GPU, its memory, streams, events and graphs, with every call of the driver checked.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "cuda_driver.hpp"

namespace tcmoa::cuda {

// A GPU and its primary context, which TensorRT and CUDA's runtime library use, too.
class Device {
public:
    explicit Device(int index);
    ~Device();
    Device(const Device &) = delete;
    Device &operator=(const Device &) = delete;

    struct Properties {
        int device = 0;  // CUdevice
        std::string name;
        int major = 0, minor = 0;  // compute capability
    };

    // Needs no context. Throws Error (TCMOA_ERROR_INPUT) if there is no GPU of this index.
    static Properties properties(int index);

    [[nodiscard]] Handle context() const noexcept { return context_; }

    // Throw Error (TCMOA_ERROR_INPUT) unless `pointer` is memory, or `stream` is a stream, of this GPU and context.
    // `frame` is the frame's name, for the message.
    void check_memory(const void *pointer, std::string_view frame) const;
    void check_stream(Handle stream, std::string_view frame) const;

private:
    [[noreturn]] void refuse(std::string_view frame, const std::string &problem, const char *remedy) const;

    const Driver &driver_;
    int index_, device_ = 0;
    Handle context_ = nullptr;
};

// Makes a device's context current for the calling thread as long as the object exists. CUDA keeps a stack of contexts
// per thread.
class CurrentDevice {
public:
    explicit CurrentDevice(const Device &device);
    ~CurrentDevice();
    CurrentDevice(const CurrentDevice &) = delete;
    CurrentDevice &operator=(const CurrentDevice &) = delete;
};

// A handle that is freed by the driver's function `free`, with the device current. Failures of freeing are ignored: a
// lost GPU fails the next call as well.
template <typename T, Result (*Driver::*free)(T)>
class Owned {
public:
    Owned() = default;
    explicit Owned(T handle) : handle_(handle) {}
    ~Owned() { reset(); }
    Owned(Owned &&other) noexcept : handle_(std::exchange(other.handle_, T{})) {}
    Owned &operator=(Owned &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    void reset() noexcept {
        if (handle_) (void)(Driver::get().*free)(std::exchange(handle_, T{}));
    }
    [[nodiscard]] T get() const noexcept { return handle_; }
    explicit operator bool() const noexcept { return handle_ != T{}; }

private:
    T handle_{};
};

using DeviceMemory = Owned<Address, &Driver::cuMemFree_v2>;
using PinnedMemory = Owned<void *, &Driver::cuMemFreeHost>;  // page-locked host memory
using Stream = Owned<Handle, &Driver::cuStreamDestroy_v2>;
using Event = Owned<Handle, &Driver::cuEventDestroy_v2>;
using Graph = Owned<Handle, &Driver::cuGraphExecDestroy>;

// Throw Error (TCMOA_ERROR_MEMORY) if there is not enough memory.
DeviceMemory new_device_memory(std::size_t bytes);
PinnedMemory new_pinned_memory(std::size_t bytes);

Stream new_stream();  // does not synchronize with the legacy default stream
Event new_event();

void begin_capture(Handle stream);

// Returns an empty graph if `failed`.
Graph end_capture(Handle stream, bool failed);

// Record the work that `enqueue` enqueues in `stream` as a graph; nothing of it runs yet. The capture is thread-local:
// calls of other threads do not disturb it.
template <typename Enqueue>
Graph capture(Handle stream, Enqueue &&enqueue) {
    begin_capture(stream);
    try {
        std::forward<Enqueue>(enqueue)();
    } catch (...) {
        (void)end_capture(stream, true);
        throw;
    }
    return end_capture(stream, false);
}

}  // namespace tcmoa::cuda
