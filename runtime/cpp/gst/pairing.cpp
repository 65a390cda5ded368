// Pairing by time, see pairing.hpp.
#include "pairing.hpp"

namespace tcmoa::gst {
namespace {

// Times are rounded to nanoseconds, which must not decide between two frames that cover as much.
constexpr GstClockTime kRounding = GST_USECOND;

// The nearest of y's last and next frame, if near enough.
PicturePtr nearest(const Picture &frame, GstClockTime limit, const PicturePtr &last, const PicturePtr &next) {
    PicturePtr best = last;
    if (next && !next->gap && (!best || distance(frame, *next) < distance(frame, *best))) best = next;
    return best && distance(frame, *best) <= limit ? best : nullptr;
}

}  // namespace

GstClockTime tolerance(const Feed &x, const Feed &y) {
    return MAX(x.interval(), y.interval()) * 3 / 2 + 20 * GST_MSECOND;
}

Partner partner_of(const Picture &frame, const Feed &x, Feed &y, bool patient) {
    const GstClockTime half = (frame.end - frame.start) / 2;
    PicturePtr next = y.head();  // first, as it forgets flushed frames
    PicturePtr best = y.last() && overlap(frame, *y.last()) > 0 ? y.last() : nullptr;
    for (;; next = y.head()) {
        // What covers half of the frame's time cannot be beaten: no wait for what is not there yet.
        if (best && overlap(frame, *best) + kRounding >= half) break;
        if (!next) {
            if (patient && !y.ended() && !y.untimed()) return {Match::kMore, nullptr};
            break;
        }
        if (next->start >= frame.end) break;
        if (!next->gap && overlap(frame, *next) > 0) {
            if (best && overlap(frame, *best) + kRounding >= overlap(frame, *next)) break;
            best = next;
        }
        // A frame that lasts longer stays at the head, so that the next frame of x finds it without a wait.
        if (next->end >= frame.end || (best && overlap(frame, *best) + kRounding >= half)) break;
        y.take();
    }
    if (!best) best = nearest(frame, tolerance(x, y), y.last(), next);
    return {best ? Match::kFound : Match::kNone, best};
}

}  // namespace tcmoa::gst
