// An engine on a GPU, with everything that its slots share.
//
// Each slot has its own buffers on both sides, its own execution context and its own CUDA graph. Three streams let the
// copies of one frame overlap the computation of another:
//
//     copy_in:   upload                               -> event `uploaded`
//     compute:   wait for `uploaded`  -> graph        -> event `computed`
//     copy_out:  wait for `computed`  -> download     -> event `downloaded`
//
// A frame in GPU memory is copied to or from the slot in the caller's own stream, which orders the copy among the
// caller's work. All contexts share one scratch memory; that is safe because they run in one compute stream.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "contract.hpp"
#include "cuda.hpp"
#include "kernel_cache.hpp"
#include "tensorrt_runtime.hpp"

namespace tcmoa {

// An engine that runs on this machine, with the library and the GPU that run it.
struct ChosenEngine {
    Engine engine;
    TensorRt *library;
    cuda::Device::Properties gpu;
};

struct TensorRtSession {
    // `gpu` is current.
    TensorRtSession(const ChosenEngine &chosen, const Contract &graph_contract, std::shared_ptr<cuda::Device> gpu,
                    bool use_cuda_graph);
    ~TensorRtSession();
    TensorRtSession(const TensorRtSession &) = delete;
    TensorRtSession &operator=(const TensorRtSession &) = delete;

    const Contract contract;
    const bool cuda_graph;
    std::atomic<bool> cuda_graph_failed{false};  // requested, but the engine could not be captured
    const std::shared_ptr<cuda::Device> device;
    std::mutex enqueue_lock;  // held while work is enqueued, so that frames do not interleave

    // Freed while the device is current.
    struct Resources {
        std::unique_ptr<LoadedEngine> engine;
        cuda::Stream copy_in, compute, copy_out;
        cuda::DeviceMemory scratch;
        std::size_t scratch_bytes = 0;
    };
    Resources resources;

private:
    std::unique_ptr<KernelCache> kernel_cache_;  // of TensorRT-RTX
};

}  // namespace tcmoa
