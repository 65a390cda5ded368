// One frame of a source with the time that it covers.
#pragma once

#include <gst/video/video.h>

#include <memory>

namespace tcmoa::gst {

struct BufferUnref {
    void operator()(GstBuffer *buffer) const { gst_buffer_unref(buffer); }
};
using BufferRef = std::unique_ptr<GstBuffer, BufferUnref>;

struct TimedFrame {
    BufferRef buffer;
    GstVideoInfo info;          // of the caps when the frame arrived; caps may change while it is kept
    GstClockTime start = 0;     // running time, clipped to the segment
    GstClockTime end = 0;       // running time; always later than `start`
    GstClockTime position = 0;  // time in the segment, clipped to it
    GstClockTime duration = GST_CLOCK_TIME_NONE;  // of the buffer, clipped; if it has none, `end` is estimated
    bool is_gap = false;                          // a gap without pixels
};
using FramePtr = std::shared_ptr<const TimedFrame>;

// Nanoseconds that both frames cover.
GstClockTime overlap(const TimedFrame &a, const TimedFrame &b);

// Nanoseconds between the starts of the frames.
GstClockTime distance(const TimedFrame &a, const TimedFrame &b);

}  // namespace tcmoa::gst
