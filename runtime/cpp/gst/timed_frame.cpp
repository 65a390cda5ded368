#include "timed_frame.hpp"

namespace tcmoa::gst {

GstClockTime overlap(const TimedFrame &a, const TimedFrame &b) {
    const GstClockTime from = MAX(a.start, b.start), to = MIN(a.end, b.end);
    return to > from ? to - from : 0;
}

GstClockTime distance(const TimedFrame &a, const TimedFrame &b) {
    return a.start > b.start ? a.start - b.start : b.start - a.start;
}

}  // namespace tcmoa::gst
