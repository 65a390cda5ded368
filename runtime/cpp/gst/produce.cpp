// One output frame: fused, or one source's frame alone.
#include <chrono>

#include "caps.hpp"
#include "element.hpp"

namespace tcmoa::gst {
namespace {

// A mapped frame that is unmapped in the end.
class Mapped {
   public:
    Mapped(const GstVideoInfo &info, GstBuffer *buffer, GstMapFlags flags)
        : mapped_(gst_video_frame_map(&frame_, &info, buffer, flags) != FALSE) {}
    ~Mapped() {
        if (mapped_) gst_video_frame_unmap(&frame_);
    }
    Mapped(const Mapped &) = delete;
    Mapped &operator=(const Mapped &) = delete;

    explicit operator bool() const { return mapped_; }
    GstVideoFrame *get() { return &frame_; }

   private:
    GstVideoFrame frame_ = {};
    bool mapped_;
};

GstFlowReturn cannot_map(TcmoaFuse *self) {
    GST_ELEMENT_ERROR(self, RESOURCE, READ, ("a buffer's memory cannot be mapped, or is smaller than its caps say"),
                      (nullptr));
    return GST_FLOW_ERROR;
}

// Controllers first, as they set the properties that are read then.
bool set_prompt(TcmoaFuse *self, GstClockTime stream_time) {
    State &state = state_of(self);
    if (GST_CLOCK_TIME_IS_VALID(stream_time)) gst_object_sync_values(GST_OBJECT(self), stream_time);
    GST_OBJECT_LOCK(self);
    const double scale = state.settings.scale.value_or(static_cast<double>(state.fuser.info().default_scale));
    const double shift = state.settings.shift.value_or(static_cast<double>(state.fuser.info().default_shift));
    GST_OBJECT_UNLOCK(self);
    return state.fuser.set_prompt(scale, shift) == TCMOA_OK;
}

GstFlowReturn fuse(TcmoaFuse *self, const Picture &x, const Picture &y, GstBuffer *out) {
    State &state = state_of(self);
    Mapped in_x(x.info, x.buffer.get(), GST_MAP_READ), in_y(y.info, y.buffer.get(), GST_MAP_READ);
    Mapped fused(GST_VIDEO_AGGREGATOR(self)->info, out, GST_MAP_WRITE);
    if (!in_x || !in_y || !fused) return cannot_map(self);
    const auto start = std::chrono::steady_clock::now();
    const int status = state.fuser.fuse(frame_of(*in_x.get()), frame_of(*in_y.get()), frame_of(*fused.get()));
    const auto spent = std::chrono::nanoseconds(std::chrono::steady_clock::now() - start);
    if (status != TCMOA_OK) {
        TCMOA_MESSAGE(ERROR, self, STREAM, FAILED, state.fuser.error());
        return GST_FLOW_ERROR;
    }
    if (state.meter.add(static_cast<std::uint64_t>(spent.count()))) report_latency(self);
    return GST_FLOW_OK;
}

GstFlowReturn pass(TcmoaFuse *self, const Picture &picture, GstBuffer *out) {
    State &state = state_of(self);
    const GstVideoInfo &to = GST_VIDEO_AGGREGATOR(self)->info;
    if (state.converter == nullptr || !gst_video_info_is_equal(&state.converter_from, &picture.info) ||
        !gst_video_info_is_equal(&state.converter_to, &to)) {
        if (state.converter != nullptr) gst_video_converter_free(state.converter);
        state.converter = gst_video_converter_new(&picture.info, &to, nullptr);
        state.converter_from = picture.info;
        state.converter_to = to;
    }
    if (state.converter == nullptr) {
        GST_ELEMENT_ERROR(self, STREAM, FORMAT, ("a frame that passes alone cannot be converted for downstream"),
                          (nullptr));
        return GST_FLOW_ERROR;
    }
    Mapped from(picture.info, picture.buffer.get(), GST_MAP_READ), result(to, out, GST_MAP_WRITE);
    if (!from || !result) return cannot_map(self);
    gst_video_converter_frame(state.converter, from.get(), result.get());
    ++state.counters.passed;
    return GST_FLOW_OK;
}

}  // namespace

GstFlowReturn produce(TcmoaFuse *self, const Picture &lead, const PicturePtr &x, const PicturePtr &y) {
    GstAggregator *aggregator = GST_AGGREGATOR(self);
    GstVideoAggregator *video = GST_VIDEO_AGGREGATOR(self);
    GstSegment &segment = GST_AGGREGATOR_PAD(aggregator->srcpad)->segment;

    GST_OBJECT_LOCK(self);
    // The lead's time in the output's segment, which is x's.
    const GstClockTime pts = &lead == x.get()
                                 ? lead.position
                                 : gst_segment_position_from_running_time(&segment, GST_FORMAT_TIME, lead.start);
    const GstClockTime stream_time = gst_segment_to_stream_time(&segment, GST_FORMAT_TIME, pts);
    GST_OBJECT_UNLOCK(self);
    if (!GST_CLOCK_TIME_IS_VALID(pts)) return GST_FLOW_OK;  // outside the segment: nothing is shown there

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
    if (!set_prompt(self, stream_time)) {
        TCMOA_MESSAGE(ERROR, self, LIBRARY, SETTINGS, state.fuser.error());
        return GST_FLOW_ERROR;
    }
    flow = x && y ? fuse(self, *x, *y, out) : pass(self, x ? *x : *y, out);
    if (flow != GST_FLOW_OK) return flow;
    return gst_aggregator_finish_buffer(aggregator, buffer.release());
}

}  // namespace tcmoa::gst
