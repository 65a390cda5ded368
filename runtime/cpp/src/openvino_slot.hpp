// One frame in flight on OpenVINO: an inference request with its tensors.
#pragma once

#include <array>
#include <cstdlib>
#include <memory>
#include <vector>

#include "backend.hpp"
#include "contract.hpp"
#include "openvino_library.hpp"

namespace tcmoa {

class OpenVinoSlot final : public Slot {
public:
    OpenVinoSlot(const OpenVinoLibrary &library, ov_compiled_model_t *compiled, const Contract &contract);

    [[nodiscard]] const HostTensors &tensors() const noexcept override { return tensors_; }
    void bind(const ExternalBuffers &buffers) override;
    void start(const DeviceFrame &x, const DeviceFrame &y) override;
    bool wait_for(std::chrono::milliseconds timeout) override;
    void collect() override {}  // OpenVINO writes into the host tensors
    void collect_to(void *pointer, void *stream) override;

private:
    struct Free {
        void operator()(void *memory) const noexcept { std::free(memory); }
    };
    using Memory = std::unique_ptr<void, Free>;

    // The tensor of an image: the slot's own, or one around the caller's memory. Callers use a few buffers in turn; the
    // tensors of the last 8 are kept, so that binding one of them allocates nothing.
    class ImagePort {
    public:
        void set_own(const TensorSpec &spec, ov_tensor_t *tensor);
        void bind(const OpenVinoSlot &slot, void *memory);  // nullptr: the slot's own

    private:
        struct Wrapped {
            void *memory = nullptr;
            OpenVinoTensor tensor;
        };
        ov_tensor_t *wrap(const OpenVinoSlot &slot, void *memory);

        const TensorSpec *spec_ = nullptr;
        ov_tensor_t *own_ = nullptr;
        void *bound_ = nullptr;
        std::array<Wrapped, 8> recent_;
        std::size_t oldest_ = 0;
    };

    static Memory new_memory(std::size_t bytes);
    void add_tensor(const TensorSpec &spec);
    [[nodiscard]] OpenVinoTensor wrap(const TensorSpec &spec, void *data) const;
    void set_tensor(const TensorSpec &spec, const ov_tensor_t *tensor) const;

    const OpenVinoLibrary &library_;
    const std::vector<TensorSpec> inputs_, outputs_;
    std::vector<Memory> memory_;
    std::vector<OpenVinoTensor> own_tensors_;
    ImagePort x_, y_, fused_;
    HostTensors tensors_;
    OpenVinoRequest request_;  // freed first: it holds the tensors
};

}  // namespace tcmoa
