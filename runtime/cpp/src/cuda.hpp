// What the TensorRT backend needs of CUDA's driver library, every call checked; see tcmoa_runtime/cuda.py.
//
// libcuda is loaded when a GPU is first asked for, and its few functions are declared here: neither CUDA's headers nor
// a driver is needed to build this, and one binary of ours also serves where there is no GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "error.hpp"

namespace tcmoa::cuda {

// CUDA's handles are pointers to what only the driver knows; addresses of a GPU are 64 bits wide.
using Result = int;  // CUresult
using Handle = void *;
using Address = unsigned long long;  // CUdeviceptr

inline constexpr Result kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kNotReady = 600;

// The default stream that waits for all others, under the name that says so.
inline const Handle kLegacyStream = reinterpret_cast<Handle>(1);  // NOLINT: CUDA's own constant

// The functions, as name in libcuda and parameters. `_v2` are the ones that the names without it stand for in cuda.h
// since CUDA 11. tests/test_cuda_header.cpp compares all with that header where there is one.
#define TCMOA_CUDA_FUNCTIONS(f)                                                     \
    f(cuInit, (unsigned int))                                                       \
    f(cuDriverGetVersion, (int *))                                                  \
    f(cuGetErrorName, (Result, const char **))                                      \
    f(cuGetErrorString, (Result, const char **))                                    \
    f(cuDeviceGetCount, (int *))                                                    \
    f(cuDeviceGet, (int *, int))                                                    \
    f(cuDeviceGetName, (char *, int, int))                                          \
    f(cuDeviceGetAttribute, (int *, int, int))                                      \
    f(cuDevicePrimaryCtxRetain, (Handle *, int))                                    \
    f(cuDevicePrimaryCtxRelease_v2, (int))                                          \
    f(cuCtxPushCurrent_v2, (Handle))                                                \
    f(cuCtxPopCurrent_v2, (Handle *))                                               \
    f(cuMemGetInfo_v2, (std::size_t *, std::size_t *))                              \
    f(cuMemAlloc_v2, (Address *, std::size_t))                                      \
    f(cuMemFree_v2, (Address))                                                      \
    f(cuMemHostAlloc, (void **, std::size_t, unsigned int))                         \
    f(cuMemFreeHost, (void *))                                                      \
    f(cuMemcpyHtoDAsync_v2, (Address, const void *, std::size_t, Handle))           \
    f(cuMemcpyDtoHAsync_v2, (void *, Address, std::size_t, Handle))                 \
    f(cuMemcpyDtoDAsync_v2, (Address, Address, std::size_t, Handle))                \
    f(cuPointerGetAttribute, (void *, int, Address))                                \
    f(cuStreamCreate, (Handle *, unsigned int))                                     \
    f(cuStreamDestroy_v2, (Handle))                                                 \
    f(cuStreamSynchronize, (Handle))                                                \
    f(cuStreamWaitEvent, (Handle, Handle, unsigned int))                            \
    f(cuStreamGetCtx, (Handle, Handle *))                                           \
    f(cuStreamBeginCapture_v2, (Handle, int))                                       \
    f(cuStreamEndCapture, (Handle, Handle *))                                       \
    f(cuEventCreate, (Handle *, unsigned int))                                      \
    f(cuEventDestroy_v2, (Handle))                                                  \
    f(cuEventRecord, (Handle, Handle))                                              \
    f(cuEventQuery, (Handle))                                                       \
    f(cuEventSynchronize, (Handle))                                                 \
    f(cuGraphInstantiateWithFlags, (Handle *, Handle, unsigned long long))          \
    f(cuGraphLaunch, (Handle, Handle))                                              \
    f(cuGraphExecDestroy, (Handle))                                                 \
    f(cuGraphDestroy, (Handle))

struct Driver {
#define TCMOA_MEMBER(name, parameters) Result(*name) parameters = nullptr;
    TCMOA_CUDA_FUNCTIONS(TCMOA_MEMBER)
#undef TCMOA_MEMBER

    // The driver of this process, initialised; Error (TCMOA_ERROR_MISSING) where there is none or no GPU.
    static const Driver &get();

    // Throws unless `result` is a success; `function` is for the message.
    void check(Result result, std::string_view function) const;
};

// A GPU, with its primary context, which is the one that TensorRT and CUDA's runtime library work in.
class Device {
public:
    explicit Device(int index);
    ~Device();
    Device(const Device &) = delete;
    Device &operator=(const Device &) = delete;

    // What is known of it without a context; throws Error (TCMOA_ERROR_INPUT) where there is no such GPU.
    struct Properties {
        int device = 0;
        std::string name;
        int major = 0, minor = 0;  // compute capability
        [[nodiscard]] std::string capability() const { return std::to_string(major) + "." + std::to_string(minor); }
    };
    static Properties properties(int index);

    [[nodiscard]] Handle context() const noexcept { return context_; }

    // Throws Error (TCMOA_ERROR_INPUT) unless `pointer` is memory, and `stream` a stream, of this GPU and context.
    // `name` is the frame, for the message.
    void check_memory(const void *pointer, std::string_view name) const;
    void check_stream(Handle stream, std::string_view name) const;

private:
    const Driver &driver_;
    int index_, device_ = 0;
    Handle context_ = nullptr;
};

// Makes a device's context the calling thread's while it lives: CUDA keeps a stack of them for each thread.
class Current {
public:
    explicit Current(const Device &device);
    ~Current();
    Current(const Current &) = delete;
    Current &operator=(const Current &) = delete;
};

// A handle that `free` gets once. Freed where a context is current; what goes wrong then is told elsewhere.
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
using PinnedMemory = Owned<void *, &Driver::cuMemFreeHost>;  // page-locked memory of the host
using Stream = Owned<Handle, &Driver::cuStreamDestroy_v2>;
using Event = Owned<Handle, &Driver::cuEventDestroy_v2>;
using Graph = Owned<Handle, &Driver::cuGraphExecDestroy>;

// Throw Error (TCMOA_ERROR_MEMORY) where there is not so much.
DeviceMemory device_memory(std::size_t bytes);
PinnedMemory pinned_memory(std::size_t bytes);

Stream new_stream();  // does not wait for the default stream
Event new_event();

// What `work` queues in `stream`, recorded and made into one launch; nothing of it runs yet. Only what this very
// thread does meanwhile can disturb it.
template <typename Work>
Graph capture(Handle stream, Work &&work);

// Ends a capture, and turns what it gave into a graph unless `failed`.
Graph end_capture(Handle stream, bool failed);
void begin_capture(Handle stream);

template <typename Work>
Graph capture(Handle stream, Work &&work) {
    begin_capture(stream);
    try {
        std::forward<Work>(work)();
    } catch (...) {
        (void)end_capture(stream, true);
        throw;
    }
    return end_capture(stream, false);
}

}  // namespace tcmoa::cuda
