#include "pad_queue.hpp"

namespace tcmoa::gst {
namespace {

constexpr GstClockTime kDefaultInterval = 40 * GST_MSECOND;  // 25 frames/s

}  // namespace

GstClockTime PadQueue::interval() const {
    GST_OBJECT_LOCK(pad_);
    const int n = pad()->info.fps_n, d = pad()->info.fps_d;
    GST_OBJECT_UNLOCK(pad_);
    if (n > 0 && d > 0) return gst_util_uint64_scale_int(GST_SECOND, d, n);
    const GstClockTime measured = measured_interval_;
    return GST_CLOCK_TIME_IS_VALID(measured) ? measured : kDefaultInterval;
}

FramePtr PadQueue::to_frame(GstBuffer *buffer) {
    auto frame = std::make_shared<TimedFrame>();
    frame->buffer.reset(buffer);
    const GstClockTime pts = GST_BUFFER_PTS(buffer);
    lacks_timestamps_ = !GST_CLOCK_TIME_IS_VALID(pts);
    if (lacks_timestamps_) return nullptr;
    const bool has_duration = GST_BUFFER_DURATION_IS_VALID(buffer);
    const GstClockTime stop =
        pts + (has_duration && GST_BUFFER_DURATION(buffer) > 0 ? GST_BUFFER_DURATION(buffer) : interval());
    GST_OBJECT_LOCK(pad_);
    const GstSegment segment = pad_->segment;
    frame->info = pad()->info;
    GST_OBJECT_UNLOCK(pad_);
    guint64 from = 0, to = 0;
    if (!gst_segment_clip(&segment, GST_FORMAT_TIME, pts, stop, &from, &to) || from == to) return nullptr;
    frame->position = from;
    if (has_duration) frame->duration = to - from;
    // In reverse playback a frame starts in running time where it ends in its segment.
    if (segment.rate < 0) std::swap(from, to);
    frame->start = gst_segment_to_running_time(&segment, GST_FORMAT_TIME, from);
    frame->end = gst_segment_to_running_time(&segment, GST_FORMAT_TIME, to);
    frame->is_gap = GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_GAP) && gst_buffer_get_size(buffer) == 0;
    return frame;
}

FramePtr PadQueue::peek() {
    if (flushed_.exchange(false)) reset();
    for (;;) {
        // Peek each time, so that pop() drops this very buffer even after a flush by another thread.
        GstBuffer *buffer = gst_aggregator_pad_peek_buffer(pad_);
        if (first_ && first_->buffer.get() == buffer) {
            gst_buffer_unref(buffer);
            return first_;
        }
        first_ = buffer == nullptr ? nullptr : to_frame(buffer);
        if (first_ || buffer == nullptr || lacks_timestamps_) return first_;
        gst_aggregator_pad_drop_buffer(pad_);
    }
}

void PadQueue::pop() {
    gst_aggregator_pad_drop_buffer(pad_);
    if (first_ && !first_->is_gap) {
        if (last_ && first_->start > last_->start) measured_interval_ = first_->start - last_->start;
        last_ = std::move(first_);
    }
    first_.reset();
}

void PadQueue::reset() {
    first_.reset();
    last_.reset();
    measured_interval_ = GST_CLOCK_TIME_NONE;
    lacks_timestamps_ = lost_ = false;
}

}  // namespace tcmoa::gst
