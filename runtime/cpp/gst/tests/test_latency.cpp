// QoS in pipelines that are not live, and the arithmetic of QoS and latency.
#include <catch2/catch.hpp>

#include "../latency.hpp"
#include "../qos.hpp"
#include "pipeline.hpp"

using tcmoa::gst::LatencyMeter;
using tcmoa::gst::QosState;

TEST_CASE("late frames are skipped, counted and reported") {
    const Caps caps = caps_of("RGB");
    FedPipeline run;
    run.play();
    run.push_frames("x", caps.get(), 30, 1);
    run.push_frames("y", caps.get(), 30, 1);
    REQUIRE(run.pull());
    REQUIRE(gst_element_send_event(run.element("out"),
                                   gst_event_new_qos(GST_QOS_TYPE_UNDERFLOW, 1.5, 100 * GST_MSECOND, 0)));
    run.push_frames("x", caps.get(), 30, 9, 1);
    run.push_frames("y", caps.get(), 30, 9, 1);
    run.end("x");
    run.end("y");
    // Twice the delay plus one frame is 233.3 ms, the start of frame 7.
    const auto samples = run.pull_all();
    REQUIRE(samples.size() == 3);
    for (int i = 0; i < 3; ++i)
        CHECK(GST_BUFFER_PTS(gst_sample_get_buffer(samples[static_cast<std::size_t>(i)].get())) == time_of(7 + i, 30));
    CHECK(run.stat("dropped") == 6);
    CHECK(run.stat("frames") == 4);

    const auto messages = run.messages(GST_MESSAGE_QOS);
    REQUIRE(messages.size() == 6);
    for (unsigned i = 0; i < 6; ++i) {
        gboolean live = TRUE;
        guint64 running = 0, stream = 0, timestamp = 0, duration = 0, processed = 0, dropped = 0;
        gint64 jitter = 0;
        double proportion = 0;
        GstFormat format = GST_FORMAT_UNDEFINED;
        gst_message_parse_qos(messages[i], &live, &running, &stream, &timestamp, &duration);
        gst_message_parse_qos_values(messages[i], &jitter, &proportion, nullptr);
        gst_message_parse_qos_stats(messages[i], &format, &processed, &dropped);
        const GstClockTime at = time_of(static_cast<int>(i) + 1, 30);
        CHECK(std::string(GST_OBJECT_NAME(GST_MESSAGE_SRC(messages[i]))) == "f");
        CHECK(live == FALSE);
        CHECK(running == at);
        CHECK(stream == at);
        CHECK(timestamp == at);
        CHECK(duration == time_of(static_cast<int>(i) + 2, 30) - at);
        CHECK(jitter == static_cast<gint64>(200 * GST_MSECOND + time_of(1, 30) - at));
        CHECK(proportion == 1.5);
        CHECK(format == GST_FORMAT_BUFFERS);
        CHECK(processed == 1);
        CHECK(dropped == i + 1);
    }
}

TEST_CASE("a frame of y that was skipped can still be held") {
    const Caps caps = caps_of("RGB");
    FedPipeline run;
    run.play();
    run.push_frames("x", caps.get(), 30, 1);
    run.push_frames("y", caps.get(), 30, 1);
    REQUIRE(run.pull());
    REQUIRE(gst_element_send_event(run.element("out"),
                                   gst_event_new_qos(GST_QOS_TYPE_UNDERFLOW, 1, 50 * GST_MSECOND, 0)));
    run.push_frames("x", caps.get(), 30, 9, 1);
    run.push_frames("y", caps.get(), 30, 2, 1);  // both while x is skipped
    run.end("x");
    run.end("y");
    const auto samples = run.pull_all();
    REQUIRE(samples.size() == 6);
    CHECK(run.stat("dropped") == 3);
    const Buffer x = make_buffer(caps.get(), 9), y = make_buffer(caps.get(), 102);
    CHECK(bytes_of(gst_sample_get_buffer(samples[5].get())) ==
          reference().fuse(x.get(), caps.get(), y.get(), caps.get(), caps.get()));
}

TEST_CASE("QoS: early frames reduce the lateness, and a reset clears it") {
    QosState qos;
    CHECK(qos.lateness(0) == 0);
    qos.update(1, 10, 1000, true, 30);
    CHECK(qos.lateness(1005) == 5);
    CHECK(qos.lateness(1010) == 0);
    qos.update(1, 10, 1000, false, 30);
    CHECK(qos.lateness(1049) == 1);
    qos.update(1, -400, 1000, false, 30);
    CHECK(qos.lateness(600) == 0);
    CHECK(qos.lateness(599) == 1);
    qos.update(1, -4000, 1000, false, 30);
    CHECK(qos.lateness(0) == 0);
    qos.update(1, 10, GST_CLOCK_TIME_NONE, false, 30);
    CHECK(qos.lateness(0) == 0);
    qos.update(1, 10, 1000, true, 30);
    qos.reset();
    CHECK(qos.lateness(0) == 0);
}

TEST_CASE("latency: the median of 31 frames must grow by more than 25 % and 1 ms") {
    LatencyMeter meter;
    meter.start(10'000'000);
    CHECK(meter.reported() == 10'000'000);
    for (int i = 0; i < 30; ++i) CHECK_FALSE(meter.add(20'000'000));  // fewer than 31 frames
    CHECK(meter.add(20'000'000));
    CHECK(meter.reported() == 20'000'000);
    for (int i = 0; i < 100; ++i) CHECK_FALSE(meter.add(26'000'000));  // 25 % and 1 ms
    for (int i = 0; i < 15; ++i) CHECK_FALSE(meter.add(90'000'000));   // not the median yet
    CHECK(meter.add(90'000'000));
    CHECK(meter.reported() == 90'000'000);
    for (int i = 0; i < 100; ++i) CHECK_FALSE(meter.add(1'000'000));  // it never shrinks
    CHECK(meter.reported() == 90'000'000);
    meter.start(5'000'000);
    CHECK(meter.reported() == 5'000'000);
    CHECK_FALSE(meter.add(90'000'000));
}
