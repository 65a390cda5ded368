// Formats and caps of the pads, and GstVideoFrame as tcmoa_frame.
#pragma once

#include <gst/video/video.h>
#include <tcmoa.h>

#include <string>

namespace tcmoa::gst {

// The formats of the pad templates.
#define TCMOA_GST_FORMATS "{ RGB, BGR, NV12, I420, RGBA, BGRA, GRAY8, " GST_VIDEO_NE(GRAY16) " }"

// The sizes of frames that a pad accepts.
struct Sizes {
    int width = 0, height = 0;  // the only one, or the largest; 0: any
    bool smaller = false;       // smaller ones, too
};

// Caps of a sink pad for frames of these sizes. `filter` may be NULL.
GstCaps *sink_caps(GstPad *pad, const Sizes &sizes, GstCaps *filter);

// Why frames with `info`, whose size is right, cannot be fused, as a message about the pad `name`; empty if they can.
std::string find_problem(const GstVideoInfo &info, const char *name);

// Caps of the result for frames of x with the caps `x`, one of those that downstream allows, in this order: the format
// `current` if one was negotiated, the format of x if it has color, RGB, the other formats of the template. Empty
// if none is allowed.
GstCaps *source_caps(const GstVideoInfo &x, GstVideoFormat current, GstCaps *allowed);

// Describe the frame for the library; pixels are not copied.
tcmoa_frame to_tcmoa_frame(const GstVideoFrame &frame);

}  // namespace tcmoa::gst
