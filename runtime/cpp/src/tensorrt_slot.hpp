// One frame in flight on the GPU; the streams and events are explained in tensorrt.hpp.
#pragma once

#include <array>
#include <vector>

#include "tensorrt.hpp"

namespace tcmoa {

// Tensors one after another in one allocation on each side, so that one copy moves neighbours together.
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
    // The backend's device is current, here alone.
    explicit TensorRtSlot(TensorRtBackend &backend);
    ~TensorRtSlot() override;
    TensorRtSlot(const TensorRtSlot &) = delete;
    TensorRtSlot &operator=(const TensorRtSlot &) = delete;

    [[nodiscard]] const Tensors &tensors() const noexcept override { return tensors_; }
    void start(const DeviceFrame &x, const DeviceFrame &y) override;
    bool ready(std::chrono::milliseconds timeout) override;
    void collect() override;
    void collect_to(void *pointer, void *stream) override;

private:
    using Sources = std::array<DeviceFrame, 2>;

    // All that is freed while the device is current; the newest first.
    struct Parts {
        explicit Parts(const Contract &contract);
        TensorBlock inputs, outputs;
        cuda::Event uploaded, computed, downloaded, copied;
        std::array<cuda::Event, 2> gathered;
        std::unique_ptr<EngineContext> context;
        cuda::Graph graph;
    };

    void warm_up();
    void queue(const Sources &sources);
    void upload(const Sources &sources);
    void download();
    void drain() noexcept;
    void record(const cuda::Event &event, cuda::Handle stream) const;
    void wait(cuda::Handle stream, const cuda::Event &event) const;

    TensorRtBackend &backend_;
    const cuda::Driver &driver_;
    cuda::Handle copy_in_, compute_, copy_out_;
    std::unique_ptr<Parts> parts_;
    Tensors tensors_;
    bool downloads_ = true;     // whether results go to the host unasked: as long as the last ones were wanted there
    bool downloading_ = false;  // the frame in flight has been queued so
};

}  // namespace tcmoa
