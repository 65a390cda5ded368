// Live sources with a test clock: deadlines, and sources that stop without EOS.
#include <gst/check/gstharness.h>

#include <catch2/catch.hpp>

#include "video_frames.hpp"

namespace {

class LivePipeline {
public:
    explicit LivePipeline(const char *policy, int rate = 30) : caps_(caps_of("RGB", rate)), rate_(rate) {
        GstElement *fuse = gst_element_factory_make("tcmoafuse", nullptr);
        REQUIRE(fuse != nullptr);
        gst_util_set_object_arg(G_OBJECT(fuse), "on-loss", policy);
        g_object_set(fuse, "bundle", bundle_folder().c_str(), nullptr);
        x_ = gst_harness_new_with_element(fuse, "sink_x", "src");
        y_ = gst_harness_new_with_element(fuse, "sink_y", nullptr);
        gst_harness_set_src_caps(x_, gst_caps_ref(caps_.get()));
        gst_harness_set_src_caps(y_, gst_caps_ref(caps_.get()));
        bus_ = gst_bus_new();
        gst_element_set_bus(fuse, bus_);
        gst_object_unref(fuse);
    }
    ~LivePipeline() {
        gst_element_set_bus(x_->element, nullptr);
        gst_object_unref(bus_);
        gst_harness_teardown(y_);
        gst_harness_teardown(x_);
    }
    LivePipeline(const LivePipeline &) = delete;
    LivePipeline &operator=(const LivePipeline &) = delete;

    GstHarness *x() { return x_; }
    GstHarness *y() { return y_; }

    void push_x(int index) { REQUIRE(gst_harness_push(x_, frame_of(index, 0).release()) == GST_FLOW_OK); }
    void push_y(int index) { REQUIRE(gst_harness_push(y_, frame_of(index, 100).release()) == GST_FLOW_OK); }

    // Advance the clock to the next deadline and, unless the stream `ends` there, wait until the element waits for the
    // following one.
    void crank(bool ends = false) {
        REQUIRE(gst_harness_wait_for_clock_id_waits(x_, 1, 20));
        REQUIRE(gst_harness_crank_single_clock_wait(x_));
        if (!ends) REQUIRE(gst_harness_wait_for_clock_id_waits(x_, 1, 20));
    }

    // The pixels of the next result, which must have the time of frame `index`.
    Bytes pull(int index) {
        const Buffer out(gst_harness_pull(x_));
        REQUIRE(out);
        CHECK(GST_BUFFER_PTS(out.get()) == time_of(index, rate_));
        return bytes_of(out.get());
    }

    // The expected result for the frames `x` and `y`; negative: the other one is passed without fusing.
    Bytes expected(int x, int y) {
        const Buffer in_x = make_buffer(caps_.get(), x < 0 ? 0 : static_cast<unsigned>(x));
        const Buffer in_y = make_buffer(caps_.get(), y < 0 ? 0 : 100 + static_cast<unsigned>(y));
        if (x < 0) return bytes_of(in_y.get());
        if (y < 0) return bytes_of(in_x.get());
        return reference().fuse(in_x.get(), caps_.get(), in_y.get(), caps_.get(), caps_.get());
    }

    // The warnings and infos so far, up to a semicolon.
    std::vector<std::string> notes() {
        std::vector<std::string> texts;
        while (GstMessage *next = gst_bus_pop_filtered(
                   bus_, static_cast<GstMessageType>(GST_MESSAGE_WARNING | GST_MESSAGE_INFO))) {
            const Message message(next);
            GError *error = nullptr;
            if (GST_MESSAGE_TYPE(next) == GST_MESSAGE_WARNING) gst_message_parse_warning(next, &error, nullptr);
            else gst_message_parse_info(next, &error, nullptr);
            const std::string text = error->message;
            texts.push_back(text.substr(0, text.find(';')));
            g_error_free(error);
        }
        return texts;
    }

    void wait_for_eos() {
        for (;;) {
            GstEvent *event = gst_harness_pull_event(x_);
            REQUIRE(event != nullptr);
            const bool end = GST_EVENT_TYPE(event) == GST_EVENT_EOS;
            gst_event_unref(event);
            if (end) return;
        }
    }

private:
    Buffer frame_of(int index, unsigned seed) {
        return make_frame(caps_.get(), seed + static_cast<unsigned>(index), index, rate_);
    }

    Caps caps_;
    int rate_;
    GstHarness *x_, *y_;
    GstBus *bus_;
};

using Notes = std::vector<std::string>;

}  // namespace

TEST_CASE("live: a frame with a partner does not wait for the clock") {
    LivePipeline live("hold");
    for (int i = 0; i < 5; ++i) {
        live.push_x(i);
        live.push_y(i);
        CHECK(live.pull(i) == live.expected(i, i));
    }
    CHECK(live.notes().empty());
}

TEST_CASE("live: y stops without EOS") {
    const std::string policy = GENERATE("hold", "pass", "stop");
    CAPTURE(policy);
    LivePipeline live(policy.c_str());
    for (int i = 0; i < 2; ++i) {
        live.push_x(i);
        live.push_y(i);
        live.pull(i);
    }
    for (int i = 2; i < 4; ++i) {  // late, but not lost yet
        live.push_x(i);
        live.crank();
        CHECK(live.pull(i) == live.expected(i, 1));
    }
    CHECK(live.notes().empty());
    live.push_x(4);
    live.crank(policy == "stop");
    if (policy == "stop") {
        live.wait_for_eos();
        CHECK(live.notes() == Notes{"sink_y: source lost"});
        return;
    }
    CHECK(live.pull(4) == live.expected(4, policy == "hold" ? 1 : -1));
    live.push_x(5);
    live.crank();
    CHECK(live.pull(5) == live.expected(5, policy == "hold" ? 1 : -1));
    CHECK(live.notes() == Notes{"sink_y: source lost"});  // once

    live.push_x(6);
    live.push_y(6);
    CHECK(live.pull(6) == live.expected(6, 6));
    CHECK(live.notes() == Notes{"sink_y: source recovered"});
}

TEST_CASE("live: x stops without EOS, and y leads until x recovers") {
    const std::string policy = GENERATE("hold", "pass", "stop");
    CAPTURE(policy);
    LivePipeline live(policy.c_str());
    for (int i = 0; i < 2; ++i) {
        live.push_x(i);
        live.push_y(i);
        live.pull(i);
    }
    live.push_y(2);
    live.crank();  // deadlines of frames 2 and 3: late, but not lost yet
    live.crank();
    CHECK(live.notes().empty());
    live.crank(policy == "stop");
    if (policy == "stop") {
        live.wait_for_eos();
        CHECK(live.notes() == Notes{"sink_x: source lost"});
        return;
    }
    CHECK(live.pull(2) == live.expected(policy == "hold" ? 1 : -1, 2));
    live.push_y(3);
    live.crank();
    CHECK(live.pull(3) == live.expected(policy == "hold" ? 1 : -1, 3));
    CHECK(live.notes() == Notes{"sink_x: source lost"});

    live.push_x(2);  // a frame of y was output in its place
    live.push_x(6);
    live.push_y(6);
    CHECK(live.pull(6) == live.expected(6, 6));
    CHECK(live.notes() == Notes{"sink_x: source recovered"});
}

TEST_CASE("live: x ends while y goes on") {
    LivePipeline live("hold");
    live.push_x(0);
    live.push_y(0);
    live.pull(0);
    REQUIRE(gst_harness_push_event(live.x(), gst_event_new_eos()));
    live.wait_for_eos();
}

TEST_CASE("live: y may start up to 5 seconds later than x without being lost") {
    const std::string policy = GENERATE("hold", "pass");
    LivePipeline live(policy.c_str(), 1);
    for (int i = 0; i < 6; ++i) {
        live.push_x(i);
        live.crank();
        if (policy == "pass" || i == 5) CHECK(live.pull(i) == live.expected(i, -1));
    }
    CHECK(live.notes() == Notes{"sink_y: source lost"});
    GstStructure *all = nullptr;
    g_object_get(live.x()->element, "stats", &all, nullptr);
    guint64 unpaired = 0;
    gst_structure_get_uint64(all, "unpaired", &unpaired);
    gst_structure_free(all);
    CHECK(unpaired == (policy == "pass" ? 0 : 5));
}

TEST_CASE("live: the latency is a frame of the slower source plus the time of fusing") {
    LivePipeline live("hold");
    live.push_x(0);
    live.push_y(0);
    live.pull(0);
    const GstClockTime first = gst_harness_query_latency(live.x());
    CHECK(first > time_of(1, 30));

    gst_harness_set_upstream_latency(live.x(), 100 * GST_MSECOND);
    CHECK(gst_harness_query_latency(live.x()) == first + 100 * GST_MSECOND);
    gst_harness_set_upstream_latency(live.x(), 0);

    // The latency changes with the framerate in the caps of y.
    gst_harness_set_src_caps(live.y(), caps_of("RGB", 10).release());
    REQUIRE(gst_harness_push(live.y(), make_frame(caps_of("RGB", 10).get(), 100, 1, 10).release()) == GST_FLOW_OK);
    live.push_x(1);
    live.pull(1);
    CHECK(gst_harness_query_latency(live.x()) == first + time_of(1, 10) - time_of(1, 30));
}

TEST_CASE("live: frames that are late by QoS are skipped") {
    LivePipeline live("hold");
    live.push_x(0);
    live.push_y(0);
    live.pull(0);
    REQUIRE(gst_harness_push_upstream_event(
        live.x(), gst_event_new_qos(GST_QOS_TYPE_UNDERFLOW, 1.5, 100 * GST_MSECOND, 0)));
    // Frames 1 and 2 start before 100 ms. A live source cannot catch up, so no more frames are skipped.
    for (int i = 1; i < 4; ++i) {
        live.push_x(i);
        live.push_y(i);
    }
    CHECK(live.pull(3) == live.expected(3, 3));
}
