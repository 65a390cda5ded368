#include "slot_pool.hpp"

#include <algorithm>
#include <string>

#include "error.hpp"

namespace tcmoa {
namespace {

[[noreturn]] void fail_busy(std::size_t num_slots, const char *state) {
    throw Error(TCMOA_ERROR_BUSY, "slots", "all " + std::to_string(num_slots) + " " + state + "; expected a free one",
                "take a frame with tcmoa_wait() first, or load the bundle with more slots");
}

}  // namespace

SlotPool::SlotPool(Backend &backend, int num_slots) {
    for (int i = 0; i < num_slots; ++i) {
        slots_.push_back(std::make_unique<FrameSlot>());
        slots_.back()->slot = backend.new_slot();
    }
}

FrameSlot *SlotPool::find_free() {
    for (auto &slot : slots_) {
        if (slot->state != State::free) continue;
        slot->state = State::in_use;
        return slot.get();
    }
    return nullptr;
}

FrameSlot &SlotPool::acquire() {
    std::unique_lock guard(lock_);
    const auto is_submitted = [](const auto &slot) { return slot->state == State::submitted; };
    for (;;) {
        if (auto *slot = find_free()) return *slot;
        if (std::all_of(slots_.begin(), slots_.end(), is_submitted)) {
            fail_busy(slots_.size(), "hold submitted frames");
        }
        changed_.wait(guard);
    }
}

FrameSlot &SlotPool::try_acquire() {
    const std::lock_guard guard(lock_);
    if (auto *slot = find_free()) return *slot;
    fail_busy(slots_.size(), "are in use");
}

std::uint64_t SlotPool::submit(FrameSlot &slot) {
    std::uint64_t ticket = 0;
    {
        const std::lock_guard guard(lock_);
        ticket = slot.ticket = next_ticket_++;
        slot.state = State::submitted;
    }
    changed_.notify_all();  // a thread in `acquire` may have to give up now
    return ticket;
}

FrameSlot &SlotPool::take(std::uint64_t ticket) {
    const std::lock_guard guard(lock_);
    const auto found = std::find_if(slots_.begin(), slots_.end(), [ticket](const auto &slot) {
        return ticket != 0 && slot->ticket == ticket;
    });
    if (found == slots_.end()) {
        fail_input("ticket " + std::to_string(ticket),
                   "has no frame; expected a ticket of tcmoa_submit() that was not taken yet");
    }
    if ((*found)->state != State::submitted) {
        fail_input("ticket " + std::to_string(ticket), "another thread waits for it; expected one thread per ticket");
    }
    (*found)->state = State::in_use;
    return **found;
}

void SlotPool::set_state(FrameSlot &slot, State state) noexcept {
    {
        const std::lock_guard guard(lock_);
        slot.state = state;
        if (state == State::free) slot.ticket = 0;
    }
    changed_.notify_all();
}

void SlotPool::put_back(FrameSlot &slot) noexcept { set_state(slot, State::submitted); }

void SlotPool::release(FrameSlot &slot) noexcept { set_state(slot, State::free); }

void SlotPool::drain() noexcept {
    for (auto &slot : slots_) {
        if (slot->state != State::submitted) continue;
        try {
            (void)slot->slot->wait_for(std::chrono::milliseconds(-1));
        } catch (const std::exception &) {
        }
    }
}

}  // namespace tcmoa
