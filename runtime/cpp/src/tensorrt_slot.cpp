#include "tensorrt_slot.hpp"

#include <cstring>
#include <span>
#include <thread>

#include "error.hpp"

namespace tcmoa {
namespace {

constexpr std::size_t kAlignment = 256;  // bytes; required by TensorRT
constexpr std::chrono::microseconds kPollInterval(50);

std::span<std::uint8_t> bytes_of(const TensorBlock &block, std::size_t i) {
    return {block.on_host(i), block.specs[i].num_bytes()};
}

// kAlignment is enough for any type.
std::span<float> floats_of(const TensorBlock &block, std::size_t i) {
    return {reinterpret_cast<float *>(block.on_host(i)), block.specs[i].num_elements()};
}

cuda::Handle stream_or_default(void *stream) { return stream == nullptr ? cuda::kLegacyStream : stream; }

}  // namespace

TensorBlock::TensorBlock(std::vector<TensorSpec> tensors) : specs(std::move(tensors)), bytes(0) {
    for (const auto &spec : specs) {
        offsets.push_back((bytes + kAlignment - 1) / kAlignment * kAlignment);
        bytes = offsets.back() + spec.num_bytes();
    }
    device = cuda::new_device_memory(bytes);
    pinned = cuda::new_pinned_memory(bytes);
    std::memset(pinned.get(), 0, bytes);
}

TensorRtSlot::Resources::Resources(const Contract &contract)
    : inputs(contract.inputs()),
      outputs(contract.outputs()),
      uploaded(cuda::new_event()),
      computed(cuda::new_event()),
      downloaded(cuda::new_event()),
      copied(cuda::new_event()),
      gathered{cuda::new_event(), cuda::new_event()} {}

TensorRtSlot::TensorRtSlot(TensorRtSession &session)
    : session_(session),
      driver_(cuda::Driver::get()),
      copy_in_(session.resources.copy_in.get()),
      compute_(session.resources.compute.get()),
      copy_out_(session.resources.copy_out.get()),
      resources_(std::make_unique<Resources>(session.contract)) {
    const auto &inputs = resources_->inputs, &outputs = resources_->outputs;
    tensors_.x = bytes_of(inputs, 0);
    tensors_.y = bytes_of(inputs, 1);
    for (std::size_t i = 2; i < inputs.specs.size(); ++i) {
        const auto &name = inputs.specs[i].name;
        if (name == kScale) tensors_.scale = floats_of(inputs, i);
        if (name == kShift) tensors_.shift = floats_of(inputs, i);
        if (name == kHeldExtremes) fill_own_extremes(floats_of(inputs, i));
    }
    tensors_.fused = bytes_of(outputs, 0);
    if (session.contract.with_prompt) tensors_.prompt = floats_of(outputs, 1);
    // The scratch memory is shared: no frame of another slot may be enqueued in between.
    const std::lock_guard lock(session_.enqueue_lock);
    auto &context = resources_->context = session_.resources.engine->new_context();
    context->set_scratch(reinterpret_cast<void *>(session_.resources.scratch.get()), session_.resources.scratch_bytes);
    for (const TensorBlock *block : {&inputs, &outputs}) {
        for (std::size_t i = 0; i < block->specs.size(); ++i) {
            context->bind(block->specs[i].name.c_str(), reinterpret_cast<void *>(block->on_device(i)));
        }
    }
    try {
        warm_up();
    } catch (...) {
        synchronize();
        throw;
    }
}

TensorRtSlot::~TensorRtSlot() {
    try {
        const cuda::CurrentDevice current(*session_.device);
        const std::lock_guard lock(session_.enqueue_lock);
        synchronize();
        resources_.reset();
    } catch (...) {  // the GPU is lost, with everything on it
    }
}

// Run the engine once, since TensorRT compiles and allocates in the first run, and capture it.
void TensorRtSlot::warm_up() {
    enqueue_upload({});
    wait(compute_, resources_->uploaded);
    enqueue_engine();
    driver_.check(driver_.cuStreamSynchronize(compute_), "cuStreamSynchronize");
    if (!session_.cuda_graph) return;
    try {
        if (!resources_->context->can_capture(compute_)) fail_internal("engine", "cannot be captured in a CUDA graph");
        resources_->graph = cuda::capture(compute_, [this] { resources_->context->enqueue(compute_); });
    } catch (const Error &) {
        session_.cuda_graph_failed = true;  // works without, at more CPU time per frame
    }
}

void TensorRtSlot::start(const DeviceFrame &x, const DeviceFrame &y) {
    const Sources sources{x, y};
    const cuda::CurrentDevice current(*session_.device);
    for (std::size_t i = 0; i < sources.size(); ++i) {
        if (sources[i].pointer == nullptr) continue;
        session_.device->check_memory(sources[i].pointer, resources_->inputs.specs[i].name);
        session_.device->check_stream(sources[i].stream, resources_->inputs.specs[i].name);
    }
    const std::lock_guard lock(session_.enqueue_lock);
    try {
        enqueue(sources);
    } catch (...) {  // the part that was enqueued must not run together with the slot's next frame
        for (const auto &source : sources) {
            if (source.pointer != nullptr) (void)driver_.cuStreamSynchronize(stream_or_default(source.stream));
        }
        synchronize();
        throw;
    }
}

// Does not wait for the slot's last frame: `wait_for` did.
void TensorRtSlot::enqueue(const Sources &sources) {
    for (std::size_t i = 0; i < sources.size(); ++i) {
        if (sources[i].pointer == nullptr) continue;
        const auto stream = stream_or_default(sources[i].stream);
        driver_.check(driver_.cuMemcpyDtoDAsync_v2(resources_->inputs.on_device(i),
                                                   reinterpret_cast<cuda::Address>(sources[i].pointer),
                                                   resources_->inputs.specs[i].num_bytes(), stream),
                      "cuMemcpyDtoDAsync");
        record(resources_->gathered[i], stream);
        wait(compute_, resources_->gathered[i]);
    }
    enqueue_upload(sources);
    wait(compute_, resources_->uploaded);
    if (resources_->graph) {
        driver_.check(driver_.cuGraphLaunch(resources_->graph.get(), compute_), "cuGraphLaunch");
    } else {
        enqueue_engine();
    }
    record(resources_->computed, compute_);
    downloading_ = false;
    if (download_early_) enqueue_download();
}

void TensorRtSlot::enqueue_engine() {
    try {
        resources_->context->enqueue(compute_);
    } catch (const Error &) {  // the cause may be an earlier error of CUDA, which TensorRT need not name
        const auto result = driver_.cuEventQuery(resources_->uploaded.get());
        if (result != cuda::kNotReady) driver_.check(result, "enqueueV3");
        throw;
    }
}

// Copy the inputs that are on the host, adjacent ones in one copy.
void TensorRtSlot::enqueue_upload(const Sources &sources) {
    const auto &inputs = resources_->inputs;
    const std::size_t count = inputs.specs.size();
    const auto on_host = [&](std::size_t i) { return i >= sources.size() || sources[i].pointer == nullptr; };
    for (std::size_t first = 0; first < count; ++first) {
        if (!on_host(first)) continue;
        std::size_t last = first;
        while (last + 1 < count && on_host(last + 1)) ++last;
        const std::size_t length = inputs.offsets[last] + inputs.specs[last].num_bytes() - inputs.offsets[first];
        driver_.check(
            driver_.cuMemcpyHtoDAsync_v2(inputs.on_device(first), inputs.on_host(first), length, copy_in_),
            "cuMemcpyHtoDAsync");
        first = last;
    }
    record(resources_->uploaded, copy_in_);
}

void TensorRtSlot::enqueue_download() {
    const auto &outputs = resources_->outputs;
    wait(copy_out_, resources_->computed);
    driver_.check(
        driver_.cuMemcpyDtoHAsync_v2(outputs.pinned.get(), outputs.device.get(), outputs.bytes, copy_out_),
        "cuMemcpyDtoHAsync");
    record(resources_->downloaded, copy_out_);
    downloading_ = true;
}

bool TensorRtSlot::wait_for(std::chrono::milliseconds timeout) {
    const cuda::CurrentDevice current(*session_.device);
    const auto event = (downloading_ ? resources_->downloaded : resources_->computed).get();
    try {
        if (timeout.count() < 0) {
            driver_.check(driver_.cuEventSynchronize(event), "cuEventSynchronize");
            return true;
        }
        const auto start = std::chrono::steady_clock::now();
        while (true) {  // CUDA has no wait with a timeout
            const auto result = driver_.cuEventQuery(event);
            if (result != cuda::kNotReady) {
                driver_.check(result, "cuEventQuery");
                return true;
            }
            if (std::chrono::steady_clock::now() - start >= timeout) return false;
            std::this_thread::sleep_for(kPollInterval);
        }
    } catch (...) {
        const std::lock_guard lock(session_.enqueue_lock);
        synchronize();
        throw;
    }
}

void TensorRtSlot::collect() {
    download_early_ = true;
    if (downloading_) return;  // `wait_for` waited for it
    const cuda::CurrentDevice current(*session_.device);
    {
        const std::lock_guard lock(session_.enqueue_lock);
        enqueue_download();
    }
    driver_.check(driver_.cuEventSynchronize(resources_->downloaded.get()), "cuEventSynchronize");
}

void TensorRtSlot::collect_to(void *pointer, void *stream) {
    const cuda::CurrentDevice current(*session_.device);
    session_.device->check_memory(pointer, kFused);
    session_.device->check_stream(stream, kFused);
    download_early_ = false;
    const auto target = stream_or_default(stream);
    const auto &outputs = resources_->outputs;
    driver_.check(driver_.cuMemcpyDtoDAsync_v2(reinterpret_cast<cuda::Address>(pointer), outputs.on_device(0),
                                               outputs.specs[0].num_bytes(), target),
                  "cuMemcpyDtoDAsync");
    record(resources_->copied, target);
    driver_.check(driver_.cuEventSynchronize(resources_->copied.get()), "cuEventSynchronize");
}

// Wait for all work on this slot's memory and ignore how it ended. Needs the lock: synchronizing a stream invalidates a
// capture in it.
void TensorRtSlot::synchronize() noexcept {
    for (const auto stream : {copy_in_, compute_, copy_out_}) (void)driver_.cuStreamSynchronize(stream);
    (void)driver_.cuEventSynchronize(resources_->copied.get());
}

void TensorRtSlot::record(const cuda::Event &event, cuda::Handle stream) const {
    driver_.check(driver_.cuEventRecord(event.get(), stream), "cuEventRecord");
}

void TensorRtSlot::wait(cuda::Handle stream, const cuda::Event &event) const {
    driver_.check(driver_.cuStreamWaitEvent(stream, event.get(), 0), "cuStreamWaitEvent");
}

}  // namespace tcmoa
