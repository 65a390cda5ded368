// The end of each source, gaps, and the on-loss policies, in pipelines that wait for every frame.
#include <catch2/catch.hpp>

#include "pipeline.hpp"

namespace {

Bytes result_of(const Sample &sample) { return bytes_of(gst_sample_get_buffer(sample.get())); }

// y's frame has the seed `y`; below 0 x passes alone.
Bytes wanted(GstCaps *caps, unsigned x, int y) {
    const Buffer in_x = picture(caps, x);
    if (y < 0) return bytes_of(in_x.get());
    const Buffer in_y = picture(caps, 100 + static_cast<unsigned>(y));
    return reference().fuse(in_x.get(), caps, in_y.get(), caps, caps);
}

}  // namespace

TEST_CASE("the end of x ends the output, whatever is left of y") {
    const Caps caps = caps_of("RGB");
    Fed run;
    run.push_frames("x", caps.get(), 30, 3);
    run.push_frames("y", caps.get(), 30, 30);
    run.end("x");
    run.play();
    CHECK(run.pull_all().size() == 3);
    const Message end = run.finish();
    CHECK(GST_MESSAGE_TYPE(end.get()) == GST_MESSAGE_EOS);
    CHECK(run.messages(GST_MESSAGE_WARNING).empty());
}

TEST_CASE("y ends: the policy decides") {
    const Caps caps = caps_of("RGB");
    const std::string policy = GENERATE("hold", "pass", "stop");
    CAPTURE(policy);
    Fed run("on-loss=" + policy);
    run.push_frames("x", caps.get(), 30, 12);
    run.push_frames("y", caps.get(), 30, 4);
    run.end("x");
    run.end("y");
    run.play();
    const auto samples = run.pull_all();
    const Message end = run.finish();
    CHECK(GST_MESSAGE_TYPE(end.get()) == GST_MESSAGE_EOS);

    // Frame 3 of y begins at 100 ms and is a partner within 1.5 frames and 20 ms, 70 ms: up to frame 5 of x, at 166 ms.
    REQUIRE(samples.size() == (policy == "stop" ? 6 : 12));
    for (unsigned i = 0; i < samples.size(); ++i) {
        const int y = i < 4 ? static_cast<int>(i) : i < 6 || policy == "hold" ? 3 : -1;
        CHECK(result_of(samples[i]) == wanted(caps.get(), i, y));
        CHECK(GST_BUFFER_PTS(gst_sample_get_buffer(samples[i].get())) == time_of(static_cast<int>(i), 30));
    }
    const auto warnings = run.messages(GST_MESSAGE_WARNING);
    REQUIRE(warnings.size() == 1);
    const std::string then = policy == "hold"   ? "its last frame is held"
                             : policy == "pass" ? "the other source passes alone"
                                                : "the stream ends";
    CHECK(text_of(warnings[0]) == "sink_y is lost: " + then);
    CHECK(run.stat("held") == (policy == "hold" ? 6 : 0));
    CHECK(run.stat("passed") == (policy == "pass" ? 6 : 0));
    CHECK(run.stat("frames") == (policy == "hold" ? 12 : 6));
}

TEST_CASE("y has a hole: lost once, and back") {
    const Caps caps = caps_of("RGB");
    const bool says_so = GENERATE(true, false);  // by a gap event, or only by time stamps
    CAPTURE(says_so);
    Fed run("on-loss=pass");
    run.push_frames("x", caps.get(), 30, 20);
    run.push_frames("y", caps.get(), 30, 2);
    run.play();
    const Sample first = run.pull();  // y's pad has its segment now
    REQUIRE(first);
    if (says_so)
        REQUIRE(gst_element_send_event(run.element("y"),
                                       gst_event_new_gap(time_of(2, 30), time_of(15, 30) - time_of(2, 30))));
    run.push_frames("y", caps.get(), 30, 5, 15);
    run.end("x");
    run.end("y");
    const auto samples = run.pull_all();
    REQUIRE(samples.size() == 19);
    for (unsigned i = 1; i < 20; ++i) {
        // 70 ms after the hole begins there is still a partner, and so before it ends, unless a gap event covers it.
        int y = static_cast<int>(i);
        if (i >= 2 && i < 15) y = i < 4 ? 1 : i < (says_so ? 15 : 13) ? -1 : 15;
        CAPTURE(i);
        CHECK(result_of(samples[i - 1]) == wanted(caps.get(), i, y));
    }
    const auto warnings = run.messages(GST_MESSAGE_WARNING), infos = run.messages(GST_MESSAGE_INFO);
    REQUIRE(warnings.size() == 1);
    REQUIRE(infos.size() == 1);
    CHECK(text_of(infos[0]) == "sink_y is back");
    CHECK(run.stat("passed") == (says_so ? 11 : 9));
}

TEST_CASE("y begins later than x") {
    const Caps caps = caps_of("RGB");
    const std::string policy = GENERATE("hold", "pass", "stop");
    CAPTURE(policy);
    Fed run("on-loss=" + policy);
    run.push_frames("x", caps.get(), 30, 12);
    run.push_frames("y", caps.get(), 30, 4, 8);
    run.end("x");
    run.end("y");
    run.play();
    const auto samples = run.pull_all();
    // From frame 6 on, y's first frame is near. Before, there is none to hold; with "stop" nothing comes unfused.
    REQUIRE(samples.size() == (policy == "stop" ? 6 : 12));
    CHECK(GST_BUFFER_PTS(gst_sample_get_buffer(samples[0].get())) == time_of(policy == "stop" ? 6 : 0, 30));
    CHECK(run.stat("passed") == (policy == "stop" ? 0 : 6));
    CHECK(run.stat("unpaired") == (policy == "stop" ? 6 : 0));
    CHECK(run.messages(GST_MESSAGE_WARNING).size() == (policy == "stop" ? 0 : 1));
}

TEST_CASE("y ends without a frame") {
    const Caps caps = caps_of("RGB");
    const std::string policy = GENERATE("hold", "stop");
    Fed run("on-loss=" + policy);
    run.push_frames("x", caps.get(), 30, 3);
    run.end("x");
    run.end("y");
    run.play();
    CHECK(run.pull_all().size() == (policy == "stop" ? 0 : 3));
    CHECK(GST_MESSAGE_TYPE(run.finish().get()) == GST_MESSAGE_EOS);
}

TEST_CASE("the end of x is not kept waiting by a y that says nothing") {
    const Caps caps = caps_of("RGB");
    Fed run;
    run.push_frames("x", caps.get(), 30, 2);
    run.push_frames("y", caps.get(), 30, 2);
    run.end("x");
    run.play();
    CHECK(run.pull_all().size() == 2);
    CHECK(run.messages(GST_MESSAGE_WARNING).empty());
}

TEST_CASE("x ends without a frame") {
    const Caps caps = caps_of("RGB");
    Fed run;
    run.push_frames("y", caps.get(), 30, 3);
    run.end("x");
    run.play();
    CHECK(run.pull_all().empty());
    CHECK(GST_MESSAGE_TYPE(run.finish().get()) == GST_MESSAGE_EOS);
}
