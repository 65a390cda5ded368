// The types of the element `tcmoafuse` and of its sink pads.
#pragma once

#include <gst/video/gstvideoaggregator.h>

G_BEGIN_DECLS

#define TCMOA_TYPE_FUSE_PAD (tcmoa_fuse_pad_get_type())
G_DECLARE_FINAL_TYPE(TcmoaFusePad, tcmoa_fuse_pad, TCMOA, FUSE_PAD, GstVideoAggregatorPad)

#define TCMOA_TYPE_FUSE (tcmoa_fuse_get_type())
G_DECLARE_FINAL_TYPE(TcmoaFuse, tcmoa_fuse, TCMOA, FUSE, GstVideoAggregator)

G_END_DECLS
