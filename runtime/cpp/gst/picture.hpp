// One frame of a source with the time that it covers.
#pragma once

#include <gst/video/video.h>

#include <memory>

namespace tcmoa::gst {

// A reference to a GstBuffer that is given back.
struct BufferUnref {
    void operator()(GstBuffer *buffer) const { gst_buffer_unref(buffer); }
};
using BufferRef = std::unique_ptr<GstBuffer, BufferUnref>;

struct Picture {
    BufferRef buffer;
    GstVideoInfo info;  // of the caps that held when it came: caps may change while it is kept
    GstClockTime start = 0;  // running time, clipped to the segment
    GstClockTime end = 0;    // always later than `start`
    GstClockTime position = 0;  // time in the segment, clipped to it
    GstClockTime duration = GST_CLOCK_TIME_NONE;  // as the buffer says, clipped; `end` holds where it says nothing
    bool gap = false;  // stands for "there is nothing in this time"; holds no pixels
};
using PicturePtr = std::shared_ptr<const Picture>;

// Nanoseconds that both cover.
GstClockTime overlap(const Picture &a, const Picture &b);

// Nanoseconds between the starts.
GstClockTime distance(const Picture &a, const Picture &b);

}  // namespace tcmoa::gst
