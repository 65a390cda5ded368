#include "aggregate.hpp"

#include "output.hpp"
#include "pairing.hpp"

namespace tcmoa::gst {
namespace {

// How long the first frame of a live x waits for the first frame of y: cameras need seconds to start.
constexpr GstClockTime kStartTimeout = 5 * GST_SECOND;

OnLoss on_loss_of(TcmoaFuse *self) {
    GST_OBJECT_LOCK(self);
    const OnLoss on_loss = state_of(self).settings.on_loss;
    GST_OBJECT_UNLOCK(self);
    return on_loss;
}

bool is_live(TcmoaFuse *self) {
    return GST_CLOCK_TIME_IS_VALID(gst_aggregator_get_latency(GST_AGGREGATOR(self)));
}

// Move the output position to the end of `frame`; the next deadline of a live pipeline counts from there.
void move_to_end_of(TcmoaFuse *self, const TimedFrame &frame) {
    GST_OBJECT_LOCK(self);
    GstSegment &segment = GST_AGGREGATOR_PAD(GST_AGGREGATOR(self)->srcpad)->segment;
    const GstClockTime position = gst_segment_position_from_running_time(&segment, GST_FORMAT_TIME, frame.end);
    if (GST_CLOCK_TIME_IS_VALID(position)) segment.position = position;
    GST_OBJECT_UNLOCK(self);
}

// Nothing arrived before the deadline: the next one is a frame of x later.
GstFlowReturn wait_for_next_deadline(TcmoaFuse *self) {
    const GstClockTime step = state_of(self).x.interval();
    GST_OBJECT_LOCK(self);
    GstSegment &segment = GST_AGGREGATOR_PAD(GST_AGGREGATOR(self)->srcpad)->segment;
    if (!GST_CLOCK_TIME_IS_VALID(segment.position) || segment.position < segment.start)
        segment.position = segment.start;
    segment.position += step;
    GST_OBJECT_UNLOCK(self);
    return GST_AGGREGATOR_FLOW_NEED_DATA;
}

void report_lost(TcmoaFuse *self, PadQueue &queue, OnLoss on_loss) {
    if (!queue.set_lost(true)) return;
    const char *action = "passing the other source without fusing";
    if (on_loss == OnLoss::kStop) action = "ending the stream";
    if (on_loss == OnLoss::kHold && queue.last()) action = "holding its last frame";
    TCMOA_MESSAGE(WARNING, self, RESOURCE, READ, queue.name() + ": source lost; " + action);
}

void report_recovered(TcmoaFuse *self, PadQueue &queue) {
    if (queue.set_lost(false))
        TCMOA_MESSAGE(INFO, self, RESOURCE, READ, queue.name() + ": source recovered");
}

// Whether the frame would reach downstream too late; then it is counted, and a QoS message is posted.
bool is_late(TcmoaFuse *self, const TimedFrame &frame) {
    State &state = state_of(self);
    GST_OBJECT_LOCK(self);
    const GstClockTimeDiff lateness = state.qos.lateness(frame.start);
    const double proportion = state.qos.proportion();
    const GstSegment segment = GST_AGGREGATOR_PAD(GST_AGGREGATOR(self)->srcpad)->segment;
    GST_OBJECT_UNLOCK(self);
    if (lateness <= 0) return false;
    const std::uint64_t dropped = ++state.counters.dropped;
    GstMessage *message = gst_message_new_qos(
        GST_OBJECT(self), is_live(self), frame.start,
        gst_segment_to_stream_time(&segment, GST_FORMAT_TIME, frame.position), frame.position, frame.duration);
    gst_message_set_qos_values(message, lateness, proportion, 1'000'000);
    gst_message_set_qos_stats(message, GST_FORMAT_BUFFERS, state.fuser.stats().frames + state.counters.passed, dropped);
    gst_element_post_message(GST_ELEMENT(self), message);
    return true;
}

// Remove a frame of x from its queue, and the frames of y that end before it does: as y's last frame they are an
// equally good partner for a later frame of x, and in the queue they could block a thread that feeds both sources.
void pop_frame(TcmoaFuse *self, const TimedFrame &frame) {
    State &state = state_of(self);
    state.x.pop();
    for (FramePtr y = state.y.peek(); y && y->end <= frame.end; y = state.y.peek()) state.y.pop();
}

// Drop a frame of x without an output.
GstFlowReturn drop_frame(TcmoaFuse *self, const TimedFrame &frame) {
    pop_frame(self, frame);
    move_to_end_of(self, frame);
    return GST_AGGREGATOR_FLOW_NEED_DATA;
}

// Whether y has not started yet, which is not a loss: in a live pipeline for kStartTimeout; otherwise, with
// on-loss=stop, until its first frame.
bool may_start_later(TcmoaFuse *self, const TimedFrame &frame, OnLoss on_loss) {
    State &state = state_of(self);
    if (on_loss == OnLoss::kPass || state.y.last() || state.y.is_eos()) return false;
    if (!is_live(self)) return on_loss == OnLoss::kStop;
    return frame.start - *state.first_x < kStartTimeout;
}

GstFlowReturn aggregate_x(TcmoaFuse *self, const FramePtr &frame, bool timeout) {
    State &state = state_of(self);
    if (!state.first_x) state.first_x = frame->start;
    report_recovered(self, state.x);
    if (frame->start < state.output_until) {  // frames of y were output for this time while x was lost
        ++state.counters.unpaired;
        return drop_frame(self, *frame);
    }
    if (is_late(self, *frame)) return drop_frame(self, *frame);

    const Partner partner = find_partner(*frame, state.x, state.y, !timeout);
    if (partner.match == Match::kPending) return GST_AGGREGATOR_FLOW_NEED_DATA;
    FramePtr y = partner.frame;
    if (partner.match == Match::kFound) {
        report_recovered(self, state.y);
    } else {
        const OnLoss on_loss = on_loss_of(self);
        if (may_start_later(self, *frame, on_loss)) {
            ++state.counters.unpaired;
            return drop_frame(self, *frame);
        }
        report_lost(self, state.y, on_loss);
        if (on_loss == OnLoss::kStop) return GST_FLOW_EOS;
        if (on_loss == OnLoss::kHold) y = state.y.last();
        if (y) ++state.counters.held;
    }
    pop_frame(self, *frame);
    const GstFlowReturn flow = push_output(self, *frame, frame, y);
    move_to_end_of(self, *frame);
    return flow;
}

// A deadline passed without a frame of x: once x is lost, y leads.
GstFlowReturn aggregate_without_x(TcmoaFuse *self) {
    State &state = state_of(self);
    const GstClockTime now = gst_aggregator_simple_get_next_time(GST_AGGREGATOR(self));
    FramePtr y = state.y.peek();
    if (!state.x.last()) {
        // Nothing is output before x starts; old frames of y must not delay it.
        for (; y && y->end <= now; y = state.y.peek()) state.y.pop();
        return wait_for_next_deadline(self);
    }
    const TimedFrame &last = *state.x.last();
    if (!state.x.is_lost() && now < last.start + tolerance(state.x, state.y)) return wait_for_next_deadline(self);
    const OnLoss on_loss = on_loss_of(self);
    report_lost(self, state.x, on_loss);
    if (on_loss == OnLoss::kStop) return GST_FLOW_EOS;

    const GstClockTime output_until = MAX(last.end, state.output_until);
    for (; y && (y->is_gap || y->start < output_until) && y->start <= now; y = state.y.peek()) state.y.pop();
    if (!y || y->start > now) return wait_for_next_deadline(self);
    state.y.pop();
    if (on_loss == OnLoss::kHold) ++state.counters.held;
    const GstFlowReturn flow = push_output(self, *y, on_loss == OnLoss::kHold ? state.x.last() : nullptr, y);
    state.output_until = y->end;
    move_to_end_of(self, *y);
    return flow;
}

}  // namespace

GstFlowReturn aggregate(GstAggregator *aggregator, gboolean timeout) {
    auto *self = TCMOA_FUSE(aggregator);
    State &state = state_of(self);
    if (state.failed) return GST_FLOW_ERROR;
    const FramePtr x = state.x.peek();
    if (state.x.lacks_timestamps() || state.y.lacks_timestamps()) {
        const PadQueue &queue = state.x.lacks_timestamps() ? state.x : state.y;
        TCMOA_MESSAGE(ERROR, self, STREAM, FORMAT,
                      queue.name() + ": frame without a timestamp; expected one on every buffer");
        return GST_FLOW_ERROR;
    }
    if (!x && state.x.is_eos()) return GST_FLOW_EOS;
    if (x && x->is_gap) {
        state.x.pop();
        return GST_AGGREGATOR_FLOW_NEED_DATA;
    }
    const bool negotiated = GST_VIDEO_INFO_FORMAT(&GST_VIDEO_AGGREGATOR(self)->info) != GST_VIDEO_FORMAT_UNKNOWN;
    if (x && negotiated) return aggregate_x(self, x, timeout != FALSE);
    return timeout ? aggregate_without_x(self) : GST_AGGREGATOR_FLOW_NEED_DATA;
}

}  // namespace tcmoa::gst
