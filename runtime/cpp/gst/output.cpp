#include "output.hpp"

#include <chrono>
#include <string>

#include "caps.hpp"
#include "negotiate.hpp"

namespace tcmoa::gst {
namespace {

class MappedFrame {
public:
    MappedFrame(const GstVideoInfo &info, GstBuffer *buffer, GstMapFlags flags)
        : mapped_(gst_video_frame_map(&frame_, &info, buffer, flags) != FALSE) {}
    ~MappedFrame() {
        if (mapped_) gst_video_frame_unmap(&frame_);
    }
    MappedFrame(const MappedFrame &) = delete;
    MappedFrame &operator=(const MappedFrame &) = delete;

    explicit operator bool() const { return mapped_; }
    GstVideoFrame *get() { return &frame_; }

private:
    GstVideoFrame frame_ = {};
    bool mapped_;
};

GstFlowReturn fail_mapping(TcmoaFuse *self) {
    TCMOA_MESSAGE(ERROR, self, RESOURCE, READ, "buffer: cannot be mapped; expected memory of the size of its caps");
    return GST_FLOW_ERROR;
}

// Controllers first: they set the properties that are read here. Returns the problem; empty: none.
std::string set_prompt(TcmoaFuse *self, GstClockTime stream_time) {
    State &state = state_of(self);
    if (GST_CLOCK_TIME_IS_VALID(stream_time)) gst_object_sync_values(GST_OBJECT(self), stream_time);
    const bool has_prompt = state.fuser.info().grid_width != 0;
    GST_OBJECT_LOCK(self);
    const bool has_scale = state.settings.scale.has_value(), has_shift = state.settings.shift.has_value();
    const double scale = state.settings.scale.value_or(static_cast<double>(state.fuser.info().default_scale));
    const double shift = state.settings.shift.value_or(static_cast<double>(state.fuser.info().default_shift));
    GST_OBJECT_UNLOCK(self);
    if (!has_prompt) {
        if (!has_scale && !has_shift) return "";
        return std::string(has_scale ? "prompt-scale" : "prompt-shift") +
               ": this network has no prompt; expected a bundle of `tcmoa export`. Leave it out.";
    }
    return state.fuser.set_prompt(scale, shift) == TCMOA_OK ? "" : state.fuser.error();
}

GstFlowReturn fuse(TcmoaFuse *self, const TimedFrame &x, const TimedFrame &y, GstBuffer *out) {
    State &state = state_of(self);
    if (const auto problem = find_pair_problem(self, x.info, y.info); !problem.empty()) {
        TCMOA_MESSAGE(ERROR, self, STREAM, FORMAT, problem);
        return GST_FLOW_ERROR;
    }
    MappedFrame mapped_x(x.info, x.buffer.get(), GST_MAP_READ), mapped_y(y.info, y.buffer.get(), GST_MAP_READ);
    MappedFrame fused(GST_VIDEO_AGGREGATOR(self)->info, out, GST_MAP_WRITE);
    if (!mapped_x || !mapped_y || !fused) return fail_mapping(self);
    const auto start = std::chrono::steady_clock::now();
    const int status = state.fuser.fuse(to_tcmoa_frame(*mapped_x.get()), to_tcmoa_frame(*mapped_y.get()),
                                        to_tcmoa_frame(*fused.get()));
    const auto elapsed = std::chrono::nanoseconds(std::chrono::steady_clock::now() - start);
    if (status != TCMOA_OK) {
        TCMOA_MESSAGE(ERROR, self, STREAM, FAILED, state.fuser.error());
        return GST_FLOW_ERROR;
    }
    if (state.latency.add(static_cast<std::uint64_t>(elapsed.count()))) report_latency(self);
    return GST_FLOW_OK;
}

GstFlowReturn pass(TcmoaFuse *self, const TimedFrame &frame, GstBuffer *out) {
    State &state = state_of(self);
    const GstVideoInfo &to = GST_VIDEO_AGGREGATOR(self)->info;
    if (state.converter == nullptr || !gst_video_info_is_equal(&state.converter_from, &frame.info) ||
        !gst_video_info_is_equal(&state.converter_to, &to)) {
        if (state.converter != nullptr) gst_video_converter_free(state.converter);
        state.converter = gst_video_converter_new(&frame.info, &to, nullptr);
        state.converter_from = frame.info;
        state.converter_to = to;
    }
    if (state.converter == nullptr) {
        TCMOA_MESSAGE(ERROR, self, STREAM, FORMAT, "frame: cannot be converted to the format of the output");
        return GST_FLOW_ERROR;
    }
    MappedFrame source(frame.info, frame.buffer.get(), GST_MAP_READ), result(to, out, GST_MAP_WRITE);
    if (!source || !result) return fail_mapping(self);
    gst_video_converter_frame(state.converter, source.get(), result.get());
    ++state.counters.passed;
    return GST_FLOW_OK;
}

}  // namespace

GstFlowReturn push_output(TcmoaFuse *self, const TimedFrame &lead, const FramePtr &x, const FramePtr &y) {
    GstAggregator *aggregator = GST_AGGREGATOR(self);
    GstVideoAggregator *video = GST_VIDEO_AGGREGATOR(self);
    GstSegment &segment = GST_AGGREGATOR_PAD(aggregator->srcpad)->segment;

    GST_OBJECT_LOCK(self);
    // The time of `lead` in the output's segment, which is that of x.
    const GstClockTime pts = &lead == x.get()
                                 ? lead.position
                                 : gst_segment_position_from_running_time(&segment, GST_FORMAT_TIME, lead.start);
    const GstClockTime stream_time = gst_segment_to_stream_time(&segment, GST_FORMAT_TIME, pts);
    GST_OBJECT_UNLOCK(self);
    if (!GST_CLOCK_TIME_IS_VALID(pts)) return GST_FLOW_OK;  // outside of the segment

    GstBuffer *out = nullptr;
    GstFlowReturn flow = GST_VIDEO_AGGREGATOR_GET_CLASS(self)->create_output_buffer(video, &out);
    if (flow != GST_FLOW_OK) return flow;
    BufferRef buffer(out);
    GST_BUFFER_PTS(out) = pts;
    GST_BUFFER_DURATION(out) = lead.duration;
    if (GST_BUFFER_FLAG_IS_SET(lead.buffer.get(), GST_BUFFER_FLAG_DISCONT))
        GST_BUFFER_FLAG_SET(out, GST_BUFFER_FLAG_DISCONT);

    State &state = state_of(self);
    state.x.select(x);
    state.y.select(y);
    gst_aggregator_selected_samples(aggregator, pts, GST_CLOCK_TIME_NONE, lead.duration, nullptr);
    state.x.select(nullptr);
    state.y.select(nullptr);
    if (const auto problem = set_prompt(self, stream_time); !problem.empty()) {
        TCMOA_MESSAGE(ERROR, self, LIBRARY, SETTINGS, problem);
        return GST_FLOW_ERROR;
    }
    flow = x && y ? fuse(self, *x, *y, out) : pass(self, x ? *x : *y, out);
    if (flow != GST_FLOW_OK) return flow;
    return gst_aggregator_finish_buffer(aggregator, buffer.release());
}

}  // namespace tcmoa::gst
