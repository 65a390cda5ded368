// A backend whose arithmetic the tests know: fused = mean of x and y, plus 100 * shift at the token of the pixel.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "backend.hpp"
#include "error.hpp"

namespace tcmoa::testing {

// What happens to the frames of a FakeBackend; shared with the test.
struct Script {
    std::mutex lock;
    std::condition_variable changed;
    std::atomic<bool> borrows = false;    // whether slots work in the caller's memory
    bool held = false;                    // frames are not ready until this is false
    std::atomic<int> fail_starts = 0;     // so many starts throw
    std::atomic<int> fail_runs = 0;       // so many frames fail in the network
    std::atomic<int> running = 0, most_running = 0;

    void hold(bool value) {
        {
            const std::lock_guard guard(lock);
            held = value;
        }
        changed.notify_all();
    }
};

class FakeSlot final : public Slot {
public:
    FakeSlot(const Contract &contract, std::shared_ptr<Script> script) : contract_(contract), script_(std::move(script)) {
        for (const auto &spec : contract.inputs()) memory_.emplace_back(spec.bytes());
        for (const auto &spec : contract.outputs()) memory_.emplace_back(spec.bytes());
        const auto numbers = [](std::vector<std::uint8_t> &bytes) {
            return std::span(reinterpret_cast<float *>(bytes.data()), bytes.size() / sizeof(float));
        };
        views_.x = memory_[0];
        views_.y = memory_[1];
        views_.scale = numbers(memory_[2]);
        views_.shift = numbers(memory_[3]);
        views_.fused = memory_[4];
        if (contract.with_prompt) views_.prompt = numbers(memory_[5]);
    }

    [[nodiscard]] const Tensors &tensors() const noexcept override { return views_; }

    void borrow(const Borrowed &borrowed) override { borrowed_ = borrowed; }

    void start(const DeviceFrame &, const DeviceFrame &) override {
        if (script_->fail_starts > 0) {
            --script_->fail_starts;
            fail_internal("the fake backend was told not to start");
        }
        const int now = ++script_->running;
        int most = script_->most_running;
        while (now > most && !script_->most_running.compare_exchange_weak(most, now)) {
        }
    }

    bool ready(std::chrono::milliseconds timeout) override {
        std::unique_lock guard(script_->lock);
        const auto free = [this] { return !script_->held; };
        if (timeout.count() < 0) {
            script_->changed.wait(guard, free);
        } else if (!script_->changed.wait_for(guard, timeout, free)) {
            return false;
        }
        --script_->running;
        if (script_->fail_runs > 0) {
            --script_->fail_runs;
            fail_internal("the fake backend was told to fail");
        }
        return true;
    }

    void collect() override {
        const auto width = static_cast<std::size_t>(contract_.width);
        const auto grid = static_cast<std::size_t>(contract_.grid_width), token = 16UL;
        const auto cx = static_cast<std::size_t>(contract_.x_channels), cy = static_cast<std::size_t>(contract_.y_channels);
        const auto *x_in = borrowed_.x != nullptr ? borrowed_.x : views_.x.data();
        const auto *y_in = borrowed_.y != nullptr ? borrowed_.y : views_.y.data();
        auto *out = borrowed_.fused != nullptr ? borrowed_.fused : views_.fused.data();
        for (std::size_t i = 0; i < views_.fused.size(); ++i) {
            const std::size_t pixel = i / 3, row = pixel / width, column = pixel % width;
            const int x = x_in[cx == 3 ? i : pixel], y = y_in[cy == 3 ? i : pixel];
            const float shift = views_.shift[row / token * grid + column / token];
            const float value = static_cast<float>((x + y) / 2) + 100 * shift;
            out[i] = static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
        }
        for (std::size_t i = 0; i < views_.prompt.size(); ++i) views_.prompt[i] = static_cast<float>(i);
    }

    void collect_to(void *, void *) override { fail_internal("the fake backend has no GPU"); }

private:
    const Contract contract_;
    const std::shared_ptr<Script> script_;
    std::vector<std::vector<std::uint8_t>> memory_;
    Tensors views_;
    Borrowed borrowed_;
};

class FakeBackend final : public Backend {
public:
    FakeBackend(const Contract &contract, std::shared_ptr<Script> script) : contract_(contract), script_(std::move(script)) {}
    [[nodiscard]] std::string name() const override { return "fake"; }
    [[nodiscard]] bool takes_cuda() const noexcept override { return false; }
    [[nodiscard]] bool borrows() const noexcept override { return script_->borrows; }
    [[nodiscard]] std::unique_ptr<Slot> new_slot() override { return std::make_unique<FakeSlot>(contract_, script_); }

private:
    const Contract contract_;
    const std::shared_ptr<Script> script_;
};

}  // namespace tcmoa::testing
