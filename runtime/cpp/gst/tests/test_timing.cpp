// Each frame of x gives one output frame with the same time; y is matched by time.
#include <catch2/catch.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>

#include "pipeline.hpp"

namespace {

struct Passed {
    GstClockTime pts, duration;
    Bytes bytes;
};

// Records the frames that pass a pad.
class Recorder {
public:
    Recorder(GstElement *element, const char *pad) {
        GstPad *found = gst_element_get_static_pad(element, pad);
        gst_pad_add_probe(
            found, GST_PAD_PROBE_TYPE_BUFFER,
            [](GstPad *, GstPadProbeInfo *info, gpointer self) {
                GstBuffer *buffer = GST_PAD_PROBE_INFO_BUFFER(info);
                static_cast<Recorder *>(self)->frames.push_back(
                    {GST_BUFFER_PTS(buffer), GST_BUFFER_DURATION(buffer), bytes_of(buffer)});
                return GST_PAD_PROBE_OK;
            },
            this, nullptr);
        gst_object_unref(found);
    }
    std::vector<Passed> frames;
};

// The index of the frame of y with which each result was fused, found by comparison with the library.
std::vector<int> partners(const std::vector<Sample> &samples, GstCaps *x_caps, const std::vector<int> &x_indices,
                          GstCaps *y_caps, int y_count) {
    const Caps rgb = caps_of("RGB");
    std::vector<int> found;
    REQUIRE(samples.size() == x_indices.size());
    for (std::size_t i = 0; i < samples.size(); ++i) {
        const Bytes result = bytes_of(gst_sample_get_buffer(samples[i].get()));
        const Buffer x = make_buffer(x_caps, static_cast<unsigned>(x_indices[i]));
        int best = -1;
        for (int j = 0; j < y_count; ++j) {
            const Buffer y = make_buffer(y_caps, 100 + static_cast<unsigned>(j));
            if (reference().fuse(x.get(), x_caps, y.get(), y_caps, rgb.get()) == result) {
                CHECK(best == -1);  // frames differ enough to distinguish them
                best = j;
            }
        }
        found.push_back(best);
    }
    return found;
}

std::vector<int> indices(int count, int first = 0) {
    std::vector<int> result;
    for (int i = first; i < first + count; ++i) result.push_back(i);
    return result;
}

}  // namespace

TEST_CASE("two sources of different framerates are fused to a file") {
    const std::string path = (std::filesystem::temp_directory_path() / "tcmoafuse-two-rates.rgb").string();
    std::filesystem::remove(path);
    {
        Pipeline run(
            "tcmoafuse name=f bundle=BUNDLE ! video/x-raw,format=RGB ! filesink name=file location=" + path +
            " videotestsrc num-buffers=24 pattern=smpte ! video/x-raw,format=RGB,framerate=24/1 ! f.sink_x"
            " videotestsrc num-buffers=9 pattern=ball ! video/x-raw,format=GRAY8,framerate=9/1 ! f.sink_y");
        Recorder x(run.fuser(), "sink_x"), y(run.fuser(), "sink_y"), file(run.element("file"), "sink");
        run.play();
        const Message end = run.wait_for_end();
        REQUIRE(GST_MESSAGE_TYPE(end.get()) == GST_MESSAGE_EOS);
        run.set_state(GST_STATE_NULL);
        CHECK(run.messages(GST_MESSAGE_WARNING).empty());

        REQUIRE(x.frames.size() == 24);
        REQUIRE(file.frames.size() == 24);
        const Caps rgb = caps_of("RGB", 24), gray = caps_of("GRAY8", 9);
        std::ifstream written(path, std::ios::binary);
        for (std::size_t i = 0; i < 24; ++i) {
            CHECK(file.frames[i].pts == time_of(static_cast<int>(i), 24));
            CHECK(file.frames[i].pts == x.frames[i].pts);
            CHECK(file.frames[i].duration == x.frames[i].duration);
            // The frame of y that covers most of [i/24, (i+1)/24) contains its middle.
            const std::size_t j = (2 * i + 1) * 9 / 48;
            Buffer in_x(gst_buffer_new_memdup(x.frames[i].bytes.data(), x.frames[i].bytes.size()));
            Buffer in_y(gst_buffer_new_memdup(y.frames[j].bytes.data(), y.frames[j].bytes.size()));
            const Bytes expected = reference().fuse(in_x.get(), rgb.get(), in_y.get(), gray.get(), rgb.get());
            CHECK(file.frames[i].bytes == expected);
            Bytes in_file(kRgbBytes);
            written.read(reinterpret_cast<char *>(in_file.data()), static_cast<std::streamsize>(in_file.size()));
            CHECK(in_file == expected);
        }
    }
    CHECK(std::filesystem::file_size(path) == 24 * kRgbBytes);
    std::filesystem::remove(path);
}

TEST_CASE("frames of a slower y are repeated, frames of a faster y are skipped") {
    const Caps x_caps = caps_of("RGB", 30);
    SECTION("y at half the rate") {
        const Caps y_caps = caps_of("RGB", 15);
        FedPipeline run;
        run.push_frames("x", x_caps.get(), 30, 6);
        run.push_frames("y", y_caps.get(), 15, 3);
        run.end("x");
        run.end("y");
        run.play();
        CHECK(partners(run.pull_all(), x_caps.get(), indices(6), y_caps.get(), 3) == std::vector{0, 0, 1, 1, 2, 2});
    }
    SECTION("y at twice the rate") {
        const Caps y_caps = caps_of("RGB", 60);
        FedPipeline run;
        run.push_frames("x", x_caps.get(), 30, 4);
        run.push_frames("y", y_caps.get(), 60, 8);
        run.end("x");
        run.end("y");
        run.play();
        CHECK(partners(run.pull_all(), x_caps.get(), indices(4), y_caps.get(), 8) == std::vector{0, 2, 4, 6});
    }
    SECTION("y slightly later than x at the same rate: the frame of the same index, not the one before") {
        const Caps y_caps = caps_of("RGB", 30);
        FedPipeline run;
        run.push_frames("x", x_caps.get(), 30, 4);
        run.set_caps("y", y_caps.get());
        for (int i = 0; i < 4; ++i)
            run.push("y", with_time(make_buffer(y_caps.get(), 100 + static_cast<unsigned>(i)),
                                time_of(i, 30) + 3 * GST_MSECOND, time_of(1, 30)));
        run.end("x");
        run.end("y");
        run.play();
        CHECK(partners(run.pull_all(), x_caps.get(), indices(4), y_caps.get(), 4) == std::vector{0, 1, 2, 3});
    }
}

TEST_CASE("irregular frames of x keep their timestamps and durations") {
    const Caps caps = caps_of("RGB", 0);
    FedPipeline run;
    run.set_caps("x", caps.get());
    const GstClockTime starts[] = {0, 50, 60, 200, 210};
    for (unsigned i = 0; i < 5; ++i)
        run.push("x", with_time(make_buffer(caps.get(), i), starts[i] * GST_MSECOND,
                            i == 2 ? GST_CLOCK_TIME_NONE : 10 * GST_MSECOND));
    run.push_frames("y", caps_of("RGB", 30).get(), 30, 8);
    run.end("x");
    run.end("y");
    run.play();
    const auto samples = run.pull_all();
    REQUIRE(samples.size() == 5);
    for (unsigned i = 0; i < 5; ++i) {
        GstBuffer *buffer = gst_sample_get_buffer(samples[i].get());
        CHECK(GST_BUFFER_PTS(buffer) == starts[i] * GST_MSECOND);
        CHECK(GST_BUFFER_DURATION(buffer) == (i == 2 ? GST_CLOCK_TIME_NONE : 10 * GST_MSECOND));
        CHECK(rate_of(gst_sample_get_caps(samples[i].get())) == 0);
    }
}

TEST_CASE("the output has the segment of x, and y is matched by running time") {
    const Caps caps = caps_of("RGB", 30);
    FedPipeline run;
    GstSegment segment;
    gst_segment_init(&segment, GST_FORMAT_TIME);
    segment.start = segment.time = 5 * GST_SECOND;  // as after a seek
    g_object_set(run.element("x"), "handle-segment-change", TRUE, nullptr);
    run.set_caps("x", caps.get());
    run.set_caps("y", caps.get());
    for (unsigned i = 0; i < 4; ++i) {
        const Buffer in = with_time(make_buffer(caps.get(), i), 5 * GST_SECOND + time_of(static_cast<int>(i), 30),
                                time_of(1, 30));
        const Sample sample(gst_sample_new(in.get(), caps.get(), &segment, nullptr));
        REQUIRE(gst_app_src_push_sample(GST_APP_SRC(run.element("x")), sample.get()) == GST_FLOW_OK);
    }
    run.push_frames("y", caps.get(), 30, 4);
    run.end("x");
    run.end("y");
    run.play();
    const auto samples = run.pull_all();
    REQUIRE(samples.size() == 4);
    for (std::size_t i = 0; i < 4; ++i) {
        CHECK(GST_BUFFER_PTS(gst_sample_get_buffer(samples[i].get())) ==
              5 * GST_SECOND + time_of(static_cast<int>(i), 30));
        CHECK(gst_sample_get_segment(samples[i].get())->start == 5 * GST_SECOND);
        CHECK(gst_sample_get_segment(samples[i].get())->time == 5 * GST_SECOND);
    }
    CHECK(partners(samples, caps.get(), indices(4), caps.get(), 4) == std::vector{0, 1, 2, 3});
}

TEST_CASE("a seek while playing restarts both sources") {
    Pipeline run(
        "tcmoafuse name=f bundle=BUNDLE ! video/x-raw,format=RGB ! fakesink name=out sync=false"
        " videotestsrc num-buffers=40 ! video/x-raw,format=RGB,framerate=30/1 ! f.sink_x"
        " videotestsrc num-buffers=40 pattern=ball ! video/x-raw,format=RGB,framerate=30/1 ! f.sink_y");
    REQUIRE(run.set_state(GST_STATE_PAUSED) == GST_STATE_CHANGE_SUCCESS);
    Recorder out(run.element("out"), "sink");
    const auto flags = static_cast<GstSeekFlags>(GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE);
    REQUIRE(gst_element_seek_simple(run.element("out"), GST_FORMAT_TIME, flags, GST_SECOND));
    run.play();
    const Message end = run.wait_for_end();
    REQUIRE(GST_MESSAGE_TYPE(end.get()) == GST_MESSAGE_EOS);
    run.set_state(GST_STATE_NULL);
    CHECK(run.messages(GST_MESSAGE_WARNING).empty());
    REQUIRE(!out.frames.empty());
    for (std::size_t i = 0; i < out.frames.size(); ++i)
        CHECK(out.frames[i].pts == time_of(30 + static_cast<int>(i), 30));
}

TEST_CASE("the duration is that of x") {
    Pipeline run(
        "tcmoafuse name=f bundle=BUNDLE ! fakesink name=out videotestsrc num-buffers=30 ! video/x-raw,framerate=30/1 !"
        " f.sink_x videotestsrc num-buffers=90 ! video/x-raw,framerate=30/1 ! f.sink_y");
    REQUIRE(run.set_state(GST_STATE_PAUSED) == GST_STATE_CHANGE_SUCCESS);
    gint64 duration = 0;
    REQUIRE(gst_element_query_duration(run.element("out"), GST_FORMAT_TIME, &duration));
    CHECK(duration == GST_SECOND);
}
