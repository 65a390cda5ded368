// The element `tcmoafuse`: fuses the frames of two sources with a bundle.
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

GST_ELEMENT_REGISTER_DECLARE(tcmoafuse)

G_END_DECLS
