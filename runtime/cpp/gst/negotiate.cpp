#include "negotiate.hpp"

#include "caps.hpp"

namespace tcmoa::gst {
namespace {

GstVideoInfo info_of(const PadQueue &queue) {
    GST_OBJECT_LOCK(queue.pad());
    const GstVideoInfo info = queue.pad()->info;
    GST_OBJECT_UNLOCK(queue.pad());
    return info;
}

bool is_known(const GstVideoInfo &info) {
    return info.finfo != nullptr && GST_VIDEO_INFO_FORMAT(&info) != GST_VIDEO_FORMAT_UNKNOWN;
}

// `caps` with each framerate that downstream accepts: the framerate of x becomes that of the result.
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
    // Keep a format that was negotiated, so that x can change its format without a renegotiation downstream.
    *result = source_caps(x, GST_VIDEO_INFO_FORMAT(&GST_VIDEO_AGGREGATOR(self)->info), allowed);
    return GST_FLOW_OK;
}

gboolean negotiated_src_caps(GstAggregator *aggregator, GstCaps *caps) {
    auto *self = TCMOA_FUSE(aggregator);
    const tcmoa_info &bundle = state_of(self).fuser.info();
    GstVideoInfo info;
    if (!gst_video_info_from_caps(&info, caps)) return FALSE;
    if (const auto problem = find_problem(info, "src", bundle.width, bundle.height); !problem.empty()) {
        TCMOA_MESSAGE(ERROR, self, STREAM, FORMAT, problem);
        return FALSE;
    }
    GST_OBJECT_LOCK(self);
    GST_VIDEO_AGGREGATOR(self)->info = info;
    GST_OBJECT_UNLOCK(self);
    // Not the base class's latency, which is one frame without the time of fusing.
    report_latency(self);
    return TRUE;
}

bool accept_sink_caps(TcmoaFuse *self, PadQueue &queue, GstCaps *caps) {
    State &state = state_of(self);
    const tcmoa_info &bundle = state.fuser.info();
    const std::string name = queue.name();
    GstVideoInfo info;
    const std::string problem = gst_video_info_from_caps(&info, caps)
                                    ? find_problem(info, name.c_str(), bundle.width, bundle.height)
                                    : name + ": caps are not raw video; expected video/x-raw";
    if (!problem.empty()) {
        state.failed = true;
        TCMOA_MESSAGE(ERROR, self, STREAM, FORMAT, problem);
        return false;
    }
    GST_OBJECT_LOCK(queue.pad());
    queue.pad()->info = info;
    GST_OBJECT_UNLOCK(queue.pad());
    if (&queue == &state.x) gst_pad_mark_reconfigure(GST_AGGREGATOR_SRC_PAD(self));
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

// A frame of x waits for the frame of y that ends after it, and is then fused.
void report_latency(TcmoaFuse *self) {
    State &state = state_of(self);
    const GstClockTime latency = MAX(state.x.interval(), state.y.interval()) + state.latency.reported();
    gst_aggregator_set_latency(GST_AGGREGATOR(self), latency, latency);
}

}  // namespace tcmoa::gst
