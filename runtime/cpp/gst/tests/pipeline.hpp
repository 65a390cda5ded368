// Pipelines with the element, and the messages on their bus.
#pragma once

#include <gst/app/gstappsink.h>
#include <gst/app/gstappsrc.h>
#include <gst/gst.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "video_frames.hpp"

// Time after which a test fails; no result depends on it.
constexpr GstClockTime kTimeout = 20 * GST_SECOND;

class Pipeline {
public:
    // text: a pipeline in the syntax of gst-launch-1.0 with the element named `f`; BUNDLE is replaced by the bundle
    // folder.
    explicit Pipeline(std::string text);
    ~Pipeline();
    Pipeline(const Pipeline &) = delete;
    Pipeline &operator=(const Pipeline &) = delete;

    GstElement *element(const char *name) const;
    GstElement *fuser() const { return element("f"); }

    // Set a state and wait until it is reached.
    GstStateChangeReturn set_state(GstState state);
    void play() { gst_element_set_state(pipeline_, GST_STATE_PLAYING); }  // does not wait

    // Wait for EOS or an error; returns the message.
    Message wait_for_end();

    // Messages of a type so far, of any element.
    std::vector<GstMessage *> messages(GstMessageType type) const;

    // Wait for `count` messages of a type.
    void wait_for(GstMessageType type, std::size_t count);

    // A counter of the property `stats`.
    std::uint64_t stat(const char *name) const;

private:
    static GstBusSyncReply on_message(GstBus *bus, GstMessage *message, gpointer self);

    GstElement *pipeline_;
    mutable std::mutex lock_;
    std::condition_variable arrived_;
    std::vector<Message> seen_;
};

// The text of an error, warning or info message.
std::string text_of(GstMessage *message);

// A pipeline with two appsrc `x` and `y` and an appsink `out`.
class FedPipeline : public Pipeline {
public:
    explicit FedPipeline(const std::string &properties = "", const std::string &after = "");

    void set_caps(const char *source, GstCaps *caps);
    void push(const char *source, Buffer buffer);
    void end(const char *source);

    // Push `count` frames from index `first` on. The seed of a frame is its index, plus 100 for y.
    void push_frames(const char *source, GstCaps *caps, int rate, int count, int first = 0);

    Sample pull();                   // NULL at the end
    std::vector<Sample> pull_all();  // until the end
};
