#include "negotiate.hpp"

#include <string>

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

// The format of a source, also of one whose caps have arrived but wait in the queue of its pad: y is asked in between.
GstVideoInfo arriving_info_of(PadQueue &queue) {
    GstVideoInfo info = info_of(queue);
    if (is_known(info)) return info;
    if (GstCaps *caps = gst_pad_get_current_caps(GST_PAD(queue.pad())); caps != nullptr) {
        if (!gst_video_info_from_caps(&info, caps)) gst_video_info_init(&info);
        gst_caps_unref(caps);
    }
    return info;
}

std::string size_text(int width, int height) { return std::to_string(width) + "x" + std::to_string(height); }

// Whether a source may have another size than the other one.
bool may_differ(TcmoaFuse *self) {
    const FuserHandle &fuser = state_of(self).fuser;
    return fuser.fit() == TCMOA_FIT_RESIZE || (fuser.fit() == TCMOA_FIT_AUTO && !fuser.tiles());
}

// Why the bundle cannot fuse frames of this size with the property `fit`; empty if it can.
std::string find_size_problem(TcmoaFuse *self, const GstVideoInfo &info, const std::string &name) {
    const FuserHandle &fuser = state_of(self).fuser;
    if (fuser.accepts(info.width, info.height)) return {};
    const std::string size = size_text(info.width, info.height);
    const bool pads = fuser.fit() == TCMOA_FIT_PAD;
    return name + ": " + size + "; expected " + (pads ? "at most " : "") +
           size_text(fuser.info().width, fuser.info().height) + ", the bundle's frame size. Add videoscale before it, set "
           "fit to " + (fuser.tiles() ? pads ? "tile or resize" : "tile, pad or resize" : "resize") +
           ", or export a bundle for " + size + ".";
}

// any_size: also sizes that the bundle cannot fuse.
GstCaps *find_sink_caps(TcmoaFuse *self, GstPad *pad, GstCaps *filter, bool any_size) {
    State &state = state_of(self);
    Sizes sizes;
    bool equal = false;  // y must have the size of x
    if (!any_size) {
        const std::lock_guard guard(state.fuser_lock);
        const int fit = state.fuser.fit();
        if (state.fuser && (fit == TCMOA_FIT_EXACT || fit == TCMOA_FIT_PAD)) {
            sizes = {state.fuser.info().width, state.fuser.info().height, fit == TCMOA_FIT_PAD};
        }
        equal = state.fuser && !may_differ(self);
    }
    if (pad != GST_PAD(state.x.pad())) {
        const GstVideoInfo x = arriving_info_of(state.x);
        if (equal && is_known(x)) sizes = {x.width, x.height, false};
        return sink_caps(pad, sizes, filter);
    }
    GstCaps *possible = gst_pad_get_pad_template_caps(GST_AGGREGATOR_SRC_PAD(self));
    GstCaps *downstream = gst_pad_peer_query_caps(GST_AGGREGATOR_SRC_PAD(self), possible);
    GstCaps *caps = sink_caps(pad, sizes, nullptr);
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

}  // namespace

std::string find_pair_problem(TcmoaFuse *self, const GstVideoInfo &x, const GstVideoInfo &y) {
    if ((x.width == y.width && x.height == y.height) || may_differ(self)) return {};
    return "sink_y: " + size_text(y.width, y.height) + "; expected " + size_text(x.width, x.height) +
           ", the size of sink_x. Add videoscale and a caps filter before it, or set fit to resize.";
}

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
    GstVideoInfo info;
    if (!gst_video_info_from_caps(&info, caps)) return FALSE;
    if (const auto problem = find_problem(info, "src"); !problem.empty()) {
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
    const std::string name = queue.name();
    GstVideoInfo info;
    std::string problem = name + ": caps are not raw video; expected video/x-raw";
    if (gst_video_info_from_caps(&info, caps)) {
        problem = find_size_problem(self, info, name);
        if (problem.empty()) problem = find_problem(info, name.c_str());
    }
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

// Upstream that offers no size that fits gets its own: then the caps event is refused, with an error that has a remedy.
// An empty answer would end in upstream's "not negotiated".
GstCaps *query_sink_caps(TcmoaFuse *self, GstPad *pad, GstCaps *filter) {
    GstCaps *caps = find_sink_caps(self, pad, filter, false);
    if (filter == nullptr || !gst_caps_is_empty(caps)) return caps;
    gst_caps_unref(caps);
    return find_sink_caps(self, pad, filter, true);
}

// A frame of x waits for the frame of y that ends after it, and is then fused.
void report_latency(TcmoaFuse *self) {
    State &state = state_of(self);
    const GstClockTime latency = MAX(state.x.interval(), state.y.interval()) + state.latency.reported();
    gst_aggregator_set_latency(GST_AGGREGATOR(self), latency, latency);
}

}  // namespace tcmoa::gst
