// Caps: which formats there are, what the pads accept, and GstVideoFrame as tcmoa_frame.
#pragma once

#include <gst/video/video.h>
#include <tcmoa.h>

#include <string>

namespace tcmoa::gst {

// Formats as they stand in a pad template.
#define TCMOA_GST_FORMATS "{ RGB, BGR, NV12, I420, RGBA, BGRA, GRAY8, " GST_VIDEO_NE(GRAY16) " }"

// Caps of a sink pad for frames of `width` x `height`; 0: of any size. `filter` may be NULL.
GstCaps *sink_caps(GstPad *pad, int width, int height, GstCaps *filter);

// Why the bundle cannot fuse frames like `info`, for the pad called `name`; empty if it can.
std::string refusal(const GstVideoInfo &info, const char *name, int width, int height);

// Caps of the result for frames of x like `x`, of those that downstream allows: `now`, the format that holds, if there
// is one; else x's if it is one with colour; else RGB, and others in the templates' order. Empty if none fits.
GstCaps *source_caps(const GstVideoInfo &x, GstVideoFormat now, GstCaps *allowed);

// The frame as the library takes it; pixels are not copied.
tcmoa_frame frame_of(const GstVideoFrame &frame);

}  // namespace tcmoa::gst
