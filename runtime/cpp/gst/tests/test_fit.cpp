// The property `fit`: frames of another size than the bundle's, compared with the library.
#include <catch2/catch.hpp>

#include "pipeline.hpp"

namespace {

// Fuse pairs of frames with these caps and compare the results, which have the size of x.
void check_frames(FedPipeline &run, Reference &expected, const Caps &x, const Caps &y, int first, int count) {
    const Caps rgb = caps_of("RGB", 30, width_of(x.get()), height_of(x.get()));
    for (int i = first; i < first + count; ++i) {
        const Sample sample = run.pull();
        REQUIRE(sample);
        CHECK(width_of(gst_sample_get_caps(sample.get())) == width_of(x.get()));
        CHECK(height_of(gst_sample_get_caps(sample.get())) == height_of(x.get()));
        const auto seed = static_cast<unsigned>(i);
        const Buffer buffer_x = make_buffer(x.get(), seed), buffer_y = make_buffer(y.get(), 100 + seed);
        CHECK(bytes_of(gst_sample_get_buffer(sample.get())) ==
              expected.fuse(buffer_x.get(), x.get(), buffer_y.get(), y.get(), rgb.get()));
    }
}

std::string error_text(FedPipeline &run) {
    const Message message = run.wait_for_end();
    REQUIRE(GST_MESSAGE_TYPE(message.get()) == GST_MESSAGE_ERROR);
    return text_of(message.get());
}

}  // namespace

TEST_CASE("frames of any size are fused in tiles, and both sources may change their size") {
    const Caps large = caps_of("RGB", 30, 200, 120), gray = caps_of("GRAY8", 30, 200, 120);
    const Caps small = caps_of("RGB", 30, 64, 48);
    Reference expected(TCMOA_FIT_TILE);
    FedPipeline run("fit=auto");
    run.play();
    run.push_frames("x", large.get(), 30, 2);
    run.push_frames("y", gray.get(), 30, 2);
    check_frames(run, expected, large, gray, 0, 1);
    run.push_frames("x", small.get(), 30, 2, 2);
    run.push_frames("y", small.get(), 30, 2, 2);
    run.end("x");
    run.end("y");
    check_frames(run, expected, large, gray, 1, 1);
    check_frames(run, expected, small, small, 2, 2);
    CHECK_FALSE(run.pull());
}

TEST_CASE("sources of two sizes are resized, and the output has the size of x") {
    const Caps x = caps_of("RGB", 30, 64, 48), y = caps_of("RGB", 30, 200, 120);
    Reference expected(TCMOA_FIT_RESIZE);
    FedPipeline run("fit=resize");
    run.push_frames("x", x.get(), 30, 2);
    run.push_frames("y", y.get(), 30, 2);
    run.end("x");
    run.end("y");
    run.play();
    check_frames(run, expected, x, y, 0, 2);
}

TEST_CASE("sizes that the property fit excludes") {
    const Caps small = caps_of("RGB", 30, 64, 48), large = caps_of("RGB", 30, 200, 48);
    FedPipeline pad("fit=pad");
    pad.play();
    pad.push_frames("x", large.get(), 30, 1);
    CHECK(error_text(pad) ==
          "sink_x: 200x48; expected at most 112x112, the bundle's frame size. Add videoscale before it, set fit to tile or "
          "resize, or export a bundle for 200x48.");
    FedPipeline tile("fit=tile");
    tile.play();
    tile.push_frames("x", large.get(), 30, 2);
    tile.push_frames("y", small.get(), 30, 2);
    CHECK(error_text(tile) ==
          "sink_y: 64x48; expected 200x48, the size of sink_x. Add videoscale and a caps filter before it, or set fit to "
          "resize.");
}

TEST_CASE("a source of a fixed size gets the error of the element") {
    Pipeline run(
        "tcmoafuse name=f bundle=BUNDLE ! fakesink videotestsrc ! video/x-raw,width=150,height=90 ! f.sink_x"
        " videotestsrc ! video/x-raw,width=150,height=90 ! f.sink_y");
    run.play();
    const Message message = run.wait_for_end();
    REQUIRE(GST_MESSAGE_TYPE(message.get()) == GST_MESSAGE_ERROR);
    const std::string text = text_of(message.get());
    CHECK(text.substr(text.find(':')) ==
          ": 150x90; expected 112x112, the bundle's frame size. Add videoscale before it, set fit to tile, pad or resize, "
          "or export a bundle for 150x90.");
}

TEST_CASE("y is scaled to the size of x where videoscale is before it") {
    const Caps x = caps_of("RGB", 30, 160, 90), y = caps_of("RGB", 30, 200, 120);
    Pipeline run(
        "tcmoafuse name=f bundle=BUNDLE fit=tile ! appsink name=out sync=false appsrc name=x format=time ! f.sink_x"
        " appsrc name=y format=time ! videoscale ! f.sink_y");
    const auto push = [&](const char *name, const Caps &caps, unsigned seed) {
        gst_app_src_set_caps(GST_APP_SRC(run.element(name)), caps.get());
        gst_app_src_push_buffer(GST_APP_SRC(run.element(name)), make_frame(caps.get(), seed, 0, 30).release());
        gst_app_src_end_of_stream(GST_APP_SRC(run.element(name)));
    };
    run.play();
    push("x", x, 0);
    GstPad *pad = gst_element_get_static_pad(run.fuser(), "sink_x");
    while (!gst_pad_has_current_caps(pad)) g_usleep(1000);
    gst_object_unref(pad);
    push("y", y, 1);
    const Sample sample(gst_app_sink_try_pull_sample(GST_APP_SINK(run.element("out")), kTimeout));
    REQUIRE(sample);
    CHECK(width_of(gst_sample_get_caps(sample.get())) == 160);
    int fit = 0;
    g_object_get(run.fuser(), "fit", &fit, nullptr);
    CHECK(fit == TCMOA_FIT_TILE);
}
