// Measures the time that fusing a frame takes, for the latency that the element reports.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace tcmoa::gst {

// Reports the running median of 31 frames, so that one slow frame does not reconfigure the pipeline.
class LatencyMeter {
public:
    // Start with the time of the first frame.
    void start(std::uint64_t ns) {
        count_ = next_ = 0;
        reported_ = ns;
    }

    // Add the time of a frame. Returns whether reported() grew: the median exceeds it by more than 25 % and 1 ms.
    bool add(std::uint64_t ns) {
        times_[next_] = ns;
        next_ = (next_ + 1) % times_.size();
        count_ = std::min(count_ + 1, times_.size());
        if (count_ < times_.size()) return false;
        auto sorted = times_;
        std::nth_element(sorted.begin(), sorted.begin() + sorted.size() / 2, sorted.end());
        const std::uint64_t median = sorted[sorted.size() / 2];
        if (median <= reported_ + reported_ / 4 + 1'000'000) return false;
        reported_ = median;
        return true;
    }

    // Nanoseconds; never shrinks.
    std::uint64_t reported() const { return reported_; }

private:
    std::array<std::uint64_t, 31> times_ = {};
    std::size_t count_ = 0, next_ = 0;
    std::uint64_t reported_ = 0;
};

}  // namespace tcmoa::gst
