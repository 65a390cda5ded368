#include "fuser.hpp"

#include <algorithm>
#include <functional>

#include "error.hpp"
#include "frame.hpp"

namespace tcmoa {
namespace {

constexpr std::chrono::milliseconds kNoLimit(-1);

const char *role_of(const std::string &task, bool is_x) {
    if (task == "vif") return is_x ? "visible" : "infrared";
    if (task == "mef") return is_x ? "over-exposed" : "under-exposed";
    return is_x ? "far focus" : "near focus";
}

std::uint64_t nanoseconds_since(std::chrono::steady_clock::time_point start) {
    return static_cast<std::uint64_t>((std::chrono::steady_clock::now() - start) / std::chrono::nanoseconds(1));
}

}  // namespace

Fuser::Fuser(std::unique_ptr<const Bundle> bundle, std::unique_ptr<Backend> backend, const tcmoa_options &options)
    : bundle_(std::move(bundle)),
      backend_(std::move(backend)),
      percentiles_{options.stretch_low, options.stretch_high},
      prompt_maps_(bundle_->contract, bundle_->default_scale, bundle_->default_shift),
      slots_(*backend_, options.slots),
      backend_name_(backend_->name()) {
    warm_up();
}

Fuser::~Fuser() { slots_.drain(); }

// Backends allocate, and GPUs compile, when a slot runs for the first time.
void Fuser::warm_up() {
    for (auto &slot : slots_.slots()) {
        const auto &tensors = slot->slot->tensors();
        std::fill(tensors.x.begin(), tensors.x.end(), std::uint8_t{0});
        std::fill(tensors.y.begin(), tensors.y.end(), std::uint8_t{0});
        prompt_maps_.copy_to(tensors, slot->prompt_version);
        slot->slot->start({}, {});
        (void)slot->slot->wait_for(kNoLimit);
        slot->slot->collect();
    }
}

tcmoa_info Fuser::info() const noexcept {
    const auto &contract = bundle_->contract;
    tcmoa_info info{};
    info.width = static_cast<std::int32_t>(contract.width);
    info.height = static_cast<std::int32_t>(contract.height);
    info.x_channels = x_channels();
    info.y_channels = y_channels();
    info.grid_width = static_cast<std::int32_t>(contract.grid_width);
    info.grid_height = static_cast<std::int32_t>(contract.grid_height);
    info.token_pixels = bundle_->token_pixels;
    info.num_prompts = static_cast<std::int32_t>(contract.num_prompts);
    info.has_prompt = contract.with_prompt ? 1 : 0;
    info.slots = static_cast<std::int32_t>(slots_.slots().size());
    info.default_scale = bundle_->default_scale;
    info.default_shift = bundle_->default_shift;
    info.task = bundle_->task.c_str();
    info.x_role = role_of(bundle_->task, true);
    info.y_role = role_of(bundle_->task, false);
    info.channel_order = bundle_->channel_order.c_str();
    info.precision = bundle_->precision.c_str();
    info.preset = bundle_->preset.c_str();
    info.backend = backend_name_.c_str();
    return info;
}

tcmoa_stats Fuser::stats() const {
    const std::lock_guard guard(stats_lock_);
    return stats_;
}

// channels: of the frame's tensor.
void Fuser::check(const tcmoa_frame *frame, const char *name, int channels) const {
    check_frame(frame, name, bundle_->contract.width, bundle_->contract.height);
    if (frame->memory != TCMOA_CUDA) return;
    if (!backend_->accepts_cuda()) {
        fail_input(name, "in CUDA memory; expected host memory, since " + backend_name_ + " runs this handle",
                   "pass host memory, or load the bundle with the backend tensorrt");
    }
    if (is_packed_tensor(*frame, channels)) return;
    fail_input(name, "format " + std::to_string(frame->format) + " with a stride of " +
                         std::to_string(frame->strides[0]) + " bytes in CUDA memory; expected format " +
                         std::to_string(tensor_format(channels)) + " with a stride of " +
                         std::to_string(channels * frame->width) + " bytes, the layout of the graph's tensor");
}

int Fuser::tensor_format(int channels) const {
    return channels == 1 ? TCMOA_GRAY8 : is_bgr() ? TCMOA_BGR8 : TCMOA_RGB8;
}

// Whether the frame's bytes are those of a tensor with this number of channels.
bool Fuser::is_packed_tensor(const tcmoa_frame &frame, int channels) const {
    return frame.format == tensor_format(channels) &&
           frame.strides[0] == static_cast<std::size_t>(channels) * static_cast<std::size_t>(frame.width);
}

// The frames that the network can use without a copy. A result that overlaps a source goes through the slot's own
// tensor: the network may read its sources until it is done.
ExternalBuffers Fuser::external_buffers(const tcmoa_frame &x, const tcmoa_frame &y, const tcmoa_frame &fused) const {
    if (!backend_->accepts_external_buffers()) return {};
    const auto pixels = static_cast<std::size_t>(x.width) * static_cast<std::size_t>(x.height);
    const auto end_of = [pixels](const std::uint8_t *begin, int channels) {
        return begin + pixels * static_cast<std::size_t>(channels);
    };
    const auto bytes_of = [](const tcmoa_frame &frame) { return static_cast<std::uint8_t *>(frame.planes[0]); };
    ExternalBuffers external;
    if (is_packed_tensor(x, x_channels())) external.x = bytes_of(x);
    if (is_packed_tensor(y, y_channels())) external.y = bytes_of(y);
    if (!is_packed_tensor(fused, 3)) return external;
    auto *result = bytes_of(fused);
    const auto overlaps = [&](const std::uint8_t *source, int channels) {
        const std::less<> before;  // `<` is undefined for pointers into different arrays
        return source != nullptr && before(source, end_of(result, 3)) && before(result, end_of(source, channels));
    };
    if (!overlaps(external.x, x_channels()) && !overlaps(external.y, y_channels())) external.fused = result;
    return external;
}

// Convert a source in host memory to its tensor unless the network uses it without a copy.
DeviceFrame Fuser::load_source(FrameSlot &slot, const tcmoa_frame &frame, const void *external,
                               std::span<std::uint8_t> tensor, int channels) const {
    if (frame.memory == TCMOA_CUDA) return {frame.planes[0], frame.cuda_stream};
    if (external == nullptr) frame_to_tensor(frame, tensor, channels, is_bgr(), percentiles_, slot.scratch);
    return {};
}

void Fuser::start(FrameSlot &slot, const tcmoa_frame &x, const tcmoa_frame &y, const ExternalBuffers &external) {
    const auto begin = std::chrono::steady_clock::now();
    const auto &tensors = slot.slot->tensors();
    const auto device_x = load_source(slot, x, external.x, tensors.x, x_channels());
    const auto device_y = load_source(slot, y, external.y, tensors.y, y_channels());
    prompt_maps_.copy_to(tensors, slot.prompt_version);
    if (backend_->accepts_external_buffers()) slot.slot->bind(external);
    slot.external = external;
    slot.convert_ns = nanoseconds_since(begin);
    slot.started = std::chrono::steady_clock::now();
    slot.slot->start(device_x, device_y);
}

// After the network is done: move the results to the caller's memory.
void Fuser::finish(FrameSlot &slot, const tcmoa_frame &fused, float *prompt) {
    const auto backend_ns = nanoseconds_since(slot.started);
    const auto begin = std::chrono::steady_clock::now();
    const auto &tensors = slot.slot->tensors();
    if (fused.memory == TCMOA_CUDA) {
        slot.slot->collect_to(fused.planes[0], fused.cuda_stream);
        if (prompt != nullptr) slot.slot->collect();
    } else {
        slot.slot->collect();
        if (slot.external.fused == nullptr) tensor_to_frame(tensors.fused, is_bgr(), fused);
    }
    if (prompt != nullptr) std::copy(tensors.prompt.begin(), tensors.prompt.end(), prompt);
    const std::lock_guard guard(stats_lock_);
    ++stats_.frames;
    stats_.backend_ns += backend_ns;
    stats_.convert_ns += slot.convert_ns + nanoseconds_since(begin);
}

void Fuser::release_failed(FrameSlot &slot) noexcept {
    {
        const std::lock_guard guard(stats_lock_);
        ++stats_.failed;
    }
    slots_.release(slot);
}

void Fuser::check_prompt_count(std::size_t count) const {
    const auto &contract = bundle_->contract;
    if (!contract.with_prompt) {
        fail_input(bundle_->path.string(), "has no prompt output; expected a bundle that was exported with it",
                   "export it with `tcmoa export --with-prompt`");
    }
    const auto expected = static_cast<std::size_t>(contract.num_prompts) * 2 * contract.num_tokens();
    if (count == expected) return;
    fail_input("count", std::to_string(count) + "; expected " + std::to_string(expected) + " floats, " +
                            std::to_string(contract.num_prompts) + "x2x" + std::to_string(contract.grid_height) + "x" +
                            std::to_string(contract.grid_width));
}

void Fuser::fuse(const tcmoa_frame *x, const tcmoa_frame *y, const tcmoa_frame *fused, float *prompt,
                 std::size_t count) {
    check(x, kX, x_channels());
    check(y, kY, y_channels());
    check(fused, kFused, 3);
    if (prompt != nullptr) check_prompt_count(count);
    FrameSlot &slot = slots_.acquire();
    try {
        start(slot, *x, *y, external_buffers(*x, *y, *fused));
        (void)slot.slot->wait_for(kNoLimit);
        finish(slot, *fused, prompt);
    } catch (...) {
        release_failed(slot);
        throw;
    }
    slots_.release(slot);
}

std::uint64_t Fuser::submit(const tcmoa_frame *x, const tcmoa_frame *y) {
    check(x, kX, x_channels());
    check(y, kY, y_channels());
    FrameSlot &slot = slots_.try_acquire();
    try {
        start(slot, *x, *y, {});  // no external buffers: the caller may change its memory after this returns
    } catch (...) {
        release_failed(slot);
        throw;
    }
    return slots_.submit(slot);
}

bool Fuser::wait(std::uint64_t ticket, const tcmoa_frame *fused, std::chrono::milliseconds timeout) {
    check(fused, kFused, 3);
    FrameSlot &slot = slots_.take(ticket);
    try {
        if (!slot.slot->wait_for(timeout)) {
            slots_.put_back(slot);
            return false;
        }
        finish(slot, *fused, nullptr);
    } catch (const Error &error) {
        // `fused` is in memory that the GPU refuses: the result can still go to another frame.
        if (error.status() == TCMOA_ERROR_INPUT) slots_.put_back(slot);
        else release_failed(slot);
        throw;
    } catch (...) {
        release_failed(slot);
        throw;
    }
    slots_.release(slot);
    return true;
}

void Fuser::discard(std::uint64_t ticket) {
    FrameSlot &slot = slots_.take(ticket);
    try {
        (void)slot.slot->wait_for(kNoLimit);
    } catch (const std::exception &) {  // discarded whether it failed or not
    }
    {
        const std::lock_guard guard(stats_lock_);
        ++stats_.discarded;
    }
    slots_.release(slot);
}

}  // namespace tcmoa
