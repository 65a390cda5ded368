// The properties of the element.
#pragma once

#include "state.hpp"

namespace tcmoa::gst {

// Set the property functions of the class and install all properties.
void install_properties(GObjectClass *object_class);

// The types of the properties `on-loss` and `fit`.
GType on_loss_type();
GType fit_type();

}  // namespace tcmoa::gst
