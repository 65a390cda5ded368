// Output frames: fused, or one source's frame passed without fusing.
#pragma once

#include "state.hpp"

namespace tcmoa::gst {

// Push one frame with the time of `lead`. If `x` or `y` is NULL, the other one is passed without fusing.
GstFlowReturn push_output(TcmoaFuse *self, const TimedFrame &lead, const FramePtr &x, const FramePtr &y);

}  // namespace tcmoa::gst
