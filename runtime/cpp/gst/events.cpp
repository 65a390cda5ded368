#include "events.hpp"

#include "negotiate.hpp"

namespace tcmoa::gst {
namespace {

gboolean handle_caps(TcmoaFuse *self, PadQueue &queue, GstEvent *event) {
    // Not passed to the base class, which keeps new caps pending until it takes a frame itself.
    GstCaps *caps = nullptr;
    gst_event_parse_caps(event, &caps);
    const bool accepted = accept_sink_caps(self, queue, caps);
    gst_event_unref(event);
    return accepted;
}

// Returns whether the segment can be used.
bool handle_segment(TcmoaFuse *self, PadQueue &queue, GstEvent *event) {
    State &state = state_of(self);
    GstSegment segment;
    gst_event_copy_segment(event, &segment);
    if (segment.format != GST_FORMAT_TIME) {
        TCMOA_MESSAGE(ERROR, self, STREAM, FORMAT,
                      queue.name() + ": segment in " + gst_format_get_name(segment.format) +
                          "; expected time. Add a parser before it, e.g. rawvideoparse.");
        state.failed = true;
        return false;
    }
    if (&queue == &state.x) {  // the output has the segment of x
        segment.position = GST_CLOCK_TIME_NONE;
        gst_aggregator_update_segment(GST_AGGREGATOR(self), &segment);
    }
    GST_OBJECT_LOCK(self);
    state.qos.reset();
    GST_OBJECT_UNLOCK(self);
    return true;
}

// The output ends with x, but the base class does not aggregate before y has a frame, too: send a gap in its place.
void wake_for_eos(GstAggregator *aggregator, GstAggregatorPad *y) {
    GST_OBJECT_LOCK(y);
    const GstSegment segment = y->segment;
    GST_OBJECT_UNLOCK(y);
    if (segment.format != GST_FORMAT_TIME || gst_aggregator_pad_is_eos(y)) return;
    parent_class()->sink_event(aggregator, y, gst_event_new_gap(segment.start, GST_CLOCK_TIME_NONE));
}

}  // namespace

gboolean sink_event(GstAggregator *aggregator, GstAggregatorPad *pad, GstEvent *event) {
    auto *self = TCMOA_FUSE(aggregator);
    State &state = state_of(self);
    PadQueue &queue = queue_of(pad);
    const GstEventType type = GST_EVENT_TYPE(event);
    if (type == GST_EVENT_CAPS) return handle_caps(self, queue, event);
    if (type == GST_EVENT_SEGMENT && !handle_segment(self, queue, event)) {
        gst_event_unref(event);
        return FALSE;
    }
    const gboolean handled = parent_class()->sink_event(aggregator, pad, event);
    if (type == GST_EVENT_EOS && &queue == &state.x) wake_for_eos(aggregator, GST_AGGREGATOR_PAD(state.y.pad()));
    return handled;
}

gboolean sink_query(GstAggregator *aggregator, GstAggregatorPad *pad, GstQuery *query) {
    if (GST_QUERY_TYPE(query) == GST_QUERY_CAPS) {
        GstCaps *filter = nullptr;
        gst_query_parse_caps(query, &filter);
        GstCaps *caps = query_sink_caps(TCMOA_FUSE(aggregator), GST_PAD(pad), filter);
        gst_query_set_caps_result(query, caps);
        gst_caps_unref(caps);
        return TRUE;
    }
    if (GST_QUERY_TYPE(query) == GST_QUERY_ACCEPT_CAPS) {
        // Accept any size here and refuse a wrong one with the caps event, whose error has a remedy; a refusal here
        // would end in upstream's "not negotiated".
        GstCaps *caps = nullptr;
        gst_query_parse_accept_caps(query, &caps);
        GstCaps *any = gst_pad_get_pad_template_caps(GST_PAD(pad));
        gst_query_set_accept_caps_result(query, gst_caps_is_subset(caps, any));
        gst_caps_unref(any);
        return TRUE;
    }
    return parent_class()->sink_query(aggregator, pad, query);
}

gboolean src_event(GstAggregator *aggregator, GstEvent *event) {
    auto *self = TCMOA_FUSE(aggregator);
    if (GST_EVENT_TYPE(event) == GST_EVENT_QOS) {
        State &state = state_of(self);
        double proportion = 0;
        GstClockTimeDiff diff = 0;
        GstClockTime timestamp = 0;
        gst_event_parse_qos(event, nullptr, &proportion, &diff, &timestamp);
        const bool live = GST_CLOCK_TIME_IS_VALID(gst_aggregator_get_latency(aggregator));
        const GstClockTime frame = state.x.interval();
        GST_OBJECT_LOCK(self);
        state.qos.update(proportion, diff, timestamp, live, frame);
        GST_OBJECT_UNLOCK(self);
    }
    return parent_class()->src_event(aggregator, event);
}

gboolean src_query(GstAggregator *aggregator, GstQuery *query) {
    // The output ends with x; the base class would answer with the longer of the two.
    if (GST_QUERY_TYPE(query) == GST_QUERY_DURATION)
        return gst_pad_peer_query(GST_PAD(state_of(TCMOA_FUSE(aggregator)).x.pad()), query);
    return parent_class()->src_query(aggregator, query);
}

}  // namespace tcmoa::gst
