// Pairing: the frame of y for a frame of x, by time.
#pragma once

#include "pad_queue.hpp"

namespace tcmoa::gst {

enum class Match {
    kFound,   // `frame` is the partner
    kNone,    // no frame of y is near in time: y is lost
    kPending  // a later frame of y may be a better partner
};

struct Partner {
    Match match;
    FramePtr frame;
};

// Maximum time from a frame to the start of its partner: 1.5 frames of the slower source plus 20 ms.
GstClockTime tolerance(const PadQueue &x, const PadQueue &y);

// Find the frame of y that covers most of the time of `frame`; the earlier of two that cover the same; if none
// covers any of it, the nearest within the tolerance. Removes frames of y that are not needed any more from its queue.
// With `wait`, frames that have not arrived yet are waited for (kPending).
Partner find_partner(const TimedFrame &frame, const PadQueue &x, PadQueue &y, bool wait);

}  // namespace tcmoa::gst
