// Formats and caps of the pads, and GstVideoFrame as tcmoa_frame.
#pragma once

#include <gst/video/video.h>
#include <tcmoa.h>

#include <string>

namespace tcmoa::gst {

// The formats of the pad templates.
#define TCMOA_GST_FORMATS "{ RGB, BGR, NV12, I420, RGBA, BGRA, GRAY8, " GST_VIDEO_NE(GRAY16) " }"

// Caps of a sink pad for frames of `width` x `height`; 0: of any size. `filter` may be NULL.
GstCaps *sink_caps(GstPad *pad, int width, int height, GstCaps *filter);

// Why a bundle for `width` x `height` cannot fuse frames with `info`, as a message about the pad `name`; empty if it
// can.
std::string find_problem(const GstVideoInfo &info, const char *name, int width, int height);

// Caps of the result for frames of x with the caps `x`, one of those that downstream allows, in this order: the format
// `current` if one was negotiated, the format of x if it has color, RGB, the other formats of the template. Empty
// if none is allowed.
GstCaps *source_caps(const GstVideoInfo &x, GstVideoFormat current, GstCaps *allowed);

// Describe the frame for the library; pixels are not copied.
tcmoa_frame to_tcmoa_frame(const GstVideoFrame &frame);

}  // namespace tcmoa::gst
