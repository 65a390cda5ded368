#include "fuser.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>

#include "error.hpp"

namespace tcmoa {
namespace {

constexpr float kLargestPrompt = 16.0F;  // beyond it the image is long destroyed, and 16-bit arithmetic may overflow

void check_prompts(const float *values, std::size_t count, const char *name) {
    for (std::size_t i = 0; i < count; ++i) {
        if (std::abs(values[i]) <= kLargestPrompt) continue;  // NaN is not
        char text[32];
        std::snprintf(text, sizeof text, "%g", static_cast<double>(values[i]));
        fail_input(std::string(name) + " holds " + text + ": expected numbers from -16 to 16");
    }
}

const char *role_of(const std::string &task, bool x) {
    if (task == "vif") return x ? "visible" : "infrared";
    if (task == "mef") return x ? "over-exposed" : "under-exposed";
    return x ? "far focus" : "near focus";
}

std::uint64_t since(std::chrono::steady_clock::time_point start) {
    return static_cast<std::uint64_t>((std::chrono::steady_clock::now() - start) / std::chrono::nanoseconds(1));
}

}  // namespace

Fuser::Fuser(std::unique_ptr<const Bundle> bundle, std::unique_ptr<Backend> backend, const tcmoa_options &options)
    : bundle_(std::move(bundle)),
      backend_(std::move(backend)),
      low_(options.stretch_low),
      high_(options.stretch_high),
      scale_(bundle_->contract.tokens(), bundle_->default_scale),
      shift_(bundle_->contract.tokens(), bundle_->default_shift) {
    for (int i = 0; i < options.slots; ++i) {
        places_.push_back(std::make_unique<Place>());
        places_.back()->slot = backend_->new_slot();
    }
    backend_name_ = backend_->name();
    warm_up();
}

Fuser::~Fuser() {
    for (auto &place : places_) {
        if (place->state != State::flying) continue;
        try {
            (void)place->slot->ready(std::chrono::milliseconds(-1));
        } catch (const std::exception &) {  // nobody is left to be told
        }
    }
}

// Backends allocate, and GPUs compile, when a slot runs first.
void Fuser::warm_up() {
    for (auto &place : places_) {
        const auto &tensors = place->slot->tensors();
        std::fill(tensors.x.begin(), tensors.x.end(), std::uint8_t{0});
        std::fill(tensors.y.begin(), tensors.y.end(), std::uint8_t{0});
        std::copy(scale_.begin(), scale_.end(), tensors.scale.begin());
        std::copy(shift_.begin(), shift_.end(), tensors.shift.begin());
        place->prompts_seen = prompts_generation_;
        place->slot->start({}, {});
        (void)place->slot->ready(std::chrono::milliseconds(-1));
        place->slot->collect();
    }
}

tcmoa_info Fuser::info() const noexcept {
    const auto &contract = bundle_->contract;
    tcmoa_info info{};
    info.width = static_cast<std::int32_t>(contract.width);
    info.height = static_cast<std::int32_t>(contract.height);
    info.x_channels = static_cast<std::int32_t>(contract.x_channels);
    info.y_channels = static_cast<std::int32_t>(contract.y_channels);
    info.grid_width = static_cast<std::int32_t>(contract.grid_width);
    info.grid_height = static_cast<std::int32_t>(contract.grid_height);
    info.token_pixels = bundle_->token_pixels;
    info.prompts = static_cast<std::int32_t>(contract.prompts);
    info.has_prompt = contract.with_prompt ? 1 : 0;
    info.slots = static_cast<std::int32_t>(places_.size());
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

tcmoa_figures Fuser::figures() const {
    const std::lock_guard guard(lock_);
    return figures_;
}

void Fuser::set_prompt(float scale, float shift) {
    check_prompts(&scale, 1, "scale");
    check_prompts(&shift, 1, "shift");
    const std::lock_guard guard(lock_);
    std::fill(scale_.begin(), scale_.end(), scale);
    std::fill(shift_.begin(), shift_.end(), shift);
    ++prompts_generation_;
}

void Fuser::check_count(std::size_t count) const {
    const auto &contract = bundle_->contract;
    if (count == contract.tokens()) return;
    fail_input("count is " + std::to_string(count) + ": expected " + std::to_string(contract.tokens()) + ", " +
               std::to_string(contract.grid_width) + "x" + std::to_string(contract.grid_height) +
               " tokens of this bundle");
}

void Fuser::set_prompt_maps(const float *scale, const float *shift, std::size_t count) {
    check_count(count);
    if (scale != nullptr) check_prompts(scale, count, "scale");
    if (shift != nullptr) check_prompts(shift, count, "shift");
    const std::lock_guard guard(lock_);
    if (scale != nullptr) std::copy_n(scale, count, scale_.begin());
    if (shift != nullptr) std::copy_n(shift, count, shift_.begin());
    ++prompts_generation_;
}

void Fuser::get_prompt_maps(float *scale, float *shift, std::size_t count) const {
    check_count(count);
    const std::lock_guard guard(lock_);
    if (scale != nullptr) std::copy(scale_.begin(), scale_.end(), scale);
    if (shift != nullptr) std::copy(shift_.begin(), shift_.end(), shift);
}

// `channels`: what the graph takes of a source; 3 for the result.
void Fuser::check(const tcmoa_frame *frame, const char *name, int channels) const {
    check_frame(frame, name, bundle_->contract.width, bundle_->contract.height);
    if (frame->memory != TCMOA_CUDA) return;
    const std::string who = name;
    if (!backend_->takes_cuda()) {
        fail_input(who + " lies in CUDA memory, but " + backend_name_ +
                   " runs this handle: pass host memory, or load it with the backend tensorrt");
    }
    if (packed(*frame, channels)) return;
    fail_input(who + " in CUDA memory has format " + std::to_string(frame->format) + " and stride " +
               std::to_string(frame->strides[0]) + ": expected format " + std::to_string(tensor_format(channels)) +
               " and stride " + std::to_string(channels * frame->width) + ", as the graph reads it there");
}

int Fuser::tensor_format(int channels) const {
    return channels == 1 ? TCMOA_GRAY8 : bgr() ? TCMOA_BGR8 : TCMOA_RGB8;
}

// Whether the frame's bytes are those of a tensor with so many channels.
bool Fuser::packed(const tcmoa_frame &frame, int channels) const {
    return frame.format == tensor_format(channels) &&
           frame.strides[0] == static_cast<std::size_t>(channels) * static_cast<std::size_t>(frame.width);
}

// What the network can work on where it lies. A result that shares memory with a source goes through the slot's tensor:
// the network reads its sources to the end.
Borrowed Fuser::to_borrow(const tcmoa_frame &x, const tcmoa_frame &y, const tcmoa_frame &fused) const {
    if (!backend_->borrows()) return {};
    const auto cx = static_cast<int>(bundle_->contract.x_channels), cy = static_cast<int>(bundle_->contract.y_channels);
    const auto pixels = static_cast<std::size_t>(x.width) * static_cast<std::size_t>(x.height);
    const auto end = [pixels](const std::uint8_t *begin, int channels) {
        return begin + pixels * static_cast<std::size_t>(channels);
    };
    const auto bytes = [](const tcmoa_frame &frame) { return static_cast<std::uint8_t *>(frame.planes[0]); };
    Borrowed borrowed;
    if (packed(x, cx)) borrowed.x = bytes(x);
    if (packed(y, cy)) borrowed.y = bytes(y);
    if (packed(fused, 3)) borrowed.fused = bytes(fused);
    const auto shares = [&](const std::uint8_t *source, int channels) {
        const std::less<> before;  // pointers into different arrays have this order, but no `<`
        return source != nullptr && before(source, end(borrowed.fused, 3)) && before(borrowed.fused, end(source, channels));
    };
    if (borrowed.fused != nullptr && (shares(borrowed.x, cx) || shares(borrowed.y, cy))) borrowed.fused = nullptr;
    return borrowed;
}

Fuser::Place *Fuser::acquire(bool wait) {
    std::unique_lock guard(lock_);
    for (;;) {
        for (auto &place : places_) {
            if (place->state != State::free) continue;
            place->state = State::used;
            return place.get();
        }
        // Frames that were submitted hold their slots until somebody takes them: waiting for that could be for ever.
        const auto flying = [](const auto &place) { return place->state == State::flying; };
        if (!wait || std::all_of(places_.begin(), places_.end(), flying)) return nullptr;
        freed_.wait(guard);
    }
}

void Fuser::release(Place &place) noexcept {
    {
        const std::lock_guard guard(lock_);
        place.state = State::free;
        place.ticket = 0;
    }
    freed_.notify_all();
}

void Fuser::count_failure() noexcept {
    const std::lock_guard guard(lock_);
    ++figures_.failed;
}

DeviceFrame Fuser::source(Place &place, const tcmoa_frame &frame, const void *borrowed, std::span<std::uint8_t> tensor,
                          int channels) const {
    if (frame.memory == TCMOA_CUDA) return {frame.planes[0], frame.cuda_stream};
    if (borrowed != nullptr) return {};
    frame_to_tensor(frame, tensor, channels, bgr(), low_, high_, place.scratch);
    return {};
}

void Fuser::start(Place &place, const tcmoa_frame &x, const tcmoa_frame &y, const Borrowed &borrowed) {
    const auto begin = Clock::now();
    const auto &tensors = place.slot->tensors();
    const auto &contract = bundle_->contract;
    const auto device_x = source(place, x, borrowed.x, tensors.x, static_cast<int>(contract.x_channels));
    const auto device_y = source(place, y, borrowed.y, tensors.y, static_cast<int>(contract.y_channels));
    {
        const std::lock_guard guard(lock_);
        if (place.prompts_seen != prompts_generation_) {
            std::copy(scale_.begin(), scale_.end(), tensors.scale.begin());
            std::copy(shift_.begin(), shift_.end(), tensors.shift.begin());
            place.prompts_seen = prompts_generation_;
        }
    }
    if (backend_->borrows()) place.slot->borrow(borrowed);
    place.borrowed = borrowed;
    place.convert_ns = since(begin);
    place.started = Clock::now();
    place.slot->start(device_x, device_y);
}

// After `ready`: results into the caller's memory.
void Fuser::finish(Place &place, const tcmoa_frame &fused, float *prompt) {
    const auto backend_ns = since(place.started);
    const auto begin = Clock::now();
    const auto &tensors = place.slot->tensors();
    if (fused.memory == TCMOA_CUDA) {
        place.slot->collect_to(fused.planes[0], fused.cuda_stream);
        if (prompt != nullptr) place.slot->collect();
    } else {
        place.slot->collect();
        if (place.borrowed.fused == nullptr) tensor_to_frame(tensors.fused, bgr(), fused);
    }
    if (prompt != nullptr) std::copy(tensors.prompt.begin(), tensors.prompt.end(), prompt);
    const std::lock_guard guard(lock_);
    ++figures_.frames;
    figures_.backend_ns += backend_ns;
    figures_.convert_ns += place.convert_ns + since(begin);
}

void Fuser::fuse(const tcmoa_frame *x, const tcmoa_frame *y, const tcmoa_frame *fused, float *prompt,
                 std::size_t count) {
    const auto &contract = bundle_->contract;
    check(x, kX, static_cast<int>(contract.x_channels));
    check(y, kY, static_cast<int>(contract.y_channels));
    check(fused, kFused, 3);
    if (prompt != nullptr) {
        if (!contract.with_prompt) {
            fail_input(bundle_->path.string() + ": has no prompt output; export it with --with-prompt");
        }
        const auto numbers = static_cast<std::size_t>(contract.prompts) * 2 * contract.tokens();
        if (count != numbers) {
            fail_input("count is " + std::to_string(count) + ": expected room for " + std::to_string(numbers) +
                       " numbers, " + std::to_string(contract.prompts) + " x 2 x " +
                       std::to_string(contract.grid_height) + " x " + std::to_string(contract.grid_width));
        }
    }
    Place *place = acquire(true);
    if (place == nullptr) {
        throw Error(TCMOA_ERROR_BUSY, "all " + std::to_string(places_.size()) +
                                          " slots hold submitted frames: take one with tcmoa_wait(), or load the "
                                          "bundle with more slots");
    }
    try {
        start(*place, *x, *y, to_borrow(*x, *y, *fused));
        (void)place->slot->ready(std::chrono::milliseconds(-1));
        finish(*place, *fused, prompt);
    } catch (...) {
        count_failure();
        release(*place);
        throw;
    }
    release(*place);
}

std::uint64_t Fuser::submit(const tcmoa_frame *x, const tcmoa_frame *y) {
    const auto &contract = bundle_->contract;
    check(x, kX, static_cast<int>(contract.x_channels));
    check(y, kY, static_cast<int>(contract.y_channels));
    Place *place = acquire(false);
    if (place == nullptr) {
        throw Error(TCMOA_ERROR_BUSY, "all " + std::to_string(places_.size()) +
                                          " slots are in use: take a frame with tcmoa_wait() first, or load the bundle "
                                          "with more slots");
    }
    try {
        start(*place, *x, *y, {});  // the caller's memory is its own again when this returns
    } catch (...) {
        count_failure();
        release(*place);
        throw;
    }
    std::uint64_t ticket = 0;
    {
        const std::lock_guard guard(lock_);
        ticket = place->ticket = next_ticket_++;
        place->state = State::flying;
    }
    freed_.notify_all();  // who waits for a slot may now have to give up
    return ticket;
}

Fuser::Place &Fuser::take(std::uint64_t ticket) {
    const std::lock_guard guard(lock_);
    for (auto &place : places_) {
        if (place->ticket != ticket || ticket == 0) continue;
        if (place->state != State::flying) {
            fail_input("ticket " + std::to_string(ticket) + " is being waited for by another thread: take it in one");
        }
        place->state = State::used;
        return *place;
    }
    fail_input("ticket " + std::to_string(ticket) +
               " stands for no frame: expected one from tcmoa_submit() that was not taken yet");
}

bool Fuser::wait(std::uint64_t ticket, const tcmoa_frame *fused, std::chrono::milliseconds timeout) {
    check(fused, kFused, 3);
    Place &place = take(ticket);
    try {
        if (!place.slot->ready(timeout)) {
            {
                const std::lock_guard guard(lock_);
                place.state = State::flying;
            }
            freed_.notify_all();  // as in `submit`
            return false;
        }
        finish(place, *fused, nullptr);
    } catch (const Error &error) {
        if (error.status() == TCMOA_ERROR_INPUT) {  // `fused` lies where it must not: another one may do
            {
                const std::lock_guard guard(lock_);
                place.state = State::flying;
            }
            freed_.notify_all();
            throw;
        }
        count_failure();
        release(place);
        throw;
    } catch (...) {
        count_failure();
        release(place);
        throw;
    }
    release(place);
    return true;
}

void Fuser::discard(std::uint64_t ticket) {
    Place &place = take(ticket);
    try {
        (void)place.slot->ready(std::chrono::milliseconds(-1));
    } catch (const std::exception &) {  // given up: how it ended is of no interest
    }
    {
        const std::lock_guard guard(lock_);
        ++figures_.dropped;
    }
    release(place);
}

void Fuser::set_error(std::string_view text) {
    const std::lock_guard guard(error_lock_);
    error_ = text;  // into the same memory where that is enough
}

std::size_t Fuser::copy_error(char *text, std::size_t size) const noexcept {
    const std::lock_guard guard(error_lock_);
    if (size > 0) {
        const auto bytes = std::min(size - 1, error_.size());
        std::memcpy(text, error_.data(), bytes);
        text[bytes] = '\0';
    }
    return error_.size();
}

}  // namespace tcmoa
