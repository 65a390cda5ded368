// What downstream says about frames that came too late (QoS), and which frames would be late again.
#pragma once

#include <gst/gst.h>

namespace tcmoa::gst {

// The element's object lock guards it: events come from any thread.
class Quality {
   public:
    // A QoS event; `frame` is the time of one output frame. A live pipeline cannot catch up, so there only what is
    // late already is skipped; otherwise twice the delay, as GstVideoAggregator and GstBaseTransform do.
    void update(double proportion, GstClockTimeDiff diff, GstClockTime timestamp, bool live, GstClockTime frame) {
        proportion_ = proportion;
        if (!GST_CLOCK_TIME_IS_VALID(timestamp)) {
            earliest_ = GST_CLOCK_TIME_NONE;
        } else if (!live && diff > 0) {
            earliest_ = timestamp + 2 * static_cast<GstClockTime>(diff) + frame;
        } else {
            // A frame that came early by more than its own time stamp cannot be told from one at 0.
            const GstClockTimeDiff at = static_cast<GstClockTimeDiff>(timestamp) + diff;
            earliest_ = at > 0 ? static_cast<GstClockTime>(at) : 0;
        }
    }

    // Nanoseconds by which a frame at running time `start` would be late; 0 or less: it is in time.
    GstClockTimeDiff late(GstClockTime start) const {
        return GST_CLOCK_TIME_IS_VALID(earliest_) ? GST_CLOCK_DIFF(start, earliest_) : 0;
    }

    double proportion() const { return proportion_; }
    void reset() { *this = {}; }

   private:
    double proportion_ = 0.5;
    GstClockTime earliest_ = GST_CLOCK_TIME_NONE;
};

}  // namespace tcmoa::gst
