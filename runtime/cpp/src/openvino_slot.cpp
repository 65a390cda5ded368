#include "openvino_slot.hpp"

#include <cstring>
#include <new>
#include <span>

#include "error.hpp"

namespace tcmoa {
namespace {

constexpr std::size_t kAlignment = 64;  // bytes of a cache line and of an AVX-512 vector

}  // namespace

OpenVinoSlot::OpenVinoSlot(const OpenVinoLibrary &library, ov_compiled_model_t *compiled, const Contract &contract)
    : library_(library), inputs_(contract.inputs()), outputs_(contract.outputs()) {
    ov_infer_request_t *request = nullptr;
    library_.check("create a request", library_.ov_compiled_model_create_infer_request(compiled, &request));
    request_.reset(request);
    for (const auto *specs : {&inputs_, &outputs_}) {
        for (const auto &spec : *specs) add_tensor(spec);
    }
}

void OpenVinoSlot::bind(const ExternalBuffers &buffers) {
    // OpenVINO's tensors are writable, but it only reads its inputs.
    x_.bind(*this, const_cast<std::uint8_t *>(buffers.x));
    y_.bind(*this, const_cast<std::uint8_t *>(buffers.y));
    fused_.bind(*this, buffers.fused);
}

void OpenVinoSlot::start(const DeviceFrame &, const DeviceFrame &) {
    library_.check("start the graph", library_.ov_infer_request_start_async(request_.get()));
}

bool OpenVinoSlot::wait_for(std::chrono::milliseconds timeout) {
    if (timeout.count() < 0) {
        library_.check("run the graph", library_.ov_infer_request_wait(request_.get()));
        return true;
    }
    const auto status = library_.ov_infer_request_wait_for(request_.get(), timeout.count());
    if (status == RESULT_NOT_READY) return false;
    library_.check("run the graph", status);
    return true;
}

void OpenVinoSlot::collect_to(void *, void *) { fail_internal("OpenVINO", "has no GPU memory"); }

OpenVinoSlot::Memory OpenVinoSlot::new_memory(std::size_t bytes) {
    const std::size_t padded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    Memory memory(std::aligned_alloc(kAlignment, padded));
    if (!memory) throw std::bad_alloc();
    std::memset(memory.get(), 0, padded);
    return memory;
}

void OpenVinoSlot::add_tensor(const TensorSpec &spec) {
    memory_.push_back(new_memory(spec.num_bytes()));
    void *data = memory_.back().get();
    own_tensors_.push_back(wrap(spec, data));
    ov_tensor_t *tensor = own_tensors_.back().get();
    set_tensor(spec, tensor);
    const std::span bytes(static_cast<std::uint8_t *>(data), spec.num_elements());
    const std::span floats(static_cast<float *>(data), spec.num_elements());
    if (spec.name == kX) x_.set_own(spec, tensor), tensors_.x = bytes;
    if (spec.name == kY) y_.set_own(spec, tensor), tensors_.y = bytes;
    if (spec.name == kFused) fused_.set_own(spec, tensor), tensors_.fused = bytes;
    if (spec.name == kScale) tensors_.scale = floats;
    if (spec.name == kShift) tensors_.shift = floats;
    if (spec.name == kPrompt) tensors_.prompt = floats;
    if (spec.name == kHeldExtremes) fill_own_extremes(floats);
}

OpenVinoTensor OpenVinoSlot::wrap(const TensorSpec &spec, void *data) const {
    auto dimensions = spec.shape;
    const ov_shape_t shape{static_cast<std::int64_t>(dimensions.size()), dimensions.data()};
    ov_tensor_t *tensor = nullptr;
    const auto type = spec.type == ElementType::uint8 ? U8 : F32;
    library_.check("wrap memory", library_.ov_tensor_create_from_host_ptr(type, shape, data, &tensor));
    return OpenVinoTensor(tensor);
}

void OpenVinoSlot::set_tensor(const TensorSpec &spec, const ov_tensor_t *tensor) const {
    library_.check("bind a tensor", library_.ov_infer_request_set_tensor(request_.get(), spec.name.c_str(), tensor));
}

void OpenVinoSlot::ImagePort::set_own(const TensorSpec &spec, ov_tensor_t *tensor) {
    spec_ = &spec;
    own_ = tensor;
}

void OpenVinoSlot::ImagePort::bind(const OpenVinoSlot &slot, void *memory) {
    if (memory == bound_) return;
    slot.set_tensor(*spec_, memory == nullptr ? own_ : wrap(slot, memory));
    bound_ = memory;
}

ov_tensor_t *OpenVinoSlot::ImagePort::wrap(const OpenVinoSlot &slot, void *memory) {
    for (const auto &wrapped : recent_) {
        if (wrapped.memory == memory) return wrapped.tensor.get();
    }
    OpenVinoTensor tensor = slot.wrap(*spec_, memory);
    auto &place = recent_[oldest_];
    oldest_ = (oldest_ + 1) % recent_.size();
    place = {memory, std::move(tensor)};
    return place.tensor.get();
}

}  // namespace tcmoa
