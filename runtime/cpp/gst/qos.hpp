// Quality of service: which frames would reach downstream too late.
#pragma once

#include <gst/gst.h>

namespace tcmoa::gst {

// Guarded by the element's object lock: QoS events come from any thread.
class QosState {
public:
    // Handle a QoS event. `frame` is the duration of one output frame. A live pipeline cannot catch up: only frames
    // that are late already are skipped. Otherwise twice the delay is skipped, as in GstVideoAggregator and
    // GstBaseTransform.
    void update(double proportion, GstClockTimeDiff diff, GstClockTime timestamp, bool live, GstClockTime frame) {
        proportion_ = proportion;
        if (!GST_CLOCK_TIME_IS_VALID(timestamp)) {
            earliest_ = GST_CLOCK_TIME_NONE;
        } else if (!live && diff > 0) {
            earliest_ = timestamp + 2 * static_cast<GstClockTime>(diff) + frame;
        } else {
            // A frame may be early by more than its own timestamp.
            const GstClockTimeDiff earliest = static_cast<GstClockTimeDiff>(timestamp) + diff;
            earliest_ = earliest > 0 ? static_cast<GstClockTime>(earliest) : 0;
        }
    }

    // Nanoseconds by which a frame at running time `start` would be late; 0 or less: it is in time.
    GstClockTimeDiff lateness(GstClockTime start) const {
        return GST_CLOCK_TIME_IS_VALID(earliest_) ? GST_CLOCK_DIFF(start, earliest_) : 0;
    }

    double proportion() const { return proportion_; }
    void reset() { *this = {}; }

private:
    double proportion_ = 0.5;
    GstClockTime earliest_ = GST_CLOCK_TIME_NONE;
};

}  // namespace tcmoa::gst
