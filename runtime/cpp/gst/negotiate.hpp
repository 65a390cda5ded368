// Negotiation of caps, and the latency that depends on them.
#pragma once

#include <string>

#include "state.hpp"

namespace tcmoa::gst {

// Virtual functions of GstAggregator.
GstFlowReturn update_src_caps(GstAggregator *aggregator, GstCaps *allowed, GstCaps **result);
gboolean negotiated_src_caps(GstAggregator *aggregator, GstCaps *caps);

// Use new caps of a sink pad; if the bundle cannot fuse such frames, post an error and return false.
bool accept_sink_caps(TcmoaFuse *self, PadQueue &queue, GstCaps *caps);

// The caps that a sink pad accepts, owned by the caller. `filter` may be NULL.
GstCaps *query_sink_caps(TcmoaFuse *self, GstPad *pad, GstCaps *filter);

// Why these two frames cannot be fused with each other, as a message; empty if they can.
std::string find_pair_problem(TcmoaFuse *self, const GstVideoInfo &x, const GstVideoInfo &y);

// Report the latency of the element: one frame of the slower source plus the time of fusing.
void report_latency(TcmoaFuse *self);

}  // namespace tcmoa::gst
