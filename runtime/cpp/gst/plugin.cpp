// The plugin `tcmoa`.
#include <gst/gst.h>
#include <tcmoa.h>

#include "gsttcmoafuse.h"

#ifndef PACKAGE
#define PACKAGE "tcmoa"
#endif

#define TCMOA_STRINGIZE_ARGUMENT(number) #number
#define TCMOA_STRINGIZE(number) TCMOA_STRINGIZE_ARGUMENT(number)
#define TCMOA_VERSION                        \
    TCMOA_STRINGIZE(TCMOA_VERSION_MAJOR)     \
    "." TCMOA_STRINGIZE(TCMOA_VERSION_MINOR) \
    "." TCMOA_STRINGIZE(TCMOA_VERSION_PATCH)

static gboolean plugin_init(GstPlugin *plugin) { return GST_ELEMENT_REGISTER(tcmoafuse, plugin); }

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, tcmoa, "TC-MoA image fusion", plugin_init, TCMOA_VERSION,
                  "Apache 2.0", "tcmoa", "https://arxiv.org/abs/2403.12494")
