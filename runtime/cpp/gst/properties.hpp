// The properties of the element.
#pragma once

#include "state.hpp"

namespace tcmoa::gst {

// Set the property functions of the class and install all properties.
void install_properties(GObjectClass *object_class);

// The type of the property `on-loss`.
GType on_loss_type();

}  // namespace tcmoa::gst
