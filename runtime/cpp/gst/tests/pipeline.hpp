// A pipeline from two appsrc through the element to an appsink, and what is seen on its bus.
#pragma once

#include <gst/app/gstappsink.h>
#include <gst/app/gstappsrc.h>
#include <gst/gst.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "pictures.hpp"

// How long a test waits before it fails; no result depends on it.
constexpr GstClockTime kPatience = 20 * GST_SECOND;

class Pipeline {
   public:
    // As gst-launch-1.0 takes it, with an element `f`; BUNDLE stands for the bundle's folder.
    explicit Pipeline(std::string text);
    ~Pipeline();
    Pipeline(const Pipeline &) = delete;
    Pipeline &operator=(const Pipeline &) = delete;

    GstElement *element(const char *name) const;
    GstElement *fuse() const { return element("f"); }

    // To a state, and wait until it is reached.
    GstStateChangeReturn set_state(GstState state);
    void play() { gst_element_set_state(pipeline_, GST_STATE_PLAYING); }  // without waiting

    // Wait until the end, or an error; the message.
    Message finish();

    // Messages of a type that came so far, of any element.
    std::vector<GstMessage *> messages(GstMessageType type) const;

    // Wait for `count` messages of a type.
    void await(GstMessageType type, std::size_t count);

    std::uint64_t stat(const char *name) const;

   private:
    static GstBusSyncReply on_message(GstBus *bus, GstMessage *message, gpointer self);

    GstElement *pipeline_;
    mutable std::mutex lock_;
    std::condition_variable came_;
    std::vector<Message> seen_;
};

// The text of an error, warning or info message.
std::string text_of(GstMessage *message);

// Two appsrc `x` and `y`, an appsink `out`.
class Fed : public Pipeline {
   public:
    explicit Fed(const std::string &properties = "", const std::string &after = "");

    void set_caps(const char *source, GstCaps *caps);
    void push(const char *source, Buffer buffer);
    void end(const char *source);

    // `count` frames of the source from `first` on, with their index as seed (and 100 more for y).
    void push_frames(const char *source, GstCaps *caps, int rate, int count, int first = 0);

    Sample pull();         // NULL at the end
    std::vector<Sample> pull_all();  // up to the end
};
