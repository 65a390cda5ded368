// One frame in flight on the GPU; its streams and events are explained in tensorrt_session.hpp.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "backend.hpp"
#include "tensorrt_session.hpp"

namespace tcmoa {

// Tensors that follow each other in one allocation on the host and one on the GPU, so that one copy moves several.
struct TensorBlock {
    explicit TensorBlock(std::vector<TensorSpec> tensors);

    [[nodiscard]] cuda::Address on_device(std::size_t i) const { return device.get() + offsets[i]; }
    [[nodiscard]] std::uint8_t *on_host(std::size_t i) const {
        return static_cast<std::uint8_t *>(pinned.get()) + offsets[i];
    }

    std::vector<TensorSpec> specs;
    std::vector<std::size_t> offsets;
    std::size_t bytes;
    cuda::DeviceMemory device;
    cuda::PinnedMemory pinned;
};

class TensorRtSlot final : public Slot {
public:
    // The session's device is current; in the other functions it need not be.
    explicit TensorRtSlot(TensorRtSession &session);
    ~TensorRtSlot() override;
    TensorRtSlot(const TensorRtSlot &) = delete;
    TensorRtSlot &operator=(const TensorRtSlot &) = delete;

    [[nodiscard]] const HostTensors &tensors() const noexcept override { return tensors_; }
    void start(const DeviceFrame &x, const DeviceFrame &y) override;
    bool wait_for(std::chrono::milliseconds timeout) override;
    void collect() override;
    void collect_to(void *pointer, void *stream) override;

private:
    using Sources = std::array<DeviceFrame, 2>;  // x, y

    // Freed while the device is current, the last member first.
    struct Resources {
        explicit Resources(const Contract &contract);
        TensorBlock inputs, outputs;
        cuda::Event uploaded, computed, downloaded, copied;
        std::array<cuda::Event, 2> gathered;  // x, y: copied from the caller's GPU memory
        std::unique_ptr<EngineContext> context;
        cuda::Graph graph;
    };

    void warm_up();
    void enqueue(const Sources &sources);
    void enqueue_engine();
    void enqueue_upload(const Sources &sources);
    void enqueue_download();
    void synchronize() noexcept;
    void record(const cuda::Event &event, cuda::Handle stream) const;
    void wait(cuda::Handle stream, const cuda::Event &event) const;

    TensorRtSession &session_;
    const cuda::Driver &driver_;
    const cuda::Handle copy_in_, compute_, copy_out_;
    std::unique_ptr<Resources> resources_;
    HostTensors tensors_;
    bool download_early_ = true;  // enqueue the download with the frame: the last result was collected on the host
    bool downloading_ = false;    // the download of the frame in flight is enqueued
};

}  // namespace tcmoa
