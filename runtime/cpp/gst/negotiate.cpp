// Caps of the pads, and the latency that depends on them.
#include "caps.hpp"
#include "element.hpp"

#define GST_CAT_DEFAULT tcmoa_fuse_debug

namespace tcmoa::gst {
namespace {

GstVideoInfo info_of(const Feed &feed) {
    GST_OBJECT_LOCK(feed.pad());
    const GstVideoInfo info = feed.pad()->info;
    GST_OBJECT_UNLOCK(feed.pad());
    return info;
}

bool is_known(const GstVideoInfo &info) {
    return info.finfo != nullptr && GST_VIDEO_INFO_FORMAT(&info) != GST_VIDEO_FORMAT_UNKNOWN;
}

// As many structures as downstream has framerates: x's framerate becomes the result's.
GstCaps *with_framerates_of(GstCaps *downstream, GstCaps *caps) {
    GstCaps *result = gst_caps_new_empty();
    for (guint i = 0; i < gst_caps_get_size(downstream); ++i) {
        GstCaps *copy = gst_caps_copy(caps);
        const GValue *rate = gst_structure_get_value(gst_caps_get_structure(downstream, i), "framerate");
        if (rate != nullptr) gst_caps_set_value(copy, "framerate", rate);
        result = gst_caps_merge(result, copy);
    }
    return result;
}

}  // namespace

GstFlowReturn update_src_caps(GstAggregator *aggregator, GstCaps *allowed, GstCaps **result) {
    auto *self = TCMOA_FUSE(aggregator);
    const GstVideoInfo x = info_of(state_of(self).x);
    if (!is_known(x)) return GST_AGGREGATOR_FLOW_NEED_DATA;
    // A format that was agreed on stays, so that x may change its own without a stir downstream.
    *result = source_caps(x, GST_VIDEO_INFO_FORMAT(&GST_VIDEO_AGGREGATOR(self)->info), allowed);
    return GST_FLOW_OK;
}

gboolean negotiated_src_caps(GstAggregator *aggregator, GstCaps *caps) {
    auto *self = TCMOA_FUSE(aggregator);
    const tcmoa_info &bundle = state_of(self).fuser.info();
    GstVideoInfo info;
    if (!gst_video_info_from_caps(&info, caps)) return FALSE;
    if (const std::string why = refusal(info, "src", bundle.width, bundle.height); !why.empty()) {
        TCMOA_MESSAGE(ERROR, self, STREAM, FORMAT, why);
        return FALSE;
    }
    GST_OBJECT_LOCK(self);
    GST_VIDEO_AGGREGATOR(self)->info = info;
    GST_OBJECT_UNLOCK(self);
    // The base class would set the latency here, to one frame; fusing takes time, too.
    report_latency(self);
    return TRUE;
}

bool accept_caps(TcmoaFuse *self, Feed &feed, GstCaps *caps) {
    State &state = state_of(self);
    const tcmoa_info &bundle = state.fuser.info();
    GstVideoInfo info;
    std::string why;
    if (gst_video_info_from_caps(&info, caps))
        why = refusal(info, GST_OBJECT_NAME(feed.pad()), bundle.width, bundle.height);
    else
        why = std::string(GST_OBJECT_NAME(feed.pad())) + " has caps that are no video";
    if (!why.empty()) {
        state.failure = why;
        TCMOA_MESSAGE(ERROR, self, STREAM, FORMAT, why);
        return false;
    }
    GST_OBJECT_LOCK(feed.pad());
    feed.pad()->info = info;
    GST_OBJECT_UNLOCK(feed.pad());
    if (&feed == &state.x) gst_pad_mark_reconfigure(GST_AGGREGATOR_SRC_PAD(self));
    else report_latency(self);
    return true;
}

GstCaps *query_sink_caps(TcmoaFuse *self, GstPad *pad, GstCaps *filter) {
    State &state = state_of(self);
    int width = 0, height = 0;
    {
        const std::lock_guard guard(state.fuser_lock);
        width = state.fuser.info().width;
        height = state.fuser.info().height;
    }
    if (pad != GST_PAD(state.x.pad())) return sink_caps(pad, width, height, filter);
    GstCaps *possible = gst_pad_get_pad_template_caps(GST_AGGREGATOR_SRC_PAD(self));
    GstCaps *downstream = gst_pad_peer_query_caps(GST_AGGREGATOR_SRC_PAD(self), possible);
    GstCaps *caps = sink_caps(pad, width, height, nullptr);
    GstCaps *result = with_framerates_of(downstream, caps);
    gst_caps_unref(possible);
    gst_caps_unref(downstream);
    gst_caps_unref(caps);
    if (filter != nullptr) {
        GstCaps *filtered = gst_caps_intersect_full(filter, result, GST_CAPS_INTERSECT_FIRST);
        gst_caps_unref(result);
        result = filtered;
    }
    return result;
}

// A frame of x waits for the frame of y that lasts beyond it, and then for its own turn.
void report_latency(TcmoaFuse *self) {
    State &state = state_of(self);
    const GstClockTime latency = MAX(state.x.interval(), state.y.interval()) + state.meter.reported();
    gst_aggregator_set_latency(GST_AGGREGATOR(self), latency, latency);
}

}  // namespace tcmoa::gst
