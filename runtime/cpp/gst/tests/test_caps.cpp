// Formats of the pads, negotiation of caps, and caps that change while frames flow.
#include <catch2/catch.hpp>

#include "pipeline.hpp"

namespace {

const char *format_of(const Sample &sample) {
    return gst_structure_get_string(gst_caps_get_structure(gst_sample_get_caps(sample.get()), 0), "format");
}

// Fuse one pair with the element; the bundle remains open.
Sample fuse_pair(FedPipeline &run, GstCaps *x_caps, GstCaps *y_caps, int padding = 0) {
    run.play();
    run.set_caps("x", x_caps);
    run.set_caps("y", y_caps);
    run.push("x", with_time(make_buffer(x_caps, 1, padding), 0, time_of(1, 30)));
    run.push("y", with_time(make_buffer(y_caps, 101, padding), 0, time_of(1, 30)));
    Sample sample = run.pull();
    REQUIRE(sample);
    REQUIRE(run.set_state(GST_STATE_READY) == GST_STATE_CHANGE_SUCCESS);
    return sample;
}

// Fuse the same pair with the library. Results have GStreamer's default strides, which have no padding at 112 pixels.
Bytes fuse_reference(GstCaps *x_caps, GstCaps *y_caps, GstCaps *result) {
    const Buffer x = make_buffer(x_caps, 1), y = make_buffer(y_caps, 101);
    return reference().fuse(x.get(), x_caps, y.get(), y_caps, result);
}

}  // namespace

TEST_CASE("each pad accepts each format independently") {
    const char *const formats[] = {"RGB", "BGR", "NV12", "I420", "RGBA", "BGRA", "GRAY8", GST_VIDEO_NE(GRAY16)};
    FedPipeline run("", "capsfilter name=allowed !");
    run.play();
    for (int i = 0; i < 8; ++i) {
        const std::string allowed = formats[(i + 6) % 8];
        const Caps x = caps_of(formats[i]), y = caps_of(formats[(i + 3) % 8]), out = caps_of(allowed.c_str());
        CAPTURE(formats[i], formats[(i + 3) % 8], allowed);
        g_object_set(run.element("allowed"), "caps", out.get(), nullptr);
        for (const bool is_x : {true, false}) {
            const Caps &caps = is_x ? x : y;
            run.set_caps(is_x ? "x" : "y", caps.get());
            Buffer buffer = make_buffer(caps.get(), is_x ? 1 : 101);
            run.push(is_x ? "x" : "y", with_time(std::move(buffer), time_of(i, 30), time_of(1, 30)));
        }
        const Sample sample = run.pull();
        REQUIRE(sample);
        CHECK(format_of(sample) == allowed);
        CHECK(bytes_of(gst_sample_get_buffer(sample.get())) == fuse_reference(x.get(), y.get(), out.get()));
    }
}

TEST_CASE("padding of rows and planes is ignored") {
    FedPipeline run("", "video/x-raw,format=RGB !");
    const Caps rgb = caps_of("RGB");
    for (const char *format : {"RGB", "NV12", "I420", "GRAY8", GST_VIDEO_NE(GRAY16)}) {
        CAPTURE(format);
        const Caps caps = caps_of(format);
        const Sample sample = fuse_pair(run, caps.get(), caps.get(), 24);
        CHECK(bytes_of(gst_sample_get_buffer(sample.get())) == fuse_reference(caps.get(), caps.get(), rgb.get()));
    }
}

TEST_CASE("matrix and range of YUV frames are read from the caps and passed on") {
    FedPipeline run;
    const Caps y = caps_of("GRAY8");
    std::vector<Bytes> results;
    for (const char *colorimetry : {"bt601", "bt709", "1:4:0:0", "1:3:0:0"}) {  // the last two have full range
        CAPTURE(colorimetry);
        const Caps x = caps_of("NV12", 30, kSide, kSide, colorimetry);
        const Sample sample = fuse_pair(run, x.get(), y.get());
        CHECK(format_of(sample) == std::string("NV12"));
        GstVideoInfo info, expected;
        REQUIRE(gst_video_info_from_caps(&info, gst_sample_get_caps(sample.get())));
        REQUIRE(gst_video_info_from_caps(&expected, x.get()));
        CHECK(info.colorimetry.matrix == expected.colorimetry.matrix);
        CHECK(info.colorimetry.range == expected.colorimetry.range);
        results.push_back(bytes_of(gst_sample_get_buffer(sample.get())));
        CHECK(results.back() == fuse_reference(x.get(), y.get(), x.get()));
        for (std::size_t i = 0; i + 1 < results.size(); ++i) CHECK_FALSE(results[i] == results.back());
    }
}

TEST_CASE("downstream can request a matrix other than that of x") {
    FedPipeline run("", "video/x-raw,format=I420,colorimetry=bt709 !");
    const Caps x = caps_of("NV12", 30, kSide, kSide, "bt601"), y = caps_of("GRAY8");
    const Caps out = caps_of("I420", 30, kSide, kSide, "bt709");
    const Sample sample = fuse_pair(run, x.get(), y.get());
    CHECK(bytes_of(gst_sample_get_buffer(sample.get())) == fuse_reference(x.get(), y.get(), out.get()));
}

TEST_CASE("the result has the format of x if that has color, else RGB") {
    FedPipeline run("", "capsfilter name=allowed !");
    CHECK(format_of(fuse_pair(run, caps_of("BGR").get(), caps_of("GRAY8").get())) == std::string("BGR"));
    CHECK(format_of(fuse_pair(run, caps_of("GRAY8").get(), caps_of("BGR").get())) == std::string("RGB"));
    const Caps allowed(gst_caps_from_string("video/x-raw,format={NV12,RGB}"));
    g_object_set(run.element("allowed"), "caps", allowed.get(), nullptr);
    CHECK(format_of(fuse_pair(run, caps_of("BGRA").get(), caps_of("RGB").get())) == std::string("RGB"));
}

TEST_CASE("a frame that is passed without fusing is converted to the format of the output") {
    const Caps x = caps_of("GRAY8");
    FedPipeline run("on-loss=pass", "video/x-raw,format=RGB !");
    run.push_frames("x", x.get(), 30, 1);
    run.end("x");
    run.end("y");
    run.play();
    const auto samples = run.pull_all();
    REQUIRE(samples.size() == 1);
    const Bytes gray = bytes_of(make_buffer(x.get(), 0).get()), rgb = bytes_of(gst_sample_get_buffer(samples[0].get()));
    REQUIRE(rgb.size() == 3 * gray.size());
    int max = 0;
    for (std::size_t i = 0; i < rgb.size(); ++i) max = std::max(max, std::abs(int{rgb[i]} - int{gray[i / 3]}));
    CHECK(max == 0);
}

TEST_CASE("pads accept the frame size of the open bundle and the framerates of downstream") {
    Pipeline run("tcmoafuse name=f bundle=BUNDLE ! video/x-raw,framerate=[5/1,10/1] ! fakesink");
    GstPad *x = gst_element_get_static_pad(run.fuser(), "sink_x");
    GstPad *y = gst_element_get_static_pad(run.fuser(), "sink_y");
    const auto size_of = [](GstPad *pad) {
        const Caps caps(gst_pad_query_caps(pad, nullptr));
        std::vector<int> sizes;
        for (guint i = 0; i < gst_caps_get_size(caps.get()); ++i) {
            int width = 0, height = 0;
            gst_structure_get_int(gst_caps_get_structure(caps.get(), i), "width", &width);
            gst_structure_get_int(gst_caps_get_structure(caps.get(), i), "height", &height);
            sizes.insert(sizes.end(), {width, height});
        }
        return sizes;
    };
    CHECK(size_of(x) == std::vector{0, 0});  // a range
    REQUIRE(run.set_state(GST_STATE_READY) == GST_STATE_CHANGE_SUCCESS);
    CHECK(size_of(x) == std::vector{kSide, kSide});
    CHECK(size_of(y) == std::vector{kSide, kSide});
    CHECK(gst_pad_query_accept_caps(y, caps_of("GRAY8", 60).get()));
    const auto accepts = [](GstPad *pad, const Caps &caps) {
        const Caps all(gst_pad_query_caps(pad, nullptr));
        return gst_caps_can_intersect(all.get(), caps.get()) != FALSE;
    };
    CHECK(accepts(x, caps_of("RGB", 10)));
    CHECK_FALSE(accepts(x, caps_of("RGB", 30)));
    CHECK(accepts(y, caps_of("RGB", 30)));
    CHECK_FALSE(accepts(y, caps_of("RGB", 30, 64, 64)));
    gst_object_unref(x);
    gst_object_unref(y);
}

TEST_CASE("videoscale scales to the frame size of the bundle") {
    Pipeline run(
        "tcmoafuse name=f bundle=BUNDLE ! fakesink"
        " videotestsrc num-buffers=3 ! video/x-raw,width=320,height=240 ! videoscale ! f.sink_x"
        " videotestsrc num-buffers=3 ! video/x-raw,width=160,height=120,format=NV12 ! videoscale ! f.sink_y");
    run.play();
    CHECK(GST_MESSAGE_TYPE(run.wait_for_end().get()) == GST_MESSAGE_EOS);
    CHECK(run.stat("frames") == 3);
}

TEST_CASE("the sources can change their formats while frames flow") {
    const Caps rgb = caps_of("RGB"), nv12 = caps_of("NV12"), gray = caps_of("GRAY8");
    FedPipeline run;
    run.push_frames("x", rgb.get(), 30, 2);
    run.push_frames("x", nv12.get(), 30, 2, 2);
    run.push_frames("y", rgb.get(), 30, 3);
    run.push_frames("y", gray.get(), 30, 1, 3);
    run.end("x");
    run.end("y");
    run.play();
    const auto samples = run.pull_all();
    REQUIRE(samples.size() == 4);
    for (unsigned i = 0; i < 4; ++i) {
        const Caps &x_caps = i < 2 ? rgb : nv12, &y_caps = i < 3 ? rgb : gray;
        CHECK(format_of(samples[i]) == std::string("RGB"));  // the negotiated format is kept
        const Buffer x = make_buffer(x_caps.get(), i), y = make_buffer(y_caps.get(), 100 + i);
        CHECK(bytes_of(gst_sample_get_buffer(samples[i].get())) ==
              reference().fuse(x.get(), x_caps.get(), y.get(), y_caps.get(), rgb.get()));
    }
}

TEST_CASE("a held frame keeps its format") {
    const Caps rgb = caps_of("RGB"), gray = caps_of("GRAY8");
    FedPipeline run;
    run.push_frames("x", rgb.get(), 30, 8);
    run.push_frames("y", rgb.get(), 30, 1);
    run.push_frames("y", gray.get(), 30, 1, 20);  // new caps, much later
    run.end("x");
    run.end("y");
    run.play();
    const auto samples = run.pull_all();
    REQUIRE(samples.size() == 8);
    const Buffer x = make_buffer(rgb.get(), 7), y = make_buffer(rgb.get(), 100);
    CHECK(bytes_of(gst_sample_get_buffer(samples[7].get())) ==
          reference().fuse(x.get(), rgb.get(), y.get(), rgb.get(), rgb.get()));
}

TEST_CASE("when the framerate of x changes, the caps change and no frame is lost") {
    FedPipeline run;
    run.push_frames("x", caps_of("RGB", 30).get(), 30, 3);
    run.push_frames("x", caps_of("RGB", 10).get(), 10, 3, 1);
    run.push_frames("y", caps_of("RGB", 30).get(), 30, 12);
    run.end("x");
    run.end("y");
    run.play();
    const auto samples = run.pull_all();
    REQUIRE(samples.size() == 6);
    for (std::size_t i = 0; i < 6; ++i) {
        CHECK(rate_of(gst_sample_get_caps(samples[i].get())) == (i < 3 ? 30 : 10));
        CHECK(GST_BUFFER_PTS(gst_sample_get_buffer(samples[i].get())) ==
              (i < 3 ? time_of(static_cast<int>(i), 30) : time_of(static_cast<int>(i) - 2, 10)));
    }
}
