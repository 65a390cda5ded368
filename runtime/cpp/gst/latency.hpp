// How long fusing a frame takes, for the latency that the element reports.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace tcmoa::gst {

// The running median of the last frames, so that one slow frame does not make the whole pipeline reconfigure.
class LatencyMeter {
   public:
    // Begin with the time that the warm-up frame took.
    void start(std::uint64_t ns) {
        count_ = next_ = 0;
        reported_ = ns;
    }

    // Add a frame's time; true if reported() grew: the median of a full window is a quarter and 1 ms above it.
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

    std::uint64_t reported() const { return reported_; }

   private:
    std::array<std::uint64_t, 31> times_ = {};
    std::size_t count_ = 0, next_ = 0;
    std::uint64_t reported_ = 0;
};

}  // namespace tcmoa::gst
