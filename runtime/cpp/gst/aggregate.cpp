// What comes out next: x leads, y is matched by time, and the on-loss policy stands in for a source that is lost.
#include "element.hpp"
#include "pairing.hpp"

#define GST_CAT_DEFAULT tcmoa_fuse_debug

namespace tcmoa::gst {
namespace {

// How long the first frame of a live x waits for the first one of y: cameras take a while to start.
constexpr GstClockTime kStartTime = 5 * GST_SECOND;

OnLoss policy_of(TcmoaFuse *self) {
    GST_OBJECT_LOCK(self);
    const OnLoss policy = state_of(self).settings.on_loss;
    GST_OBJECT_UNLOCK(self);
    return policy;
}

bool is_live(TcmoaFuse *self) {
    return GST_CLOCK_TIME_IS_VALID(gst_aggregator_get_latency(GST_AGGREGATOR(self)));
}

// The output reaches up to the end of `picture`; the next deadline of a live pipeline counts from there.
void move_to_end(TcmoaFuse *self, const Picture &picture) {
    GST_OBJECT_LOCK(self);
    GstSegment &segment = GST_AGGREGATOR_PAD(GST_AGGREGATOR(self)->srcpad)->segment;
    const GstClockTime position = gst_segment_position_from_running_time(&segment, GST_FORMAT_TIME, picture.end);
    if (GST_CLOCK_TIME_IS_VALID(position)) segment.position = position;
    GST_OBJECT_UNLOCK(self);
}

// Nothing came in time: the next deadline is one frame of x later.
GstFlowReturn wait_longer(TcmoaFuse *self) {
    const GstClockTime step = state_of(self).x.interval();
    GST_OBJECT_LOCK(self);
    GstSegment &segment = GST_AGGREGATOR_PAD(GST_AGGREGATOR(self)->srcpad)->segment;
    if (!GST_CLOCK_TIME_IS_VALID(segment.position) || segment.position < segment.start)
        segment.position = segment.start;
    segment.position += step;
    GST_OBJECT_UNLOCK(self);
    return GST_AGGREGATOR_FLOW_NEED_DATA;
}

void note_lost(TcmoaFuse *self, Feed &feed, OnLoss policy) {
    if (!feed.set_lost(true)) return;
    const char *then = "the other source passes alone";
    if (policy == OnLoss::kStop) then = "the stream ends";
    if (policy == OnLoss::kHold && feed.last()) then = "its last frame is held";
    TCMOA_MESSAGE(WARNING, self, RESOURCE, READ, std::string(GST_OBJECT_NAME(feed.pad())) + " is lost: " + then);
}

void note_back(TcmoaFuse *self, Feed &feed) {
    if (feed.set_lost(false))
        TCMOA_MESSAGE(INFO, self, RESOURCE, READ, std::string(GST_OBJECT_NAME(feed.pad())) + " is back");
}

// Whether downstream would get the frame too late to show it; says so on the bus.
bool is_late(TcmoaFuse *self, const Picture &frame) {
    State &state = state_of(self);
    GST_OBJECT_LOCK(self);
    const GstClockTimeDiff late = state.quality.late(frame.start);
    const double proportion = state.quality.proportion();
    const GstSegment segment = GST_AGGREGATOR_PAD(GST_AGGREGATOR(self)->srcpad)->segment;
    GST_OBJECT_UNLOCK(self);
    if (late <= 0) return false;
    const std::uint64_t dropped = ++state.counters.dropped;
    GstMessage *message = gst_message_new_qos(
        GST_OBJECT(self), is_live(self), frame.start,
        gst_segment_to_stream_time(&segment, GST_FORMAT_TIME, frame.position), frame.position, frame.duration);
    gst_message_set_qos_values(message, late, proportion, 1'000'000);
    gst_message_set_qos_stats(message, GST_FORMAT_BUFFERS, state.fuser.figures().frames + state.counters.passed,
                              dropped);
    gst_element_post_message(GST_ELEMENT(self), message);
    return true;
}

// Done with a frame of x. What y has up to its end is no better partner for a later frame than as y's last one, and in
// the queue it would block a thread that brings both sources.
void take_frame(TcmoaFuse *self, const Picture &frame) {
    State &state = state_of(self);
    state.x.take();
    for (PicturePtr y = state.y.head(); y && y->end <= frame.end; y = state.y.head()) state.y.take();
}

// A frame of x is given up; the flow goes on.
GstFlowReturn give_up(TcmoaFuse *self, const Picture &frame) {
    take_frame(self, frame);
    move_to_end(self, frame);
    return GST_AGGREGATOR_FLOW_NEED_DATA;
}

// Whether y has not begun yet, which is no loss: in files as long as a frame of it comes, live for a while.
bool may_begin(TcmoaFuse *self, const Picture &frame, OnLoss policy) {
    State &state = state_of(self);
    if (policy == OnLoss::kPass || state.y.last() || state.y.ended()) return false;
    if (!is_live(self)) return policy == OnLoss::kStop;
    return frame.start - *state.first_x < kStartTime;
}

GstFlowReturn with_x(TcmoaFuse *self, const PicturePtr &frame, bool timeout) {
    State &state = state_of(self);
    if (!state.first_x) state.first_x = frame->start;
    note_back(self, state.x);
    if (frame->start < state.shown_until) {  // while x was lost, y led beyond this frame
        ++state.counters.unpaired;
        return give_up(self, *frame);
    }
    if (is_late(self, *frame)) return give_up(self, *frame);

    const Partner partner = partner_of(*frame, state.x, state.y, !timeout);
    if (partner.match == Match::kMore) return GST_AGGREGATOR_FLOW_NEED_DATA;
    PicturePtr y = partner.picture;
    if (partner.match == Match::kFound) {
        note_back(self, state.y);
    } else {
        const OnLoss policy = policy_of(self);
        if (may_begin(self, *frame, policy)) {
            ++state.counters.unpaired;
            return give_up(self, *frame);
        }
        note_lost(self, state.y, policy);
        if (policy == OnLoss::kStop) return GST_FLOW_EOS;
        if (policy == OnLoss::kHold) y = state.y.last();
        if (y) ++state.counters.held;
    }
    take_frame(self, *frame);
    const GstFlowReturn flow = produce(self, *frame, frame, y);
    move_to_end(self, *frame);
    return flow;
}

// A deadline passed without a frame of x: once x is lost, y leads.
GstFlowReturn without_x(TcmoaFuse *self) {
    State &state = state_of(self);
    const GstClockTime now = gst_aggregator_simple_get_next_time(GST_AGGREGATOR(self));
    PicturePtr y = state.y.head();
    if (!state.x.last()) {
        // Before x begins nothing comes out; y must not wait for it with old frames.
        for (; y && y->end <= now; y = state.y.head()) state.y.take();
        return wait_longer(self);
    }
    const Picture &last = *state.x.last();
    if (!state.x.lost() && now < last.start + tolerance(state.x, state.y)) return wait_longer(self);
    const OnLoss policy = policy_of(self);
    note_lost(self, state.x, policy);
    if (policy == OnLoss::kStop) return GST_FLOW_EOS;

    const GstClockTime shown = MAX(last.end, state.shown_until);
    for (; y && (y->gap || y->start < shown) && y->start <= now; y = state.y.head()) state.y.take();
    if (!y || y->start > now) return wait_longer(self);
    state.y.take();
    if (policy == OnLoss::kHold) ++state.counters.held;
    const GstFlowReturn flow = produce(self, *y, policy == OnLoss::kHold ? state.x.last() : nullptr, y);
    state.shown_until = y->end;
    move_to_end(self, *y);
    return flow;
}

}  // namespace

GstFlowReturn aggregate(GstAggregator *aggregator, gboolean timeout) {
    auto *self = TCMOA_FUSE(aggregator);
    State &state = state_of(self);
    if (!state.failure.empty()) return GST_FLOW_ERROR;
    const PicturePtr x = state.x.head();
    if (state.x.untimed() || state.y.untimed()) {
        GST_ELEMENT_ERROR(self, STREAM, FORMAT, ("frames have no time stamps: expected them on every buffer"),
                          (nullptr));
        return GST_FLOW_ERROR;
    }
    if (!x && state.x.ended()) return GST_FLOW_EOS;
    if (x && x->gap) {
        state.x.take();
        return GST_AGGREGATOR_FLOW_NEED_DATA;
    }
    const bool negotiated = GST_VIDEO_INFO_FORMAT(&GST_VIDEO_AGGREGATOR(self)->info) != GST_VIDEO_FORMAT_UNKNOWN;
    if (x && negotiated) return with_x(self, x, timeout != FALSE);
    return timeout ? without_x(self) : GST_AGGREGATOR_FLOW_NEED_DATA;
}

}  // namespace tcmoa::gst
