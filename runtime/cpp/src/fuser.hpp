// A loaded bundle with its slots: fuses pairs of frames. The functions of tcmoa.h call it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "backend.hpp"
#include "bundle.hpp"
#include "prompt_maps.hpp"
#include "slot_pool.hpp"
#include "tcmoa.h"

namespace tcmoa {

// Thread-safe. All functions but info() and stats() throw Error.
class Fuser {
public:
    // `backend` runs `bundle`. All slots are created and warmed up, so that no frame pays for it.
    Fuser(std::unique_ptr<const Bundle> bundle, std::unique_ptr<Backend> backend, const tcmoa_options &options);
    ~Fuser();  // waits for all frames in flight
    Fuser(const Fuser &) = delete;
    Fuser &operator=(const Fuser &) = delete;

    [[nodiscard]] tcmoa_info info() const noexcept;
    [[nodiscard]] tcmoa_stats stats() const;

    // The prompt maps of a network with a prompt; `subject` is what a wrapped one refuses.
    [[nodiscard]] PromptMaps &prompt_maps(const char *subject);

    // Tokens of the prompt maps of frames of `size`; 0x0 without a prompt.
    [[nodiscard]] FrameSize grid_of(FrameSize size) const;

    // As in tcmoa.h. prompt: room for the prompts, `count` floats; nullptr: not requested.
    void fuse(const tcmoa_frame *x, const tcmoa_frame *y, const tcmoa_frame *fused, float *prompt, std::size_t count);
    std::uint64_t submit(const tcmoa_frame *x, const tcmoa_frame *y);

    // Returns false if the frame was not ready within `timeout`; negative: no limit.
    bool wait(std::uint64_t ticket, const tcmoa_frame *fused, std::chrono::milliseconds timeout);
    void discard(std::uint64_t ticket);

private:
    [[nodiscard]] bool is_bgr() const { return bundle_->channel_order == "bgr"; }
    [[nodiscard]] int x_channels() const { return static_cast<int>(bundle_->contract.x_channels); }
    [[nodiscard]] int y_channels() const { return static_cast<int>(bundle_->contract.y_channels); }

    [[nodiscard]] FrameSize graph_size() const;
    [[nodiscard]] bool can_tile() const;
    [[nodiscard]] bool resizes() const;
    [[noreturn]] void fail_size(FrameSize size, const char *name) const;
    void check_fit(FrameSize size, const char *name) const;
    bool check_sources(const tcmoa_frame *x, const tcmoa_frame *y) const;
    void check_fused(const tcmoa_frame *fused, FrameSize size, bool is_fitted) const;
    void check_memory(const tcmoa_frame &frame, const char *name, int channels, bool is_fitted) const;
    void check_prompt_count(std::size_t count, FrameSize size) const;
    [[nodiscard]] int tensor_format(int channels) const;
    [[nodiscard]] bool is_packed_tensor(const tcmoa_frame &frame, int channels) const;
    [[nodiscard]] ExternalBuffers external_buffers(const tcmoa_frame &x, const tcmoa_frame &y,
                                                   const tcmoa_frame &fused) const;

    void warm_up();
    DeviceFrame load_source(FrameSlot &slot, const tcmoa_frame &frame, const void *external,
                            std::span<std::uint8_t> tensor, int channels) const;
    void start(FrameSlot &slot, const tcmoa_frame &x, const tcmoa_frame &y, const ExternalBuffers &external);
    void start_fitted(FrameSlot &slot, const tcmoa_frame &x, const tcmoa_frame &y, bool is_borrowed,
                      bool with_prompts);
    void start_run(FrameSlot &slot);
    bool advance(FrameSlot &slot, std::chrono::milliseconds timeout);
    void write_result(FrameSlot &slot, const tcmoa_frame &fused, float *prompt);
    void finish(FrameSlot &slot, const tcmoa_frame &fused, float *prompt);
    void release_failed(FrameSlot &slot) noexcept;

    void check_has_prompt(const char *subject) const;

    const std::unique_ptr<const Bundle> bundle_;
    const std::unique_ptr<Backend> backend_;
    const StretchPercentiles percentiles_;
    const int fit_;  // a tcmoa_fit
    PromptMaps prompt_maps_;
    SlotPool slots_;
    const std::string backend_name_;  // after `slots_`: creating slots shows whether CUDA graphs work

    mutable std::mutex stats_lock_;
    tcmoa_stats stats_{};
};

}  // namespace tcmoa
