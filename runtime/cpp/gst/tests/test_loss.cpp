// EOS of each source, gaps, and the values of on-loss, in pipelines that are not live.
#include <catch2/catch.hpp>

#include "pipeline.hpp"

namespace {

Bytes result_of(const Sample &sample) { return bytes_of(gst_sample_get_buffer(sample.get())); }

// The result for the frames with the indices `x` and `y`; negative y: x is passed without fusing.
Bytes expected(GstCaps *caps, unsigned x, int y) {
    const Buffer in_x = make_buffer(caps, x);
    if (y < 0) return bytes_of(in_x.get());
    const Buffer in_y = make_buffer(caps, 100 + static_cast<unsigned>(y));
    return reference().fuse(in_x.get(), caps, in_y.get(), caps, caps);
}

}  // namespace

TEST_CASE("EOS of x ends the output although y has more frames") {
    const Caps caps = caps_of("RGB");
    FedPipeline run;
    run.push_frames("x", caps.get(), 30, 3);
    run.push_frames("y", caps.get(), 30, 30);
    run.end("x");
    run.play();
    CHECK(run.pull_all().size() == 3);
    const Message end = run.wait_for_end();
    CHECK(GST_MESSAGE_TYPE(end.get()) == GST_MESSAGE_EOS);
    CHECK(run.messages(GST_MESSAGE_WARNING).empty());
}

TEST_CASE("after EOS of y the output depends on on-loss") {
    const Caps caps = caps_of("RGB");
    const std::string policy = GENERATE("hold", "pass", "stop");
    CAPTURE(policy);
    FedPipeline run("on-loss=" + policy);
    run.push_frames("x", caps.get(), 30, 12);
    run.push_frames("y", caps.get(), 30, 4);
    run.end("x");
    run.end("y");
    run.play();
    const auto samples = run.pull_all();
    const Message end = run.wait_for_end();
    CHECK(GST_MESSAGE_TYPE(end.get()) == GST_MESSAGE_EOS);

    // Frame 3 of y starts at 100 ms and is a partner within 70 ms (1.5 frames plus 20 ms): up to frame 5 of x, at 166
    // ms.
    REQUIRE(samples.size() == (policy == "stop" ? 6 : 12));
    for (unsigned i = 0; i < samples.size(); ++i) {
        const int y = i < 4 ? static_cast<int>(i) : i < 6 || policy == "hold" ? 3 : -1;
        CHECK(result_of(samples[i]) == expected(caps.get(), i, y));
        CHECK(GST_BUFFER_PTS(gst_sample_get_buffer(samples[i].get())) == time_of(static_cast<int>(i), 30));
    }
    const auto warnings = run.messages(GST_MESSAGE_WARNING);
    REQUIRE(warnings.size() == 1);
    const std::string action = policy == "hold"   ? "holding its last frame"
                             : policy == "pass" ? "passing the other source without fusing"
                                                : "ending the stream";
    CHECK(text_of(warnings[0]) == "sink_y: source lost; " + action);
    CHECK(run.stat("held") == (policy == "hold" ? 6 : 0));
    CHECK(run.stat("passed") == (policy == "pass" ? 6 : 0));
    CHECK(run.stat("frames") == (policy == "hold" ? 12 : 6));
}

TEST_CASE("a gap in y is reported as one loss and one recovery") {
    const Caps caps = caps_of("RGB");
    const bool has_gap_event = GENERATE(true, false);  // or only a gap between timestamps
    CAPTURE(has_gap_event);
    FedPipeline run("on-loss=pass");
    run.push_frames("x", caps.get(), 30, 20);
    run.push_frames("y", caps.get(), 30, 2);
    run.play();
    const Sample first = run.pull();  // now the pad of y has its segment
    REQUIRE(first);
    if (has_gap_event)
        REQUIRE(gst_element_send_event(run.element("y"),
                                       gst_event_new_gap(time_of(2, 30), time_of(15, 30) - time_of(2, 30))));
    run.push_frames("y", caps.get(), 30, 5, 15);
    run.end("x");
    run.end("y");
    const auto samples = run.pull_all();
    REQUIRE(samples.size() == 19);
    for (unsigned i = 1; i < 20; ++i) {
        // Up to 70 ms after the start of the gap there is a partner; also before its end, unless a gap event covers it.
        int y = static_cast<int>(i);
        if (i >= 2 && i < 15) y = i < 4 ? 1 : i < (has_gap_event ? 15 : 13) ? -1 : 15;
        CAPTURE(i);
        CHECK(result_of(samples[i - 1]) == expected(caps.get(), i, y));
    }
    const auto warnings = run.messages(GST_MESSAGE_WARNING), infos = run.messages(GST_MESSAGE_INFO);
    REQUIRE(warnings.size() == 1);
    REQUIRE(infos.size() == 1);
    CHECK(text_of(infos[0]) == "sink_y: source recovered");
    CHECK(run.stat("passed") == (has_gap_event ? 11 : 9));
}

TEST_CASE("y starts later than x") {
    const Caps caps = caps_of("RGB");
    const std::string policy = GENERATE("hold", "pass", "stop");
    CAPTURE(policy);
    FedPipeline run("on-loss=" + policy);
    run.push_frames("x", caps.get(), 30, 12);
    run.push_frames("y", caps.get(), 30, 4, 8);
    run.end("x");
    run.end("y");
    run.play();
    const auto samples = run.pull_all();
    // The first frame of y is near frame 6 and later ones. Before, there is none to hold; "stop" outputs no unfused
    // frames.
    REQUIRE(samples.size() == (policy == "stop" ? 6 : 12));
    CHECK(GST_BUFFER_PTS(gst_sample_get_buffer(samples[0].get())) == time_of(policy == "stop" ? 6 : 0, 30));
    CHECK(run.stat("passed") == (policy == "stop" ? 0 : 6));
    CHECK(run.stat("unpaired") == (policy == "stop" ? 6 : 0));
    CHECK(run.messages(GST_MESSAGE_WARNING).size() == (policy == "stop" ? 0 : 1));
}

TEST_CASE("EOS of y without a frame") {
    const Caps caps = caps_of("RGB");
    const std::string policy = GENERATE("hold", "stop");
    FedPipeline run("on-loss=" + policy);
    run.push_frames("x", caps.get(), 30, 3);
    run.end("x");
    run.end("y");
    run.play();
    CHECK(run.pull_all().size() == (policy == "stop" ? 0 : 3));
    CHECK(GST_MESSAGE_TYPE(run.wait_for_end().get()) == GST_MESSAGE_EOS);
}

TEST_CASE("EOS of x does not wait for y") {
    const Caps caps = caps_of("RGB");
    FedPipeline run;
    run.push_frames("x", caps.get(), 30, 2);
    run.push_frames("y", caps.get(), 30, 2);
    run.end("x");
    run.play();
    CHECK(run.pull_all().size() == 2);
    CHECK(run.messages(GST_MESSAGE_WARNING).empty());
}

TEST_CASE("EOS of x without a frame") {
    const Caps caps = caps_of("RGB");
    FedPipeline run;
    run.push_frames("y", caps.get(), 30, 3);
    run.end("x");
    run.play();
    CHECK(run.pull_all().empty());
    CHECK(GST_MESSAGE_TYPE(run.wait_for_end().get()) == GST_MESSAGE_EOS);
}
