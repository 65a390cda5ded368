// Frames of one sink pad, see feed.hpp.
#include "feed.hpp"

namespace tcmoa::gst {
namespace {

constexpr GstClockTime kUnknownInterval = 40 * GST_MSECOND;

}  // namespace

GstClockTime overlap(const Picture &a, const Picture &b) {
    const GstClockTime from = MAX(a.start, b.start), to = MIN(a.end, b.end);
    return to > from ? to - from : 0;
}

GstClockTime distance(const Picture &a, const Picture &b) {
    return a.start > b.start ? a.start - b.start : b.start - a.start;
}

GstClockTime Feed::interval() const {
    GST_OBJECT_LOCK(pad_);
    const int n = pad()->info.fps_n, d = pad()->info.fps_d;
    GST_OBJECT_UNLOCK(pad_);
    if (n > 0 && d > 0) return gst_util_uint64_scale_int(GST_SECOND, d, n);
    const GstClockTime measured = measured_;
    return GST_CLOCK_TIME_IS_VALID(measured) ? measured : kUnknownInterval;
}

PicturePtr Feed::picture_of(GstBuffer *buffer) {
    auto picture = std::make_shared<Picture>();
    picture->buffer.reset(buffer);
    const GstClockTime pts = GST_BUFFER_PTS(buffer);
    untimed_ = !GST_CLOCK_TIME_IS_VALID(pts);
    if (untimed_) return nullptr;
    const GstClockTime stop = pts + (GST_BUFFER_DURATION_IS_VALID(buffer) && GST_BUFFER_DURATION(buffer) > 0
                                         ? GST_BUFFER_DURATION(buffer)
                                         : interval());
    GST_OBJECT_LOCK(pad_);
    const GstSegment segment = pad_->segment;
    picture->info = pad()->info;
    GST_OBJECT_UNLOCK(pad_);
    guint64 from = 0, to = 0;
    if (!gst_segment_clip(&segment, GST_FORMAT_TIME, pts, stop, &from, &to) || from == to) return nullptr;
    picture->position = from;
    if (GST_BUFFER_DURATION_IS_VALID(buffer)) picture->duration = to - from;
    // Backwards, a frame begins in running time where it ends in its stream.
    if (segment.rate < 0) std::swap(from, to);
    picture->start = gst_segment_to_running_time(&segment, GST_FORMAT_TIME, from);
    picture->end = gst_segment_to_running_time(&segment, GST_FORMAT_TIME, to);
    picture->gap = GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_GAP) && gst_buffer_get_size(buffer) == 0;
    return picture;
}

PicturePtr Feed::head() {
    if (flushed_.exchange(false)) forget();
    for (;;) {
        // Peeking each time makes sure that take() drops this very buffer, whatever is flushed in between.
        GstBuffer *buffer = gst_aggregator_pad_peek_buffer(pad_);
        if (head_ && head_->buffer.get() == buffer) {
            gst_buffer_unref(buffer);
            return head_;
        }
        head_ = buffer == nullptr ? nullptr : picture_of(buffer);
        if (head_ || buffer == nullptr || untimed_) return head_;
        gst_aggregator_pad_drop_buffer(pad_);
    }
}

void Feed::take() {
    gst_aggregator_pad_drop_buffer(pad_);
    if (head_ && !head_->gap) {
        if (last_ && head_->start > last_->start) measured_ = head_->start - last_->start;
        last_ = std::move(head_);
    }
    head_.reset();
}

void Feed::forget() {
    head_.reset();
    last_.reset();
    measured_ = GST_CLOCK_TIME_NONE;
    untimed_ = lost_ = false;
}

}  // namespace tcmoa::gst
