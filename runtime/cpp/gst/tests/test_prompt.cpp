// prompt-scale and prompt-shift: set by a program, and by controllers at each output frame's stream time.
#include <gst/controller/controller.h>

#include <catch2/catch.hpp>

#include "pipeline.hpp"

namespace {

// Bind a property to a curve through (0 s, from) and (1 s, to).
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

TEST_CASE("a controller steers each frame at its stream time") {
    const Caps caps = caps_of("RGB", 10);
    Fed run;
    control(run.fuse(), "prompt-shift", -2, 2);
    control(run.fuse(), "prompt-scale", 1, 3);
    run.push_frames("x", caps.get(), 10, 11);
    run.push_frames("y", caps.get(), 10, 11);
    run.end("x");
    run.end("y");
    run.play();
    const auto samples = run.pull_all();
    REQUIRE(samples.size() == 11);
    for (int i = 0; i < 11; ++i) {
        const Bytes result = bytes_of(gst_sample_get_buffer(samples[static_cast<std::size_t>(i)].get()));
        const Buffer x = picture(caps.get(), static_cast<unsigned>(i));
        const Buffer y = picture(caps.get(), 100 + static_cast<unsigned>(i));
        const double at = i / 10.0;
        const Bytes wanted = reference().fuse(x.get(), caps.get(), y.get(), caps.get(), caps.get(),
                                            static_cast<float>(1 + 2 * at), static_cast<float>(-2 + 4 * at));
        CHECK(difference(result, wanted) <= 1);  // the curve's double may round to another float
        // It is the steering that shows: without it the frame is another one.
        const Bytes otherwise =
            reference().fuse(x.get(), caps.get(), y.get(), caps.get(), caps.get(), 1, i < 5 ? 2 : -2);
        CHECK(difference(result, otherwise) > 1);
    }
}

TEST_CASE("a program changes the prompt while frames flow") {
    const Caps caps = caps_of("RGB", 10);
    Fed run("prompt-shift=-3");
    run.play();
    run.push_frames("x", caps.get(), 10, 2);
    run.push_frames("y", caps.get(), 10, 2);
    const float shifts[] = {-3, 4};
    for (unsigned i = 0; i < 2; ++i) {
        const Sample sample = run.pull();
        REQUIRE(sample);
        const Buffer x = picture(caps.get(), 0), y = picture(caps.get(), 100);
        if (i == 0) {
            CHECK(bytes_of(gst_sample_get_buffer(sample.get())) ==
                  reference().fuse(x.get(), caps.get(), y.get(), caps.get(), caps.get(), 1, shifts[0]));
            // Frame 1 may be under way already: the change is seen from the next frames on.
            g_object_set(run.fuse(), "prompt-shift", 4.0, nullptr);
        }
    }
    run.push_frames("x", caps.get(), 10, 1, 2);
    run.push_frames("y", caps.get(), 10, 1, 2);
    const Sample sample = run.pull();
    REQUIRE(sample);
    const Buffer x = picture(caps.get(), 2), y = picture(caps.get(), 102);
    CHECK(bytes_of(gst_sample_get_buffer(sample.get())) ==
          reference().fuse(x.get(), caps.get(), y.get(), caps.get(), caps.get(), 1, shifts[1]));
    double value = 0;
    g_object_get(run.fuse(), "prompt-shift", &value, nullptr);
    CHECK(value == 4);
}

TEST_CASE("the prompt properties can be controlled, from -16 to 16") {
    Pipeline run("tcmoafuse name=f bundle=BUNDLE ! fakesink");
    GParamSpec *spec = g_object_class_find_property(G_OBJECT_GET_CLASS(run.fuse()), "prompt-scale");
    REQUIRE(spec != nullptr);
    CHECK(G_PARAM_SPEC_DOUBLE(spec)->minimum == -16);
    CHECK(G_PARAM_SPEC_DOUBLE(spec)->maximum == 16);
    CHECK((spec->flags & GST_PARAM_CONTROLLABLE) != 0);
    CHECK((spec->flags & GST_PARAM_MUTABLE_PLAYING) != 0);
}
