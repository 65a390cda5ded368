// Formats of each pad, what the pads ask for, and caps that change while frames flow.
#include <catch2/catch.hpp>

#include "pipeline.hpp"

namespace {

const char *format_of(const Sample &sample) {
    return gst_structure_get_string(gst_caps_get_structure(gst_sample_get_caps(sample.get()), 0), "format");
}

// One pair through the element, which keeps its bundle for the next one.
Sample fuse_pair(Fed &run, GstCaps *x_caps, GstCaps *y_caps, int padding = 0) {
    run.play();
    run.set_caps("x", x_caps);
    run.set_caps("y", y_caps);
    run.push("x", timed(picture(x_caps, 1, padding), 0, time_of(1, 30)));
    run.push("y", timed(picture(y_caps, 101, padding), 0, time_of(1, 30)));
    Sample sample = run.pull();
    REQUIRE(sample);
    REQUIRE(run.set_state(GST_STATE_READY) == GST_STATE_CHANGE_SUCCESS);
    return sample;
}

// The same by the library alone; rows of results have GStreamer's default strides, which 112 pixels do not pad.
Bytes fuse_alone(GstCaps *x_caps, GstCaps *y_caps, GstCaps *result) {
    const Buffer x = picture(x_caps, 1), y = picture(y_caps, 101);
    return reference().fuse(x.get(), x_caps, y.get(), y_caps, result);
}

}  // namespace

TEST_CASE("each pad takes each format by itself, and gives each") {
    const char *const formats[] = {"RGB", "BGR", "NV12", "I420", "RGBA", "BGRA", "GRAY8", GST_VIDEO_NE(GRAY16)};
    Fed run("", "capsfilter name=wish !");
    run.play();
    for (int i = 0; i < 8; ++i) {
        const std::string wish = formats[(i + 6) % 8];
        const Caps x = caps_of(formats[i]), y = caps_of(formats[(i + 3) % 8]), out = caps_of(wish.c_str());
        CAPTURE(formats[i], formats[(i + 3) % 8], wish);
        g_object_set(run.element("wish"), "caps", out.get(), nullptr);
        for (const bool is_x : {true, false}) {
            const Caps &caps = is_x ? x : y;
            run.set_caps(is_x ? "x" : "y", caps.get());
            run.push(is_x ? "x" : "y", timed(picture(caps.get(), is_x ? 1 : 101), time_of(i, 30), time_of(1, 30)));
        }
        const Sample sample = run.pull();
        REQUIRE(sample);
        CHECK(format_of(sample) == wish);
        CHECK(bytes_of(gst_sample_get_buffer(sample.get())) == fuse_alone(x.get(), y.get(), out.get()));
    }
}

TEST_CASE("padding of rows and planes is honoured") {
    Fed run("", "video/x-raw,format=RGB !");
    const Caps rgb = caps_of("RGB");
    for (const char *format : {"RGB", "NV12", "I420", "GRAY8", GST_VIDEO_NE(GRAY16)}) {
        CAPTURE(format);
        const Caps caps = caps_of(format);
        const Sample sample = fuse_pair(run, caps.get(), caps.get(), 24);
        CHECK(bytes_of(gst_sample_get_buffer(sample.get())) == fuse_alone(caps.get(), caps.get(), rgb.get()));
    }
}

TEST_CASE("matrix and range of luma and chroma are taken from the caps, and given on") {
    Fed run;
    const Caps y = caps_of("GRAY8");
    std::vector<Bytes> results;
    for (const char *colorimetry : {"bt601", "bt709", "1:4:0:0", "1:3:0:0"}) {  // the last two: full range
        CAPTURE(colorimetry);
        const Caps x = caps_of("NV12", 30, kSide, kSide, colorimetry);
        const Sample sample = fuse_pair(run, x.get(), y.get());
        CHECK(format_of(sample) == std::string("NV12"));
        GstVideoInfo info, wanted;
        REQUIRE(gst_video_info_from_caps(&info, gst_sample_get_caps(sample.get())));
        REQUIRE(gst_video_info_from_caps(&wanted, x.get()));
        CHECK(info.colorimetry.matrix == wanted.colorimetry.matrix);
        CHECK(info.colorimetry.range == wanted.colorimetry.range);
        results.push_back(bytes_of(gst_sample_get_buffer(sample.get())));
        CHECK(results.back() == fuse_alone(x.get(), y.get(), x.get()));
        for (std::size_t i = 0; i + 1 < results.size(); ++i) CHECK_FALSE(results[i] == results.back());
    }
}

TEST_CASE("downstream may ask for another matrix than x has") {
    Fed run("", "video/x-raw,format=I420,colorimetry=bt709 !");
    const Caps x = caps_of("NV12", 30, kSide, kSide, "bt601"), y = caps_of("GRAY8");
    const Caps out = caps_of("I420", 30, kSide, kSide, "bt709");
    const Sample sample = fuse_pair(run, x.get(), y.get());
    CHECK(bytes_of(gst_sample_get_buffer(sample.get())) == fuse_alone(x.get(), y.get(), out.get()));
}

TEST_CASE("the result has x's format if that has colour, else RGB") {
    Fed run("", "capsfilter name=wish !");
    CHECK(format_of(fuse_pair(run, caps_of("BGR").get(), caps_of("GRAY8").get())) == std::string("BGR"));
    CHECK(format_of(fuse_pair(run, caps_of("GRAY8").get(), caps_of("BGR").get())) == std::string("RGB"));
    const Caps wish(gst_caps_from_string("video/x-raw,format={NV12,RGB}"));
    g_object_set(run.element("wish"), "caps", wish.get(), nullptr);
    CHECK(format_of(fuse_pair(run, caps_of("BGRA").get(), caps_of("RGB").get())) == std::string("RGB"));
}

TEST_CASE("a frame that passes alone is converted to the result's format") {
    const Caps x = caps_of("GRAY8");
    Fed run("on-loss=pass", "video/x-raw,format=RGB !");
    run.push_frames("x", x.get(), 30, 1);
    run.end("x");
    run.end("y");
    run.play();
    const auto samples = run.pull_all();
    REQUIRE(samples.size() == 1);
    const Bytes gray = bytes_of(picture(x.get(), 0).get()), rgb = bytes_of(gst_sample_get_buffer(samples[0].get()));
    REQUIRE(rgb.size() == 3 * gray.size());
    int most = 0;
    for (std::size_t i = 0; i < rgb.size(); ++i) most = std::max(most, std::abs(int{rgb[i]} - int{gray[i / 3]}));
    CHECK(most == 0);
}

TEST_CASE("pads ask for the bundle's size as soon as it is open, and for the framerates that downstream takes") {
    Pipeline run("tcmoafuse name=f bundle=BUNDLE ! video/x-raw,framerate=[5/1,10/1] ! fakesink");
    GstPad *x = gst_element_get_static_pad(run.fuse(), "sink_x"), *y = gst_element_get_static_pad(run.fuse(), "sink_y");
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
    const auto takes = [](GstPad *pad, const Caps &caps) {
        const Caps all(gst_pad_query_caps(pad, nullptr));
        return gst_caps_can_intersect(all.get(), caps.get()) != FALSE;
    };
    CHECK(takes(x, caps_of("RGB", 10)));
    CHECK_FALSE(takes(x, caps_of("RGB", 30)));
    CHECK(takes(y, caps_of("RGB", 30)));
    CHECK_FALSE(takes(y, caps_of("RGB", 30, 64, 64)));
    gst_object_unref(x);
    gst_object_unref(y);
}

TEST_CASE("videoscale in front adapts to the bundle") {
    Pipeline run(
        "tcmoafuse name=f bundle=BUNDLE ! fakesink"
        " videotestsrc num-buffers=3 ! video/x-raw,width=320,height=240 ! videoscale ! f.sink_x"
        " videotestsrc num-buffers=3 ! video/x-raw,width=160,height=120,format=NV12 ! videoscale ! f.sink_y");
    run.play();
    CHECK(GST_MESSAGE_TYPE(run.finish().get()) == GST_MESSAGE_EOS);
    CHECK(run.stat("frames") == 3);
}

TEST_CASE("formats of the sources change while frames flow") {
    const Caps rgb = caps_of("RGB"), nv12 = caps_of("NV12"), gray = caps_of("GRAY8");
    Fed run;
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
        CHECK(format_of(samples[i]) == std::string("RGB"));  // what was agreed on stays
        const Buffer x = picture(x_caps.get(), i), y = picture(y_caps.get(), 100 + i);
        CHECK(bytes_of(gst_sample_get_buffer(samples[i].get())) ==
              reference().fuse(x.get(), x_caps.get(), y.get(), y_caps.get(), rgb.get()));
    }
}

TEST_CASE("a held frame keeps the format that it came in") {
    const Caps rgb = caps_of("RGB"), gray = caps_of("GRAY8");
    Fed run;
    run.push_frames("x", rgb.get(), 30, 8);
    run.push_frames("y", rgb.get(), 30, 1);
    run.push_frames("y", gray.get(), 30, 1, 20);  // new caps, far ahead
    run.end("x");
    run.end("y");
    run.play();
    const auto samples = run.pull_all();
    REQUIRE(samples.size() == 8);
    const Buffer x = picture(rgb.get(), 7), y = picture(rgb.get(), 100);
    CHECK(bytes_of(gst_sample_get_buffer(samples[7].get())) ==
          reference().fuse(x.get(), rgb.get(), y.get(), rgb.get(), rgb.get()));
}

TEST_CASE("x's framerate changes: the caps follow, no frame is lost") {
    Fed run;
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
