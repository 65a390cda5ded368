// The choice of the next output frame: x leads, y is matched by time, and the property `on-loss` decides what replaces
// a source that is lost.
#pragma once

#include "state.hpp"

namespace tcmoa::gst {

// Virtual function of GstAggregator.
GstFlowReturn aggregate(GstAggregator *aggregator, gboolean timeout);

}  // namespace tcmoa::gst
