// TensorRT and TensorRT-RTX: frames on the GPU, several in flight; see tcmoa_runtime/backends/tensorrt.py.
//
// Each slot has its own buffers on both sides, its own execution context and CUDA graph. Three streams share the work,
// so that the copies of one frame run while another is computed:
//
//     copy in:   upload                                -> event `uploaded`
//     compute:   wait for `uploaded`     -> graph      -> event `computed`
//     copy out:  wait for `computed`     -> download   -> event `downloaded`
//
// A frame that lies on the GPU is copied to or from the slot in the caller's own stream, which orders it among the
// caller's work. All contexts share one scratch memory, which is safe because there is one compute stream.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "backend.hpp"
#include "cuda.hpp"
#include "engine.hpp"
#include "error.hpp"
#include "tensorrt_runtime.hpp"

namespace tcmoa {

// An engine that runs here, and on what.
struct ChosenEngine {
    Engine engine;
    TensorRt *library;
    cuda::Device::Properties gpu;
};

// The bundle's first engine that runs here: tensorrt before rtx, then fp16 before bf16 before fp32. Without one, the
// reason is in `unfit`. Throws Error when an engine is damaged or there is no GPU `cuda_device`.
std::optional<ChosenEngine> choose_engine(const Bundle &bundle, int cuda_device, std::unique_ptr<Error> &unfit);

// Throws Error unless the engine takes and gives what the contract says, on the device, unpadded.
void check_tensors(const Engine &engine, const LoadedEngine &loaded, const Contract &contract);

// The file beside an engine of TensorRT-RTX that keeps the kernels compiled at the first start; Python's has the same
// form. What is damaged or of another engine is ignored, and written anew.
class KernelCache {
public:
    explicit KernelCache(const Engine &engine);
    void load(LoadedEngine &loaded);
    void save(const LoadedEngine &loaded) noexcept;  // where there is anything new; a failure costs time later

private:
    [[nodiscard]] std::string header(std::string_view blob) const;
    std::filesystem::path path_;
    std::string engine_hash_, kept_;
};

class TensorRtBackend final : public Backend {
public:
    // `device` is current, and is kept by the caller until it no longer is.
    TensorRtBackend(const ChosenEngine &chosen, const Contract &contract, std::shared_ptr<cuda::Device> device,
                    bool cuda_graph);
    ~TensorRtBackend() override;
    TensorRtBackend(const TensorRtBackend &) = delete;
    TensorRtBackend &operator=(const TensorRtBackend &) = delete;

    [[nodiscard]] std::string name() const override;
    [[nodiscard]] bool takes_cuda() const noexcept override { return true; }
    [[nodiscard]] std::unique_ptr<Slot> new_slot() override;

private:
    friend class TensorRtSlot;

    // All that is freed while the device is current.
    struct Parts {
        std::unique_ptr<LoadedEngine> engine;
        cuda::Stream copy_in, compute, copy_out;
        cuda::DeviceMemory scratch;
        std::size_t scratch_bytes = 0;
    };

    Contract contract_;
    std::string name_;
    bool cuda_graph_;
    std::atomic<bool> lacks_graph_{false};  // was wanted, and could not be had
    std::shared_ptr<cuda::Device> device_;
    std::unique_ptr<KernelCache> kernels_;
    Parts parts_;
    std::mutex queueing_;  // held while work is queued, so that frames do not interleave
};

}  // namespace tcmoa
