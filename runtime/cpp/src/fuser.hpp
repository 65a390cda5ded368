// A loaded bundle with its slots: pairs in, fused frames out.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend.hpp"
#include "bundle.hpp"
#include "pixels.hpp"
#include "tcmoa.h"

namespace tcmoa {

class Fuser {
public:
    // `backend` runs `bundle`. Slots are made and warmed up at once, so that no frame pays for that.
    Fuser(std::unique_ptr<const Bundle> bundle, std::unique_ptr<Backend> backend, const tcmoa_options &options);
    ~Fuser();  // waits for all frames in flight
    Fuser(const Fuser &) = delete;
    Fuser &operator=(const Fuser &) = delete;

    [[nodiscard]] tcmoa_info info() const noexcept;
    [[nodiscard]] tcmoa_figures figures() const;

    void set_prompt(float scale, float shift);
    void set_prompt_maps(const float *scale, const float *shift, std::size_t count);
    void get_prompt_maps(float *scale, float *shift, std::size_t count) const;

    // `prompt`: where the prompts go, or NULL.
    void fuse(const tcmoa_frame *x, const tcmoa_frame *y, const tcmoa_frame *fused, float *prompt, std::size_t count);
    std::uint64_t submit(const tcmoa_frame *x, const tcmoa_frame *y);
    bool wait(std::uint64_t ticket, const tcmoa_frame *fused, std::chrono::milliseconds timeout);
    void discard(std::uint64_t ticket);

    // The reason of the last failed call, for tcmoa_error().
    void set_error(std::string_view text);
    std::size_t copy_error(char *text, std::size_t size) const noexcept;

private:
    using Clock = std::chrono::steady_clock;
    enum class State { free, used, flying };

    // `state` and `ticket` are under the lock; the rest belongs to whom the slot belongs to.
    struct Place {
        std::unique_ptr<Slot> slot;
        StretchScratch scratch;
        std::uint64_t prompts_seen = 0;  // generation of the prompt maps that lie in the slot
        Borrowed borrowed;
        Clock::time_point started;
        std::uint64_t convert_ns = 0;
        State state = State::free;
        std::uint64_t ticket = 0;
    };

    const std::unique_ptr<const Bundle> bundle_;
    const std::unique_ptr<Backend> backend_;
    std::string backend_name_;  // once slots were made, which may find something out
    const double low_, high_;
    std::vector<std::unique_ptr<Place>> places_;

    mutable std::mutex lock_;
    std::condition_variable freed_;
    std::uint64_t next_ticket_ = 1;
    std::vector<float> scale_, shift_;
    std::uint64_t prompts_generation_ = 1;
    tcmoa_figures figures_{};

    mutable std::mutex error_lock_;
    std::string error_;

    [[nodiscard]] bool bgr() const { return bundle_->channel_order == "bgr"; }
    void check(const tcmoa_frame *frame, const char *name, int channels) const;
    void check_count(std::size_t count) const;
    Place *acquire(bool wait);
    Place &take(std::uint64_t ticket);
    void release(Place &place) noexcept;
    void count_failure() noexcept;
    void start(Place &place, const tcmoa_frame &x, const tcmoa_frame &y, const Borrowed &borrowed);
    void finish(Place &place, const tcmoa_frame &fused, float *prompt);
    [[nodiscard]] int tensor_format(int channels) const;
    [[nodiscard]] bool packed(const tcmoa_frame &frame, int channels) const;
    [[nodiscard]] Borrowed to_borrow(const tcmoa_frame &x, const tcmoa_frame &y, const tcmoa_frame &fused) const;
    DeviceFrame source(Place &place, const tcmoa_frame &frame, const void *borrowed, std::span<std::uint8_t> tensor,
                       int channels) const;
    void warm_up();
};

}  // namespace tcmoa
