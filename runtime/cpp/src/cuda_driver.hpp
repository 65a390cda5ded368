// CUDA's driver library, loaded when a GPU is first needed; see tcmoa_runtime/gpu/cuda.py.
//
// The few functions in use are declared here, so that building libtcmoa needs neither CUDA's headers nor a driver.
#pragma once

#include <cstddef>
#include <string_view>

namespace tcmoa::cuda {

// Remedies.
inline constexpr const char *kUseOpenVino = "use the backend openvino";
inline constexpr const char *kFreeMemory = "export a smaller frame, use fewer slots, or end other programs on the GPU";
inline constexpr const char *kCheckGpu = "check the GPU with `nvidia-smi`";
inline constexpr const char *kRestart = "restart the program, since CUDA works no more in this process";

// CUDA's handles are opaque pointers; addresses of GPU memory are 64 bits wide.
using Result = int;  // CUresult
using Handle = void *;
using Address = unsigned long long;  // CUdeviceptr

// Constants of cuda.h.
inline constexpr Result kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kInvalidContext = 201, kInvalidHandle = 400,
                        kNotReady = 600;
// Errors after which every call fails until the process ends.
inline constexpr Result kFatal[] = {226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911};
inline constexpr int kCapabilityMajor = 75, kCapabilityMinor = 76;                     // CU_DEVICE_ATTRIBUTE_*
inline constexpr int kPointerContext = 1, kPointerMemoryType = 2, kPointerDevice = 9;  // CU_POINTER_ATTRIBUTE_*
inline constexpr unsigned int kMemoryTypeDevice = 2;                                   // CU_MEMORYTYPE_DEVICE
inline constexpr unsigned int kStreamNonBlocking = 1, kEventDisableTiming = 2;
inline constexpr int kCaptureThreadLocal = 1;  // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL

// The legacy default stream, which waits for all blocking streams (CU_STREAM_LEGACY), and the default stream of the
// calling thread (CU_STREAM_PER_THREAD).
inline const Handle kLegacyStream = reinterpret_cast<Handle>(1);     // NOLINT: the constant of cuda.h
inline const Handle kPerThreadStream = reinterpret_cast<Handle>(2);  // NOLINT

// The functions in use: name in libcuda, and parameters. cuda.h maps names such as cuMemAlloc to the `_v2` ones.
// tests/proof/cuda_declarations.cpp compares all of them, and the constants, with cuda.h.
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

    // The driver of this process, initialized. Throws Error (TCMOA_ERROR_MISSING) if there is no driver or no GPU.
    static const Driver &get();

    // Throw Error unless `result` is a success; `function` is for the message.
    void check(Result result, std::string_view function) const;
};

}  // namespace tcmoa::cuda
