#include "tensorrt_slot.hpp"

#include <algorithm>
#include <cstring>
#include <thread>

namespace tcmoa {
namespace {

constexpr std::size_t kAlignment = 256;  // what TensorRT wants of addresses
constexpr std::chrono::microseconds kPause(50);

std::span<std::uint8_t> bytes_of(const TensorBlock &block, std::size_t i) {
    return {block.on_host(i), block.specs[i].bytes()};
}

// The block is aligned as any type wants it.
std::span<float> floats_of(const TensorBlock &block, std::size_t i) {
    return {reinterpret_cast<float *>(block.on_host(i)), block.specs[i].elements()};
}

cuda::Handle named(void *stream) { return stream == nullptr ? cuda::kLegacyStream : stream; }

}  // namespace

TensorBlock::TensorBlock(std::vector<TensorSpec> tensors) : specs(std::move(tensors)), bytes(0) {
    for (const auto &spec : specs) {
        offsets.push_back((bytes + kAlignment - 1) / kAlignment * kAlignment);
        bytes = offsets.back() + spec.bytes();
    }
    device = cuda::device_memory(bytes);
    pinned = cuda::pinned_memory(bytes);
    std::memset(pinned.get(), 0, bytes);
}

TensorRtSlot::Parts::Parts(const Contract &contract)
    : inputs(contract.inputs()),
      outputs(contract.outputs()),
      uploaded(cuda::new_event()),
      computed(cuda::new_event()),
      downloaded(cuda::new_event()),
      copied(cuda::new_event()),
      gathered{cuda::new_event(), cuda::new_event()} {}

TensorRtSlot::TensorRtSlot(TensorRtBackend &backend)
    : backend_(backend),
      driver_(cuda::Driver::get()),
      copy_in_(backend.parts_.copy_in.get()),
      compute_(backend.parts_.compute.get()),
      copy_out_(backend.parts_.copy_out.get()),
      parts_(std::make_unique<Parts>(backend.contract_)) {
    const auto &inputs = parts_->inputs, &outputs = parts_->outputs;
    tensors_.x = bytes_of(inputs, 0);
    tensors_.y = bytes_of(inputs, 1);
    tensors_.scale = floats_of(inputs, 2);
    tensors_.shift = floats_of(inputs, 3);
    tensors_.fused = bytes_of(outputs, 0);
    if (backend.contract_.with_prompt) tensors_.prompt = floats_of(outputs, 1);
    // The scratch memory is shared: no frame of another slot may be queued between.
    const std::lock_guard lock(backend_.queueing_);
    parts_->context = backend_.parts_.engine->new_context();
    parts_->context->work_in(reinterpret_cast<void *>(backend_.parts_.scratch.get()), backend_.parts_.scratch_bytes);
    for (const TensorBlock *block : {&inputs, &outputs}) {
        for (std::size_t i = 0; i < block->specs.size(); ++i) {
            parts_->context->bind(block->specs[i].name.c_str(), reinterpret_cast<void *>(block->on_device(i)));
        }
    }
    try {
        warm_up();
    } catch (...) {
        drain();
        throw;
    }
}

TensorRtSlot::~TensorRtSlot() {
    try {
        const cuda::Current current(*backend_.device_);
        const std::lock_guard lock(backend_.queueing_);
        drain();
        parts_.reset();
    } catch (...) {  // the device is lost, and all on it
    }
}

// Run the engine once, as TensorRT compiles and allocates then, and capture what it queues.
void TensorRtSlot::warm_up() {
    upload({});
    wait(compute_, parts_->uploaded);
    parts_->context->enqueue(compute_);
    driver_.check(driver_.cuStreamSynchronize(compute_), "cuStreamSynchronize");
    if (!backend_.cuda_graph_) return;
    try {
        if (!parts_->context->can_capture(compute_)) fail_internal("the engine says that it cannot be captured");
        parts_->graph = cuda::capture(compute_, [this] { parts_->context->enqueue(compute_); });
    } catch (const Error &) {
        backend_.lacks_graph_ = true;  // each frame costs the CPU more, that is all
    }
}

void TensorRtSlot::start(const DeviceFrame &x, const DeviceFrame &y) {
    const Sources sources{x, y};
    const cuda::Current current(*backend_.device_);
    for (std::size_t i = 0; i < sources.size(); ++i) {
        if (sources[i].pointer == nullptr) continue;
        backend_.device_->check_memory(sources[i].pointer, parts_->inputs.specs[i].name);
        backend_.device_->check_stream(sources[i].stream, parts_->inputs.specs[i].name);
    }
    const std::lock_guard lock(backend_.queueing_);
    try {
        queue(sources);
    } catch (...) {  // what is queued of it must not meet the slot's next frame
        for (const auto &source : sources) {
            if (source.pointer != nullptr) (void)driver_.cuStreamSynchronize(named(source.stream));
        }
        drain();
        throw;
    }
}

// Nothing of the slot's last frame is waited for: `ready` did.
void TensorRtSlot::queue(const Sources &sources) {
    for (std::size_t i = 0; i < sources.size(); ++i) {
        if (sources[i].pointer == nullptr) continue;
        const auto stream = named(sources[i].stream);
        driver_.check(driver_.cuMemcpyDtoDAsync_v2(parts_->inputs.on_device(i),
                                                   reinterpret_cast<cuda::Address>(sources[i].pointer),
                                                   parts_->inputs.specs[i].bytes(), stream),
                      "cuMemcpyDtoDAsync");
        record(parts_->gathered[i], stream);
        wait(compute_, parts_->gathered[i]);
    }
    upload(sources);
    wait(compute_, parts_->uploaded);
    if (parts_->graph) {
        driver_.check(driver_.cuGraphLaunch(parts_->graph.get(), compute_), "cuGraphLaunch");
    } else {
        parts_->context->enqueue(compute_);
    }
    record(parts_->computed, compute_);
    downloading_ = false;
    if (downloads_) download();
}

// Copy what lies on the host, neighbours in one piece.
void TensorRtSlot::upload(const Sources &sources) {
    const auto &inputs = parts_->inputs;
    const std::size_t count = inputs.specs.size();
    const auto on_host = [&](std::size_t i) { return i >= sources.size() || sources[i].pointer == nullptr; };
    for (std::size_t first = 0; first < count; ++first) {
        if (!on_host(first)) continue;
        std::size_t last = first;
        while (last + 1 < count && on_host(last + 1)) ++last;
        const std::size_t length = inputs.offsets[last] + inputs.specs[last].bytes() - inputs.offsets[first];
        driver_.check(
            driver_.cuMemcpyHtoDAsync_v2(inputs.on_device(first), inputs.on_host(first), length, copy_in_),
            "cuMemcpyHtoDAsync");
        first = last;
    }
    record(parts_->uploaded, copy_in_);
}

void TensorRtSlot::download() {
    const auto &outputs = parts_->outputs;
    wait(copy_out_, parts_->computed);
    driver_.check(
        driver_.cuMemcpyDtoHAsync_v2(outputs.pinned.get(), outputs.device.get(), outputs.bytes, copy_out_),
        "cuMemcpyDtoHAsync");
    record(parts_->downloaded, copy_out_);
    downloading_ = true;
}

bool TensorRtSlot::ready(std::chrono::milliseconds timeout) {
    const cuda::Current current(*backend_.device_);
    const auto event = (downloading_ ? parts_->downloaded : parts_->computed).get();
    try {
        if (timeout.count() < 0) {
            driver_.check(driver_.cuEventSynchronize(event), "cuEventSynchronize");
            return true;
        }
        const auto start = std::chrono::steady_clock::now();
        while (true) {  // CUDA has no waiting with a limit
            const auto result = driver_.cuEventQuery(event);
            if (result != cuda::kNotReady) {
                driver_.check(result, "cuEventQuery");
                return true;
            }
            if (std::chrono::steady_clock::now() - start >= timeout) return false;
            std::this_thread::sleep_for(kPause);
        }
    } catch (...) {
        const std::lock_guard lock(backend_.queueing_);
        drain();
        throw;
    }
}

void TensorRtSlot::collect() {
    downloads_ = true;
    if (downloading_) return;  // `ready` waited for it
    const cuda::Current current(*backend_.device_);
    {
        const std::lock_guard lock(backend_.queueing_);
        download();
    }
    driver_.check(driver_.cuEventSynchronize(parts_->downloaded.get()), "cuEventSynchronize");
}

void TensorRtSlot::collect_to(void *pointer, void *stream) {
    const cuda::Current current(*backend_.device_);
    backend_.device_->check_memory(pointer, kFused);
    backend_.device_->check_stream(stream, kFused);
    downloads_ = false;
    const auto reader = named(stream);
    const auto &outputs = parts_->outputs;
    driver_.check(driver_.cuMemcpyDtoDAsync_v2(reinterpret_cast<cuda::Address>(pointer), outputs.on_device(0),
                                               outputs.specs[0].bytes(), reader),
                  "cuMemcpyDtoDAsync");
    record(parts_->copied, reader);
    driver_.check(driver_.cuEventSynchronize(parts_->copied.get()), "cuEventSynchronize");
}

// Wait for all that may work on this slot's memory, whatever became of it. With the lock: a stream that is being
// captured must not be waited for.
void TensorRtSlot::drain() noexcept {
    for (const auto stream : {copy_in_, compute_, copy_out_}) (void)driver_.cuStreamSynchronize(stream);
    (void)driver_.cuEventSynchronize(parts_->copied.get());
}

void TensorRtSlot::record(const cuda::Event &event, cuda::Handle stream) const {
    driver_.check(driver_.cuEventRecord(event.get(), stream), "cuEventRecord");
}

void TensorRtSlot::wait(cuda::Handle stream, const cuda::Event &event) const {
    driver_.check(driver_.cuStreamWaitEvent(stream, event.get(), 0), "cuStreamWaitEvent");
}

}  // namespace tcmoa
