// A simulated libcudart.so on top of the simulated driver, for examples/cpp. Like the real one it works in the primary
// context of the device that the thread set, keeps that until the process ends, and uses a context that is current.
#include <cuda_runtime_api.h>

#include "gpu.hpp"

using namespace simulated;

extern "C" {
Result cuDevicePrimaryCtxRetain(void **, int);
Result cuCtxPushCurrent_v2(void *);
Result cuMemAlloc_v2(Address *, std::size_t);
Result cuMemFree_v2(Address);
Result cuMemHostAlloc(void **, std::size_t, unsigned int);
Result cuMemFreeHost(void *);
Result cuMemcpyHtoDAsync_v2(Address, const void *, std::size_t, void *);
Result cuMemcpyDtoHAsync_v2(void *, Address, std::size_t, void *);
Result cuStreamCreate(void **, unsigned int);
Result cuStreamSynchronize(void *);
Result cuStreamDestroy_v2(void *);
}

namespace {

cudaError_t as_error(Result result) { return static_cast<cudaError_t>(result); }
Address address_of(const void *memory) { return reinterpret_cast<Address>(memory); }

}  // namespace

#define TCMOA_EXPORT __attribute__((visibility("default")))
extern "C" {

TCMOA_EXPORT cudaError_t cudaSetDevice(int device) {
    void *context = nullptr;
    if (const Result failed = cuDevicePrimaryCtxRetain(&context, device)) return as_error(failed);
    return as_error(cuCtxPushCurrent_v2(context));
}
TCMOA_EXPORT const char *cudaGetErrorString(cudaError_t) { return "an error of the simulation"; }
TCMOA_EXPORT cudaError_t cudaMalloc(void **memory, std::size_t bytes) {
    Address address = 0;
    const Result result = cuMemAlloc_v2(&address, bytes);
    *memory = reinterpret_cast<void *>(address);
    return as_error(result);
}
TCMOA_EXPORT cudaError_t cudaFree(void *memory) { return as_error(cuMemFree_v2(address_of(memory))); }
TCMOA_EXPORT cudaError_t cudaMallocHost(void **memory, std::size_t bytes) {
    return as_error(cuMemHostAlloc(memory, bytes, 0));
}
TCMOA_EXPORT cudaError_t cudaFreeHost(void *memory) { return as_error(cuMemFreeHost(memory)); }
TCMOA_EXPORT cudaError_t cudaMemcpyAsync(void *target, const void *source, std::size_t bytes, cudaMemcpyKind kind,
                                         cudaStream_t stream) {
    return as_error(kind == cudaMemcpyHostToDevice ? cuMemcpyHtoDAsync_v2(address_of(target), source, bytes, stream)
                                                   : cuMemcpyDtoHAsync_v2(target, address_of(source), bytes, stream));
}
TCMOA_EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags) {
    void *made = nullptr;
    const Result result = cuStreamCreate(&made, flags);
    *stream = static_cast<cudaStream_t>(made);
    return as_error(result);
}
TCMOA_EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return as_error(cuStreamSynchronize(stream)); }
TCMOA_EXPORT cudaError_t cudaStreamDestroy(cudaStream_t stream) { return as_error(cuStreamDestroy_v2(stream)); }
}
