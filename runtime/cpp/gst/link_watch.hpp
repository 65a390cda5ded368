// Reports a sink pad that is not linked: the base class would wait for its frames for ever, without a message.
#pragma once

#include <gst/gst.h>

namespace tcmoa::gst {

// Looks at the sink pads twice a second until both were linked.
class LinkWatch {
public:
    LinkWatch() = default;
    ~LinkWatch() { stop(); }
    LinkWatch(const LinkWatch &) = delete;
    LinkWatch &operator=(const LinkWatch &) = delete;

    // Start to watch an element of this plugin. It posts an error when a pad was not linked for two seconds and no
    // element of the pipeline can still add the pad that would be linked to it, as decodebin does.
    void start(GstElement *element);
    void stop();

private:
    GstClockID timer_ = nullptr;
};

}  // namespace tcmoa::gst
