// Opens and closes the bundle with the element's states.
#pragma once

#include "state.hpp"

namespace tcmoa::gst {

// Change the element's state as requested. Posts an error if the bundle cannot be opened.
GstStateChangeReturn change_state(GstElement *element, GstStateChange transition);

// The value of the property `stats`; owned by the caller.
GstStructure *get_stats(TcmoaFuse *self);

}  // namespace tcmoa::gst
