// A backend with simple arithmetic: fused = mean of x and y, plus 100 * shift at the token of the pixel.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "backend.hpp"
#include "contract.hpp"
#include "error.hpp"

namespace tcmoa::testing {

// Controls and counters of a FakeBackend; shared with the test.
struct Script {
    std::mutex lock;
    std::condition_variable changed;
    std::atomic<bool> accepts_external_buffers = false;
    bool held = false;                 // frames are not ready as long as this is set
    std::atomic<int> fail_starts = 0;  // number of starts that will throw
    std::atomic<int> fail_runs = 0;    // number of frames that will fail in the network
    std::atomic<int> running = 0, max_running = 0;

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
        for (const auto &spec : contract.inputs()) memory_.emplace_back(spec.num_bytes());
        for (const auto &spec : contract.outputs()) memory_.emplace_back(spec.num_bytes());
        const auto floats = [](std::vector<std::uint8_t> &bytes) {
            return std::span(reinterpret_cast<float *>(bytes.data()), bytes.size() / sizeof(float));
        };
        tensors_.x = memory_[0];
        tensors_.y = memory_[1];
        tensors_.scale = floats(memory_[2]);
        tensors_.shift = floats(memory_[3]);
        tensors_.fused = memory_[4];
        if (contract.with_prompt) tensors_.prompt = floats(memory_[5]);
    }

    [[nodiscard]] const HostTensors &tensors() const noexcept override { return tensors_; }

    void bind(const ExternalBuffers &buffers) override { external_ = buffers; }

    void start(const DeviceFrame &, const DeviceFrame &) override {
        if (script_->fail_starts > 0) {
            --script_->fail_starts;
            fail_internal("fake backend", "failed to start");
        }
        const int now = ++script_->running;
        int max = script_->max_running;
        while (now > max && !script_->max_running.compare_exchange_weak(max, now)) {
        }
    }

    bool wait_for(std::chrono::milliseconds timeout) override {
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
            fail_internal("fake backend", "failed in the network");
        }
        return true;
    }

    void collect() override {
        const auto width = static_cast<std::size_t>(contract_.width);
        const auto grid = static_cast<std::size_t>(contract_.grid_width), token = 16UL;
        const auto cx = static_cast<std::size_t>(contract_.x_channels), cy = static_cast<std::size_t>(contract_.y_channels);
        const auto *x_in = external_.x != nullptr ? external_.x : tensors_.x.data();
        const auto *y_in = external_.y != nullptr ? external_.y : tensors_.y.data();
        auto *out = external_.fused != nullptr ? external_.fused : tensors_.fused.data();
        for (std::size_t i = 0; i < tensors_.fused.size(); ++i) {
            const std::size_t pixel = i / 3, row = pixel / width, column = pixel % width;
            const int x = x_in[cx == 3 ? i : pixel], y = y_in[cy == 3 ? i : pixel];
            const float shift = tensors_.shift[row / token * grid + column / token];
            const float value = static_cast<float>((x + y) / 2) + 100 * shift;
            out[i] = static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
        }
        for (std::size_t i = 0; i < tensors_.prompt.size(); ++i) tensors_.prompt[i] = static_cast<float>(i);
    }

    void collect_to(void *, void *) override { fail_internal("fake backend", "has no GPU"); }

private:
    const Contract contract_;
    const std::shared_ptr<Script> script_;
    std::vector<std::vector<std::uint8_t>> memory_;
    HostTensors tensors_;
    ExternalBuffers external_;
};

class FakeBackend final : public Backend {
public:
    FakeBackend(const Contract &contract, std::shared_ptr<Script> script) : contract_(contract), script_(std::move(script)) {}
    [[nodiscard]] std::string name() const override { return "fake"; }
    [[nodiscard]] bool accepts_cuda() const noexcept override { return false; }
    [[nodiscard]] bool accepts_external_buffers() const noexcept override { return script_->accepts_external_buffers; }
    [[nodiscard]] std::unique_ptr<Slot> new_slot() override { return std::make_unique<FakeSlot>(contract_, script_); }

private:
    const Contract contract_;
    const std::shared_ptr<Script> script_;
};

}  // namespace tcmoa::testing
