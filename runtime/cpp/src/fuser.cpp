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
      fit_(options.fit),
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
    info.can_tile = can_tile() ? 1 : 0;
    return info;
}

tcmoa_stats Fuser::stats() const {
    const std::lock_guard guard(stats_lock_);
    return stats_;
}

void Fuser::check_has_prompt(const char *subject) const {
    if (bundle_->contract.with_control) return;
    fail_input(subject, "this network has no prompt; expected a bundle of `tcmoa export`", "leave it out");
}

PromptMaps &Fuser::prompt_maps(const char *subject) {
    check_has_prompt(subject);
    return prompt_maps_;
}

FrameSize Fuser::graph_size() const { return {bundle_->contract.height, bundle_->contract.width}; }

// A graph that resizes its frames itself has no tokens of a fixed side, and a wrapped network may need whole frames.
// Tiles must start at multiples of a step and overlap.
bool Fuser::can_tile() const {
    const FrameSize size = graph_size();
    return bundle_->fit != "resize" && std::min(size.height, size.width) >= bundle_->tile_step;
}

bool Fuser::resizes() const { return fit_ == TCMOA_FIT_RESIZE || (fit_ == TCMOA_FIT_AUTO && !can_tile()); }

void Fuser::fail_size(FrameSize size, const char *name) const {
    const FrameSize graph = graph_size();
    const std::string arrived = size_text(size.width, size.height);
    fail_input(name,
               arrived + "; expected " + (fit_ == TCMOA_FIT_PAD ? "at most " : "") +
                   size_text(graph.width, graph.height) + ", the bundle's frame size",
               std::string("set options.fit to ") +
                   (can_tile() ? "TCMOA_FIT_TILE, TCMOA_FIT_PAD or TCMOA_FIT_RESIZE" : "TCMOA_FIT_RESIZE") +
                   ", or export a bundle for " + arrived);
}

// Refuse frames of a size that `options.fit` excludes.
void Fuser::check_fit(FrameSize size, const char *name) const {
    const FrameSize graph = graph_size();
    if (size == graph || resizes()) return;
    const bool is_larger = size.height > graph.height || size.width > graph.width;
    if (fit_ == TCMOA_FIT_EXACT || !can_tile() || (fit_ == TCMOA_FIT_PAD && is_larger)) fail_size(size, name);
}

FrameSize Fuser::grid_of(FrameSize size) const {
    check_fit(size, "frame");
    const auto &contract = bundle_->contract;
    if (size == graph_size() || resizes() || !contract.with_control) return {contract.grid_height, contract.grid_width};
    const std::int64_t side = bundle_->token_pixels;
    return {(size.height + side - 1) / side, (size.width + side - 1) / side};
}

// Returns whether the sources go through a FittedFrame.
bool Fuser::check_sources(const tcmoa_frame *x, const tcmoa_frame *y) const {
    check_size(x, kX);
    check_size(y, kY);
    const FrameSize size_x{x->height, x->width}, size_y{y->height, y->width};
    check_fit(size_x, kX);
    if (size_x != size_y && !resizes()) {
        if (fit_ == TCMOA_FIT_EXACT) fail_size(size_y, kY);
        fail_input(kY, size_text(y->width, y->height) + "; expected " + size_text(x->width, x->height) +
                           ", the size of x",
                   "register the two frames first, or set options.fit to TCMOA_FIT_RESIZE");
    }
    check_layout(*x, kX);
    check_layout(*y, kY);
    const bool is_fitted = size_x != graph_size() || size_y != graph_size() || bundle_->contract.batch != 1;
    check_memory(*x, kX, x_channels(), is_fitted);
    check_memory(*y, kY, y_channels(), is_fitted);
    return is_fitted;
}

// size: of x.
void Fuser::check_fused(const tcmoa_frame *fused, FrameSize size, bool is_fitted) const {
    check_size(fused, kFused);
    if (FrameSize{fused->height, fused->width} != size) {
        fail_input(kFused, size_text(fused->width, fused->height) + "; expected " +
                               size_text(size.width, size.height) + ", the size of x");
    }
    check_layout(*fused, kFused);
    check_memory(*fused, kFused, 3, is_fitted);
}

// channels: of the frame's tensor.
void Fuser::check_memory(const tcmoa_frame &frame, const char *name, int channels, bool is_fitted) const {
    if (frame.memory != TCMOA_CUDA) return;
    if (!backend_->accepts_cuda()) {
        fail_input(name, "in CUDA memory; expected host memory, since " + backend_name_ + " runs this handle",
                   "pass host memory, or load the bundle with the backend tensorrt");
    }
    if (is_fitted) {
        const FrameSize graph = graph_size();
        fail_input(name, "in CUDA memory; expected host memory, since only frames of " +
                             size_text(graph.width, graph.height) + " in batches of 1 are fused on the GPU alone",
                   "pass host memory, or scale the frames on the GPU");
    }
    if (is_packed_tensor(frame, channels)) return;
    fail_input(name, "format " + std::to_string(frame.format) + " with a stride of " +
                         std::to_string(frame.strides[0]) + " bytes in CUDA memory; expected format " +
                         std::to_string(tensor_format(channels)) + " with a stride of " +
                         std::to_string(channels * frame.width) + " bytes, the layout of the graph's tensor");
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
    slot.is_fitted = false;
    slot.size = graph_size();
    slot.convert_ns = nanoseconds_since(begin);
    slot.started = std::chrono::steady_clock::now();
    slot.slot->start(device_x, device_y);
}

// is_borrowed: the sources stay as they are until the frame is done.
void Fuser::start_fitted(FrameSlot &slot, const tcmoa_frame &x, const tcmoa_frame &y, bool is_borrowed,
                         bool with_prompts) {
    const auto begin = std::chrono::steady_clock::now();
    const auto source = [&](const tcmoa_frame &frame, int channels) {
        return FittedFrame::Source{&frame, channels, is_borrowed && frame.format == tensor_format(channels)};
    };
    slot.is_fitted = true;
    slot.size = {x.height, x.width};
    slot.convert_ns = slot.backend_ns = 0;
    slot.fitted.start({&bundle_->contract, bundle_->tile_step, bundle_->window_pixels, is_bgr(), percentiles_},
                      source(x, x_channels()), source(y, y_channels()), resizes(), with_prompts, slot.scratch);
    prompt_maps_.copy_to(slot.fitted.grid(), slot.fitted.scale, slot.fitted.shift);
    slot.prompt_version = 0;  // the tensors will hold the maps of tiles
    if (backend_->accepts_external_buffers()) slot.slot->bind({});
    slot.convert_ns = nanoseconds_since(begin);
    start_run(slot);
}

// Start the network on the next tiles of a fitted frame.
void Fuser::start_run(FrameSlot &slot) {
    const auto begin = std::chrono::steady_clock::now();
    slot.fitted.fill(slot.slot->tensors());
    slot.convert_ns += nanoseconds_since(begin);
    slot.started = std::chrono::steady_clock::now();
    slot.slot->start({}, {});
}

// Wait until all runs of the frame are done; false if they are not within `timeout`, negative: no limit.
bool Fuser::advance(FrameSlot &slot, std::chrono::milliseconds timeout) {
    const auto begin = std::chrono::steady_clock::now();
    if (!slot.is_fitted) {
        if (!slot.slot->wait_for(timeout)) return false;
        slot.backend_ns = nanoseconds_since(slot.started);
        return true;
    }
    while (!slot.fitted.is_done()) {
        auto left = timeout;
        if (timeout.count() > 0) {
            const auto passed = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
            left = std::max(timeout - passed, std::chrono::milliseconds(0));
        }
        if (!slot.slot->wait_for(left)) return false;
        slot.backend_ns += nanoseconds_since(slot.started);
        const auto taking = std::chrono::steady_clock::now();
        slot.slot->collect();
        slot.fitted.take(slot.slot->tensors());
        slot.convert_ns += nanoseconds_since(taking);
        if (!slot.fitted.is_done()) start_run(slot);
    }
    return true;
}

// After the network is done: move the results to the caller's memory.
void Fuser::finish(FrameSlot &slot, const tcmoa_frame &fused, float *prompt) {
    const auto begin = std::chrono::steady_clock::now();
    if (slot.is_fitted) {
        slot.fitted.write(fused);
        if (prompt != nullptr) slot.fitted.write_prompts(prompt);
    } else {
        write_result(slot, fused, prompt);
    }
    const std::lock_guard guard(stats_lock_);
    ++stats_.frames;
    stats_.backend_ns += slot.backend_ns;
    stats_.convert_ns += slot.convert_ns + nanoseconds_since(begin);
}

void Fuser::write_result(FrameSlot &slot, const tcmoa_frame &fused, float *prompt) {
    const auto &tensors = slot.slot->tensors();
    if (fused.memory == TCMOA_CUDA) {
        slot.slot->collect_to(fused.planes[0], fused.cuda_stream);
        if (prompt != nullptr) slot.slot->collect();
    } else {
        slot.slot->collect();
        if (slot.external.fused == nullptr) tensor_to_frame(tensors.fused, is_bgr(), fused);
    }
    if (prompt != nullptr) std::copy(tensors.prompt.begin(), tensors.prompt.end(), prompt);
}

void Fuser::release_failed(FrameSlot &slot) noexcept {
    {
        const std::lock_guard guard(stats_lock_);
        ++stats_.failed;
    }
    slots_.release(slot);
}

// size: of x.
void Fuser::check_prompt_count(std::size_t count, FrameSize size) const {
    check_has_prompt("prompt");
    const auto &contract = bundle_->contract;
    if (!contract.with_prompt) {
        fail_input(bundle_->path.string(), "has no prompt output; expected a bundle that was exported with it",
                   "export it with `tcmoa export --with-prompt`");
    }
    const FrameSize grid = grid_of(size);
    const auto expected = static_cast<std::size_t>(contract.num_prompts * 2 * grid.height * grid.width);
    if (count == expected) return;
    fail_input("count", std::to_string(count) + "; expected " + std::to_string(expected) + " floats, " +
                            std::to_string(contract.num_prompts) + "x2x" + std::to_string(grid.height) + "x" +
                            std::to_string(grid.width));
}

void Fuser::fuse(const tcmoa_frame *x, const tcmoa_frame *y, const tcmoa_frame *fused, float *prompt,
                 std::size_t count) {
    const bool is_fitted = check_sources(x, y);
    const FrameSize size{x->height, x->width};
    check_fused(fused, size, is_fitted);
    if (prompt != nullptr) check_prompt_count(count, size);
    FrameSlot &slot = slots_.acquire();
    try {
        if (is_fitted) start_fitted(slot, *x, *y, true, prompt != nullptr);
        else start(slot, *x, *y, external_buffers(*x, *y, *fused));
        (void)advance(slot, kNoLimit);
        finish(slot, *fused, prompt);
    } catch (...) {
        release_failed(slot);
        throw;
    }
    slots_.release(slot);
}

std::uint64_t Fuser::submit(const tcmoa_frame *x, const tcmoa_frame *y) {
    const bool is_fitted = check_sources(x, y);
    FrameSlot &slot = slots_.try_acquire();
    try {
        // The caller may change its memory after this returns: it is neither borrowed nor an external buffer.
        if (is_fitted) start_fitted(slot, *x, *y, false, false);
        else start(slot, *x, *y, {});
    } catch (...) {
        release_failed(slot);
        throw;
    }
    return slots_.submit(slot);
}

bool Fuser::wait(std::uint64_t ticket, const tcmoa_frame *fused, std::chrono::milliseconds timeout) {
    FrameSlot &slot = slots_.take(ticket);
    try {
        check_fused(fused, slot.size, slot.is_fitted);
        if (!advance(slot, timeout)) {
            slots_.put_back(slot);
            return false;
        }
        finish(slot, *fused, nullptr);
    } catch (const Error &error) {
        // `fused` is refused: the result can still go to another frame.
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
