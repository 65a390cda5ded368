// The slots of a handle: which are free, which are in use, and which hold a submitted frame.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "backend.hpp"
#include "fitted_frame.hpp"
#include "pixels.hpp"

namespace tcmoa {

// A slot of the backend with what a handle keeps per frame. Used by the thread that acquired it.
struct FrameSlot {
    std::unique_ptr<Slot> slot;
    StretchScratch scratch;
    std::uint64_t prompt_version = 0;  // of the prompt maps in the slot's tensors
    ExternalBuffers external;
    std::chrono::steady_clock::time_point started;
    std::uint64_t convert_ns = 0, backend_ns = 0;
    FrameSize size;               // of the frame in flight
    bool is_fitted = false;       // the frame is fused through `fitted`
    FittedFrame fitted;

private:
    friend class SlotPool;
    enum class State { free, in_use, submitted };
    State state = State::free;  // under the pool's lock
    std::uint64_t ticket = 0;   // under the pool's lock; 0: none
};

// Thread-safe. A slot is acquired, and then either released, or submitted under a ticket, taken again by it and
// released.
class SlotPool {
public:
    // All slots are created at once, so that no frame pays for it.
    SlotPool(Backend &backend, int num_slots);

    // Wait for a free slot. Throws Error (TCMOA_ERROR_BUSY) if all slots hold submitted frames: they might never be
    // taken.
    FrameSlot &acquire();

    // Throws Error (TCMOA_ERROR_BUSY) if no slot is free now.
    FrameSlot &try_acquire();

    // Keep the slot until its ticket is taken; returns the ticket.
    std::uint64_t submit(FrameSlot &slot);

    // The slot of a ticket. Throws Error (TCMOA_ERROR_INPUT) for an unknown ticket, or one that another thread has
    // taken.
    FrameSlot &take(std::uint64_t ticket);

    // Undo `take`: the ticket stays valid.
    void put_back(FrameSlot &slot) noexcept;

    void release(FrameSlot &slot) noexcept;

    // For loops while no frame is in use by another thread.
    [[nodiscard]] const std::vector<std::unique_ptr<FrameSlot>> &slots() const noexcept { return slots_; }

    // Wait for all submitted frames and ignore how they end.
    void drain() noexcept;

private:
    using State = FrameSlot::State;
    FrameSlot *find_free();
    void set_state(FrameSlot &slot, State state) noexcept;

    std::vector<std::unique_ptr<FrameSlot>> slots_;
    std::mutex lock_;
    std::condition_variable changed_;  // a slot was released or submitted
    std::uint64_t next_ticket_ = 1;
};

}  // namespace tcmoa
