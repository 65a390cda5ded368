#include "pairing.hpp"

namespace tcmoa::gst {
namespace {

// Times are rounded to nanoseconds; the rounding must not decide between two frames that cover the same time.
constexpr GstClockTime kRounding = GST_USECOND;

// The nearest of the last and the next frame of y that is within `limit`.
FramePtr nearest(const TimedFrame &frame, GstClockTime limit, const FramePtr &last, const FramePtr &next) {
    FramePtr best = last;
    if (next && !next->is_gap && (!best || distance(frame, *next) < distance(frame, *best))) best = next;
    return best && distance(frame, *best) <= limit ? best : nullptr;
}

}  // namespace

GstClockTime tolerance(const PadQueue &x, const PadQueue &y) {
    return MAX(x.interval(), y.interval()) * 3 / 2 + 20 * GST_MSECOND;
}

Partner find_partner(const TimedFrame &frame, const PadQueue &x, PadQueue &y, bool wait) {
    const GstClockTime half = (frame.end - frame.start) / 2;
    FramePtr next = y.peek();  // before last(), since it drops flushed frames
    FramePtr best = y.last() && overlap(frame, *y.last()) > 0 ? y.last() : nullptr;
    for (;; next = y.peek()) {
        // No frame can cover more than one that covers half of the time: do not wait for frames that have not arrived.
        if (best && overlap(frame, *best) + kRounding >= half) break;
        if (!next) {
            if (wait && !y.is_eos() && !y.lacks_timestamps()) return {Match::kPending, nullptr};
            break;
        }
        if (next->start >= frame.end) break;
        if (!next->is_gap && overlap(frame, *next) > 0) {
            if (best && overlap(frame, *best) + kRounding >= overlap(frame, *next)) break;
            best = next;
        }
        // A frame that lasts longer remains in the queue, so that the next frame of x finds it without waiting.
        if (next->end >= frame.end || (best && overlap(frame, *best) + kRounding >= half)) break;
        y.pop();
    }
    if (!best) best = nearest(frame, tolerance(x, y), y.last(), next);
    return {best ? Match::kFound : Match::kNone, best};
}

}  // namespace tcmoa::gst
