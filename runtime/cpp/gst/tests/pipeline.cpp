#include "pipeline.hpp"

#include <catch2/catch.hpp>
#include <chrono>

Pipeline::Pipeline(std::string text) {
    const std::string word = "BUNDLE";
    for (std::size_t position = 0; (position = text.find(word, position)) != std::string::npos;)
        text.replace(position, word.size(), "\"" + bundle_folder() + "\"");
    GError *error = nullptr;
    pipeline_ = gst_parse_launch(text.c_str(), &error);
    const std::string problem = error == nullptr ? "" : error->message;
    g_clear_error(&error);
    INFO(problem);
    REQUIRE(pipeline_ != nullptr);
    REQUIRE(problem.empty());
    GstBus *bus = gst_element_get_bus(pipeline_);
    gst_bus_set_sync_handler(bus, on_message, this, nullptr);
    gst_object_unref(bus);
}

Pipeline::~Pipeline() {
    gst_element_set_state(pipeline_, GST_STATE_NULL);
    GstBus *bus = gst_element_get_bus(pipeline_);
    gst_bus_set_sync_handler(bus, nullptr, nullptr, nullptr);
    gst_object_unref(bus);
    gst_object_unref(pipeline_);
}

GstBusSyncReply Pipeline::on_message(GstBus *, GstMessage *message, gpointer data) {
    auto *self = static_cast<Pipeline *>(data);
    const std::lock_guard guard(self->lock_);
    self->seen_.emplace_back(message);  // GST_BUS_DROP passes the ownership
    self->arrived_.notify_all();
    return GST_BUS_DROP;
}

GstElement *Pipeline::element(const char *name) const {
    GstElement *found = gst_bin_get_by_name(GST_BIN(pipeline_), name);
    REQUIRE(found != nullptr);
    gst_object_unref(found);  // the pipeline keeps a reference
    return found;
}

GstStateChangeReturn Pipeline::set_state(GstState state) {
    const GstStateChangeReturn result = gst_element_set_state(pipeline_, state);
    if (result != GST_STATE_CHANGE_ASYNC) return result;
    return gst_element_get_state(pipeline_, nullptr, nullptr, kTimeout);
}

Message Pipeline::wait_for_end() {
    std::unique_lock guard(lock_);
    GstMessage *last = nullptr;
    const bool ended = arrived_.wait_for(guard, std::chrono::nanoseconds(kTimeout), [&] {
        for (const Message &message : seen_)
            if ((GST_MESSAGE_TYPE(message.get()) & (GST_MESSAGE_EOS | GST_MESSAGE_ERROR)) != 0) {
                last = message.get();
                return true;
            }
        return false;
    });
    REQUIRE(ended);
    return Message(gst_message_ref(last));
}

std::vector<GstMessage *> Pipeline::messages(GstMessageType type) const {
    const std::lock_guard guard(lock_);
    std::vector<GstMessage *> found;
    for (const Message &message : seen_)
        if (GST_MESSAGE_TYPE(message.get()) == type) found.push_back(message.get());
    return found;
}

void Pipeline::wait_for(GstMessageType type, std::size_t count) {
    std::unique_lock guard(lock_);
    const bool arrived = arrived_.wait_for(guard, std::chrono::nanoseconds(kTimeout), [&] {
        std::size_t found = 0;
        for (const Message &message : seen_) found += GST_MESSAGE_TYPE(message.get()) == type;
        return found >= count;
    });
    REQUIRE(arrived);
}

std::uint64_t Pipeline::stat(const char *name) const {
    GstStructure *all = nullptr;
    g_object_get(fuser(), "stats", &all, nullptr);
    const Structure stats(all);
    guint64 value = 0;
    REQUIRE(gst_structure_get_uint64(all, name, &value));
    return value;
}

std::string text_of(GstMessage *message) {
    GError *error = nullptr;
    gchar *debug = nullptr;
    switch (GST_MESSAGE_TYPE(message)) {
        case GST_MESSAGE_ERROR: gst_message_parse_error(message, &error, &debug); break;
        case GST_MESSAGE_WARNING: gst_message_parse_warning(message, &error, &debug); break;
        case GST_MESSAGE_INFO: gst_message_parse_info(message, &error, &debug); break;
        default: return GST_MESSAGE_TYPE_NAME(message);
    }
    const std::string text = error->message;
    g_error_free(error);
    g_free(debug);
    return text;
}

FedPipeline::FedPipeline(const std::string &properties, const std::string &after)
    : Pipeline("tcmoafuse name=f bundle=BUNDLE " + properties + " ! " + after +
               " appsink name=out sync=false"
               " appsrc name=x format=time ! f.sink_x appsrc name=y format=time ! f.sink_y") {}

void FedPipeline::set_caps(const char *source, GstCaps *caps) {
    gst_app_src_set_caps(GST_APP_SRC(element(source)), caps);
}

void FedPipeline::push(const char *source, Buffer buffer) {
    REQUIRE(gst_app_src_push_buffer(GST_APP_SRC(element(source)), buffer.release()) == GST_FLOW_OK);
}

void FedPipeline::end(const char *source) { gst_app_src_end_of_stream(GST_APP_SRC(element(source))); }

void FedPipeline::push_frames(const char *source, GstCaps *caps, int rate, int count, int first) {
    set_caps(source, caps);
    const unsigned seed = source[0] == 'y' ? 100 : 0;
    for (int i = first; i < first + count; ++i)
        push(source, make_frame(caps, seed + static_cast<unsigned>(i), i, rate));
}

Sample FedPipeline::pull() {
    auto *sink = GST_APP_SINK(element("out"));
    Sample sample(gst_app_sink_try_pull_sample(sink, kTimeout));
    if (sample) return sample;
    const bool ended = gst_app_sink_is_eos(sink);  // false: timeout
    REQUIRE(ended);
    return nullptr;
}

std::vector<Sample> FedPipeline::pull_all() {
    std::vector<Sample> samples;
    for (;;) {
        Sample sample = pull();
        if (!sample) return samples;
        samples.push_back(std::move(sample));
    }
}
