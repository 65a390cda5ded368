// Each failure posts one message, and neither crashes nor hangs.
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "pipeline.hpp"

namespace {

namespace fs = std::filesystem;

void check_error(GstMessage *message, GQuark domain, int code, const std::string &part) {
    REQUIRE(GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR);
    GError *error = nullptr;
    gst_message_parse_error(message, &error, nullptr);
    const std::string text = error->message;
    CHECK(std::string(GST_OBJECT_NAME(GST_MESSAGE_SRC(message))) == "f");
    CHECK(error->domain == domain);
    CHECK(error->code == code);
    CHECK_THAT(text, Catch::Contains(part));
    CHECK(text.find('\n') == std::string::npos);
    g_error_free(error);
}

// A copy of the test bundle in a temporary folder.
class Copy {
public:
    Copy() : path_(fs::temp_directory_path() / "tcmoafuse-damaged") {
        fs::remove_all(path_);
        fs::copy(bundle_folder(), path_, fs::copy_options::recursive);
    }
    ~Copy() { fs::remove_all(path_); }
    fs::path path() const { return path_; }

private:
    fs::path path_;
};

}  // namespace

TEST_CASE("the state change fails without a bundle, and with a missing or damaged one") {
    FedPipeline run;
    std::string part;
    std::unique_ptr<Copy> copy;
    SECTION("not set") {
        g_object_set(run.fuser(), "bundle", nullptr, nullptr);
        part = "bundle: not set";
    }
    SECTION("a missing folder") {
        g_object_set(run.fuser(), "bundle", "/nowhere/bundle", nullptr);
        part = "/nowhere/bundle";
    }
    SECTION("a truncated manifest") {
        copy = std::make_unique<Copy>();
        fs::resize_file(copy->path() / "bundle.json", 40);
        g_object_set(run.fuser(), "bundle", copy->path().c_str(), nullptr);
        part = "bundle.json";
    }
    SECTION("a graph with an additional byte") {
        copy = std::make_unique<Copy>();
        for (const auto &entry : fs::directory_iterator(copy->path()))
            if (entry.path().extension() == ".onnx") std::ofstream(entry.path(), std::ios::app) << "x";
        g_object_set(run.fuser(), "bundle", copy->path().c_str(), nullptr);
        part = ".onnx";
    }
    CHECK(run.set_state(GST_STATE_PLAYING) == GST_STATE_CHANGE_FAILURE);
    const auto errors = run.messages(GST_MESSAGE_ERROR);
    REQUIRE(errors.size() == 1);
    check_error(errors[0], GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, part);

    // The element remains usable.
    REQUIRE(run.set_state(GST_STATE_NULL) == GST_STATE_CHANGE_SUCCESS);
    g_object_set(run.fuser(), "bundle", bundle_folder().c_str(), nullptr);
    const Caps caps = caps_of("RGB");
    run.play();
    run.push_frames("x", caps.get(), 30, 1);
    run.push_frames("y", caps.get(), 30, 1);
    CHECK(run.pull());
}

TEST_CASE("an unknown backend") {
    FedPipeline run("backend=abacus");
    CHECK(run.set_state(GST_STATE_PLAYING) == GST_STATE_CHANGE_FAILURE);
    const auto errors = run.messages(GST_MESSAGE_ERROR);
    REQUIRE(errors.size() == 1);
    check_error(errors[0], GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "abacus");
}

TEST_CASE("a bundle that is set in READY is opened, and a change in PAUSED is refused") {
    FedPipeline run;
    g_object_set(run.fuser(), "bundle", nullptr, nullptr);
    REQUIRE(run.set_state(GST_STATE_READY) == GST_STATE_CHANGE_SUCCESS);
    g_object_set(run.fuser(), "bundle", bundle_folder().c_str(), nullptr);
    const Caps caps = caps_of("RGB");
    run.push_frames("x", caps.get(), 30, 1);
    run.push_frames("y", caps.get(), 30, 1);
    REQUIRE(run.set_state(GST_STATE_PAUSED) == GST_STATE_CHANGE_SUCCESS);
    CHECK(run.messages(GST_MESSAGE_WARNING).empty());
    g_object_set(run.fuser(), "bundle", "/nowhere", nullptr);
    const auto warnings = run.messages(GST_MESSAGE_WARNING);
    REQUIRE(warnings.size() == 1);
    CHECK(text_of(warnings[0]) == "bundle: not changed; expected the state NULL or READY. Stop the element first.");
    gchar *now = nullptr;
    g_object_get(run.fuser(), "bundle", &now, nullptr);
    CHECK(std::string(now) == bundle_folder());
    g_free(now);
}

TEST_CASE("frames of another size") {
    const Caps matching = caps_of("RGB"), wrong = caps_of("RGB", 30, 64, 48);
    const std::string source = GENERATE("x", "y");
    const bool from_start = GENERATE(true, false);
    CAPTURE(source, from_start);
    FedPipeline run;
    run.play();
    const std::string other = source == "x" ? "y" : "x";
    if (!from_start) run.push_frames(source.c_str(), matching.get(), 30, 1);
    run.push_frames(other.c_str(), matching.get(), 30, 3);
    if (!from_start) REQUIRE(run.pull());
    run.set_caps(source.c_str(), wrong.get());
    run.push(source.c_str(), make_frame(wrong.get(), 1, 1, 30));
    check_error(run.wait_for_end().get(), GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT,
                "sink_" + source + ": 64x48; expected 112x112, the bundle's frame size. Add videoscale before it, set fit "
                "to tile, pad or resize, or export a bundle for 64x48.");
    CHECK(run.set_state(GST_STATE_NULL) == GST_STATE_CHANGE_SUCCESS);
}

TEST_CASE("a pad that is not linked") {
    const std::string pad = GENERATE("sink_x", "sink_y");
    const std::string linked = pad == "sink_x" ? "sink_y" : "sink_x";
    Pipeline run("tcmoafuse name=f bundle=BUNDLE ! fakesink videotestsrc ! videoscale ! f." + linked);
    run.play();
    check_error(run.wait_for_end().get(), GST_CORE_ERROR, GST_CORE_ERROR_PAD,
                pad + ": not linked; expected a video on each of sink_x and sink_y. Link one, e.g. videotestsrc ! f." +
                    pad + ".");
}

TEST_CASE("a pad that an element may still be linked to is waited for") {
    Pipeline run(
        "tcmoafuse name=f bundle=BUNDLE ! fakesink videotestsrc num-buffers=2 ! videoscale ! f.sink_x"
        " appsrc name=y ! decodebin");
    run.play();
    g_usleep(3 * G_USEC_PER_SEC);
    CHECK(run.messages(GST_MESSAGE_ERROR).empty());
}

TEST_CASE("an unsupported YUV matrix") {
    FedPipeline run;
    run.play();
    const Caps caps = caps_of("NV12", 30, kSide, kSide, "bt2020");
    run.push_frames("x", caps.get(), 30, 1);
    check_error(run.wait_for_end().get(), GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT,
                "sink_x: colorimetry bt2020; expected a BT.601 or BT.709 matrix");
}

TEST_CASE("downstream accepts no format of the element") {
    FedPipeline run("", "capsfilter caps=video/x-raw,width=32 !");
    run.play();
    const Caps caps = caps_of("RGB");
    run.push_frames("x", caps.get(), 30, 2);
    run.push_frames("y", caps.get(), 30, 2);
    CHECK(GST_MESSAGE_TYPE(run.wait_for_end().get()) == GST_MESSAGE_ERROR);
    CHECK(run.set_state(GST_STATE_NULL) == GST_STATE_CHANGE_SUCCESS);
}

TEST_CASE("frames without timestamps") {
    FedPipeline run;
    run.play();
    const Caps caps = caps_of("RGB");
    run.set_caps("x", caps.get());
    run.push("x", make_buffer(caps.get(), 0));
    run.push_frames("y", caps.get(), 30, 2);
    check_error(run.wait_for_end().get(), GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT,
                "sink_x: frame without a timestamp");
}

TEST_CASE("a source with a segment in bytes") {
    Pipeline run(
        "tcmoafuse name=f bundle=BUNDLE ! fakesink appsrc name=x format=bytes ! f.sink_x videotestsrc ! f.sink_y");
    const Caps caps = caps_of("RGB");
    gst_app_src_set_caps(GST_APP_SRC(run.element("x")), caps.get());
    gst_app_src_push_buffer(GST_APP_SRC(run.element("x")), make_buffer(caps.get(), 0).release());
    run.play();
    check_error(run.wait_for_end().get(), GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT,
                "sink_x: segment in bytes; expected time");
}
