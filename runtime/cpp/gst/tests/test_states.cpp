// Repeated state changes, leaks, and the output of gst-inspect-1.0.
#include <catch2/catch.hpp>
#include <atomic>
#include <cstdio>

#include "pipeline.hpp"

namespace {

std::atomic<int> live_buffers = 0;

// Count a buffer until it is freed.
Buffer counted(Buffer buffer) {
    ++live_buffers;
    gst_mini_object_weak_ref(GST_MINI_OBJECT(buffer.get()), [](gpointer, GstMiniObject *) { --live_buffers; }, nullptr);
    return buffer;
}

std::string output_of(const char *command) {
    std::string text;
    FILE *pipe = popen(command, "r");
    REQUIRE(pipe != nullptr);
    char part[4096];
    while (const std::size_t got = std::fread(part, 1, sizeof part, pipe)) text.append(part, got);
    REQUIRE(pclose(pipe) == 0);
    return text;
}

}  // namespace

TEST_CASE("repeated playing and stopping leaks no frame") {
    const Caps caps = caps_of("RGB");
    bool freed = false;
    {
        FedPipeline run;
        g_object_weak_ref(
            G_OBJECT(run.fuser()), [](gpointer flag, GObject *) { *static_cast<bool *>(flag) = true; }, &freed);
        for (int round = 0; round < 4; ++round) {
            CAPTURE(round);
            run.play();
            run.set_caps("x", caps.get());
            run.set_caps("y", caps.get());
            for (int i = 0; i < 6; ++i) {
                run.push("x", counted(make_frame(caps.get(), static_cast<unsigned>(i), i, 30)));
                if (i < 4) run.push("y", counted(make_frame(caps.get(), 100 + static_cast<unsigned>(i), i, 30)));
            }
            for (int i = 0; i < 4; ++i) {  // the others remain in the queues
                const Sample sample = run.pull();
                REQUIRE(sample);
                CHECK(GST_BUFFER_PTS(gst_sample_get_buffer(sample.get())) == time_of(i, 30));
            }
            const GstState stopped = round % 2 == 0 ? GST_STATE_NULL : GST_STATE_READY;
            REQUIRE(run.set_state(stopped) == GST_STATE_CHANGE_SUCCESS);
            CHECK(live_buffers == 0);
        }
        CHECK(run.messages(GST_MESSAGE_ERROR).empty());
        CHECK(run.messages(GST_MESSAGE_WARNING).empty());
    }
    CHECK(freed);
    CHECK(live_buffers == 0);
}

TEST_CASE("the element can be stopped while it fuses frames and while it waits for one") {
    const bool starves = GENERATE(false, true);  // y sends one frame and no EOS
    const std::string y = starves ? "appsrc name=y format=time" : "videotestsrc";
    Pipeline run(
        "tcmoafuse name=f bundle=BUNDLE ! fakesink sync=false"
        " videotestsrc ! video/x-raw,format=RGB,framerate=30/1 ! f.sink_x " + y + " ! f.sink_y");
    const Caps caps = caps_of("RGB");
    for (int round = 0; round < 8; ++round) {
        run.play();
        if (starves) {
            gst_app_src_set_caps(GST_APP_SRC(run.element("y")), caps.get());
            gst_app_src_push_buffer(GST_APP_SRC(run.element("y")), make_frame(caps.get(), 100, 0, 30).release());
        }
        if (round % 2 == 1) run.set_state(GST_STATE_PLAYING);  // waits for the first output frame
        CHECK(run.set_state(GST_STATE_READY) == GST_STATE_CHANGE_SUCCESS);
        CHECK(run.messages(GST_MESSAGE_ERROR).empty());
    }
}

TEST_CASE("stats are kept after the bundle is closed and reset when it is opened again") {
    const Caps caps = caps_of("RGB");
    FedPipeline run;
    CHECK(run.stat("frames") == 0);
    run.play();
    run.push_frames("x", caps.get(), 30, 3);
    run.push_frames("y", caps.get(), 30, 3);
    run.end("x");
    CHECK(run.pull_all().size() == 3);
    CHECK(run.stat("frames") == 3);
    CHECK(run.stat("backend-ns") > 0);
    CHECK(run.stat("convert-ns") > 0);
    CHECK(run.stat("failed") == 0);
    run.set_state(GST_STATE_NULL);
    CHECK(run.stat("frames") == 3);
    run.set_state(GST_STATE_READY);
    CHECK(run.stat("frames") == 0);
}

TEST_CASE("gst-inspect-1.0 prints the description of the element") {
    const std::string text = output_of("gst-inspect-1.0 --no-colors tcmoafuse");
    for (const char *part :
         {"TC-MoA image fusion", "Filter/Effect/Video", "Apache 2.0", "GstVideoAggregator", "SINK template: 'sink_x'",
          "SINK template: 'sink_y'", "SRC template: 'src'", "bundle              :", "backend             :",
          "threads             :", "prompt-scale        :", "prompt-shift        :", "on-loss             :",
          "stats               :", "hold             -", "pass             -", "stop             -"})
        CHECK_THAT(text, Catch::Contains(part));
    const std::string blacklist = output_of("gst-inspect-1.0 -b");
    CHECK(blacklist.find("libgsttcmoa") == std::string::npos);
}
