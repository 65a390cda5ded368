// prompt-scale and prompt-shift: set by a program, or by controllers at the stream time of each output frame.
#include <gst/controller/controller.h>

#include <catch2/catch.hpp>

#include "pipeline.hpp"

namespace {

// Control a property linearly from `from` at 0 s to `to` at 1 s.
void control(GstElement *fuse, const char *property, double from, double to) {
    GstControlSource *curve = gst_interpolation_control_source_new();
    g_object_set(curve, "mode", GST_INTERPOLATION_MODE_LINEAR, nullptr);
    auto *points = GST_TIMED_VALUE_CONTROL_SOURCE(curve);
    REQUIRE(gst_timed_value_control_source_set(points, 0, from));
    REQUIRE(gst_timed_value_control_source_set(points, GST_SECOND, to));
    REQUIRE(gst_object_add_control_binding(
        GST_OBJECT(fuse), gst_direct_control_binding_new_absolute(GST_OBJECT(fuse), property, curve)));
    gst_object_unref(curve);
}

}  // namespace

TEST_CASE("a controller sets the prompt of each frame at its stream time") {
    const Caps caps = caps_of("RGB", 10);
    FedPipeline run;
    control(run.fuser(), "prompt-shift", -2, 2);
    control(run.fuser(), "prompt-scale", 1, 3);
    run.push_frames("x", caps.get(), 10, 11);
    run.push_frames("y", caps.get(), 10, 11);
    run.end("x");
    run.end("y");
    run.play();
    const auto samples = run.pull_all();
    REQUIRE(samples.size() == 11);
    for (int i = 0; i < 11; ++i) {
        const Bytes result = bytes_of(gst_sample_get_buffer(samples[static_cast<std::size_t>(i)].get()));
        const Buffer x = make_buffer(caps.get(), static_cast<unsigned>(i));
        const Buffer y = make_buffer(caps.get(), 100 + static_cast<unsigned>(i));
        const double time = i / 10.0;
        const Bytes expected = reference().fuse(x.get(), caps.get(), y.get(), caps.get(), caps.get(),
                                            static_cast<float>(1 + 2 * time), static_cast<float>(-2 + 4 * time));
        CHECK(max_difference(result, expected) <= 1);  // the double of the curve may be rounded to another float
        // Another prompt gives another frame.
        const Bytes other =
            reference().fuse(x.get(), caps.get(), y.get(), caps.get(), caps.get(), 1, i < 5 ? 2 : -2);
        CHECK(max_difference(result, other) > 1);
    }
}

TEST_CASE("a program changes the prompt while frames flow") {
    const Caps caps = caps_of("RGB", 10);
    FedPipeline run("prompt-shift=-3");
    run.play();
    run.push_frames("x", caps.get(), 10, 2);
    run.push_frames("y", caps.get(), 10, 2);
    const float shifts[] = {-3, 4};
    for (unsigned i = 0; i < 2; ++i) {
        const Sample sample = run.pull();
        REQUIRE(sample);
        const Buffer x = make_buffer(caps.get(), 0), y = make_buffer(caps.get(), 100);
        if (i == 0) {
            CHECK(bytes_of(gst_sample_get_buffer(sample.get())) ==
                  reference().fuse(x.get(), caps.get(), y.get(), caps.get(), caps.get(), 1, shifts[0]));
            // Frame 1 may already be in progress: only later frames must have the new prompt.
            g_object_set(run.fuser(), "prompt-shift", 4.0, nullptr);
        }
    }
    run.push_frames("x", caps.get(), 10, 1, 2);
    run.push_frames("y", caps.get(), 10, 1, 2);
    const Sample sample = run.pull();
    REQUIRE(sample);
    const Buffer x = make_buffer(caps.get(), 2), y = make_buffer(caps.get(), 102);
    CHECK(bytes_of(gst_sample_get_buffer(sample.get())) ==
          reference().fuse(x.get(), caps.get(), y.get(), caps.get(), caps.get(), 1, shifts[1]));
    double value = 0;
    g_object_get(run.fuser(), "prompt-shift", &value, nullptr);
    CHECK(value == 4);
}

TEST_CASE("the prompt properties are controllable, from -16 to 16") {
    Pipeline run("tcmoafuse name=f bundle=BUNDLE ! fakesink");
    GParamSpec *spec = g_object_class_find_property(G_OBJECT_GET_CLASS(run.fuser()), "prompt-scale");
    REQUIRE(spec != nullptr);
    CHECK(G_PARAM_SPEC_DOUBLE(spec)->minimum == -16);
    CHECK(G_PARAM_SPEC_DOUBLE(spec)->maximum == 16);
    CHECK((spec->flags & GST_PARAM_CONTROLLABLE) != 0);
    CHECK((spec->flags & GST_PARAM_MUTABLE_PLAYING) != 0);
}

TEST_CASE("a wrapped network plays, and refuses a prompt that is set") {
    const Caps color = caps_of("RGB", 10), gray = caps_of("GRAY8", 10);
    const std::string bundle = "bundle=\"" + bundle_folder("wrapped") + "\" ";
    const Buffer x = make_buffer(color.get(), 0), y = make_buffer(gray.get(), 100);
    {
        FedPipeline run(bundle, "video/x-raw,format=RGB !");
        run.push_frames("x", color.get(), 10, 1);
        run.push_frames("y", gray.get(), 10, 1);
        run.end("x");
        run.end("y");
        run.play();
        const auto samples = run.pull_all();
        REQUIRE(samples.size() == 1);
        CHECK(bytes_of(gst_sample_get_buffer(samples[0].get())) ==
              Reference(TCMOA_FIT_EXACT, "wrapped").fuse(x.get(), color.get(), y.get(), gray.get(), color.get()));
    }
    FedPipeline run(bundle + "prompt-shift=0.2", "video/x-raw,format=RGB !");
    run.push_frames("x", color.get(), 10, 1);
    run.push_frames("y", gray.get(), 10, 1);
    run.play();
    const Message end = run.wait_for_end();
    REQUIRE(GST_MESSAGE_TYPE(end.get()) == GST_MESSAGE_ERROR);
    CHECK(text_of(end.get()) ==
          "prompt-shift: this network has no prompt; expected a bundle of `tcmoa export`. Leave it out.");
}
