// The element's class: pads, properties, states, and the events and queries that it answers itself.
#include "gsttcmoafuse.h"

#include "caps.hpp"
#include "element.hpp"

using namespace tcmoa::gst;

GST_DEBUG_CATEGORY(tcmoa_fuse_debug);
#define GST_CAT_DEFAULT tcmoa_fuse_debug

struct _TcmoaFusePad {
    GstVideoAggregatorPad parent;
    Feed *feed;  // the element's
};

struct _TcmoaFuse {
    GstVideoAggregator parent;
    State *state;
};

G_DEFINE_FINAL_TYPE(TcmoaFusePad, tcmoa_fuse_pad, GST_TYPE_VIDEO_AGGREGATOR_PAD)
G_DEFINE_FINAL_TYPE(TcmoaFuse, tcmoa_fuse, GST_TYPE_VIDEO_AGGREGATOR)
GST_ELEMENT_REGISTER_DEFINE_WITH_CODE(tcmoafuse, "tcmoafuse", GST_RANK_NONE, TCMOA_TYPE_FUSE,
                                      GST_DEBUG_CATEGORY_INIT(tcmoa_fuse_debug, "tcmoafuse", 0, "TC-MoA fusion"))

State &tcmoa::gst::state_of(TcmoaFuse *self) { return *self->state; }

namespace {

enum Property { kNoProperty, kBundle, kBackend, kThreads, kPromptScale, kPromptShift, kOnLoss, kStats };

constexpr double kPromptLimit = 16;

#define TCMOA_GST_CAPS GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE(TCMOA_GST_FORMATS))

GstStaticPadTemplate x_template = GST_STATIC_PAD_TEMPLATE("sink_x", GST_PAD_SINK, GST_PAD_ALWAYS, TCMOA_GST_CAPS);
GstStaticPadTemplate y_template = GST_STATIC_PAD_TEMPLATE("sink_y", GST_PAD_SINK, GST_PAD_ALWAYS, TCMOA_GST_CAPS);
GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, TCMOA_GST_CAPS);

GType on_loss_type() {
    static const GEnumValue values[] = {
        {static_cast<int>(OnLoss::kHold), "Fuse the last frame of the lost source again and again", "hold"},
        {static_cast<int>(OnLoss::kPass), "Pass the other source's frames alone, not fused", "pass"},
        {static_cast<int>(OnLoss::kStop), "End the stream (EOS)", "stop"},
        {0, nullptr, nullptr}};
    static const GType type = g_enum_register_static("TcmoaFuseOnLoss", values);
    return type;
}

std::string text_of(const GValue *value) {
    const gchar *text = g_value_get_string(value);
    return text == nullptr ? "" : text;
}

// Properties that the opened bundle depends on hold still while it is in use.
bool is_settled(TcmoaFuse *self, guint id, const GParamSpec *spec) {
    if (id != kBundle && id != kBackend && id != kThreads) return false;
    if (GST_STATE(self) <= GST_STATE_READY) return false;
    GST_ELEMENT_WARNING(self, RESOURCE, SETTINGS,
                        ("%s can only be changed in NULL or READY: the old value stays", spec->name), (nullptr));
    return true;
}

void set_property(GObject *object, guint id, const GValue *value, GParamSpec *spec) {
    auto *self = TCMOA_FUSE(object);
    if (is_settled(self, id, spec)) return;
    Settings &settings = self->state->settings;
    GST_OBJECT_LOCK(self);
    switch (id) {
        case kBundle: settings.bundle = text_of(value); break;
        case kBackend: settings.backend = text_of(value); break;
        case kThreads: settings.threads = g_value_get_int(value); break;
        case kPromptScale: settings.scale = g_value_get_double(value); break;
        case kPromptShift: settings.shift = g_value_get_double(value); break;
        case kOnLoss: settings.on_loss = static_cast<OnLoss>(g_value_get_enum(value)); break;
        default: G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
    }
    GST_OBJECT_UNLOCK(self);
}

void get_property(GObject *object, guint id, GValue *value, GParamSpec *spec) {
    auto *self = TCMOA_FUSE(object);
    if (id == kStats) {
        g_value_take_boxed(value, stats_of(self));
        return;
    }
    double scale = 1, shift = 0;
    {
        const std::lock_guard guard(self->state->fuser_lock);
        if (self->state->fuser) {
            scale = static_cast<double>(self->state->fuser.info().default_scale);
            shift = static_cast<double>(self->state->fuser.info().default_shift);
        }
    }
    const Settings &settings = self->state->settings;
    GST_OBJECT_LOCK(self);
    switch (id) {
        case kBundle: g_value_set_string(value, settings.bundle.empty() ? nullptr : settings.bundle.c_str()); break;
        case kBackend: g_value_set_string(value, settings.backend.c_str()); break;
        case kThreads: g_value_set_int(value, settings.threads); break;
        case kPromptScale: g_value_set_double(value, settings.scale.value_or(scale)); break;
        case kPromptShift: g_value_set_double(value, settings.shift.value_or(shift)); break;
        case kOnLoss: g_value_set_enum(value, static_cast<int>(settings.on_loss)); break;
        default: G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
    }
    GST_OBJECT_UNLOCK(self);
}

GstStateChangeReturn change_state(GstElement *element, GstStateChange transition) {
    auto *self = TCMOA_FUSE(element);
    // In NULL to READY, as videoscale in front asks for the size before the first frame; later for a bundle that was
    // set or changed in READY.
    GST_OBJECT_LOCK(self);
    const std::string bundle = self->state->settings.bundle;
    GST_OBJECT_UNLOCK(self);
    const bool now = transition == GST_STATE_CHANGE_READY_TO_PAUSED
                         ? !self->state->fuser || self->state->fuser.bundle() != bundle
                         : transition == GST_STATE_CHANGE_NULL_TO_READY && !bundle.empty();
    if (now && !open_bundle(self)) return GST_STATE_CHANGE_FAILURE;
    const GstStateChangeReturn result =
        GST_ELEMENT_CLASS(tcmoa_fuse_parent_class)->change_state(element, transition);
    if (transition == GST_STATE_CHANGE_READY_TO_NULL) close_bundle(self);
    return result;
}

gboolean stop(GstAggregator *aggregator) {
    TCMOA_FUSE(aggregator)->state->forget();
    return GST_AGGREGATOR_CLASS(tcmoa_fuse_parent_class)->stop(aggregator);
}

GstFlowReturn flush(GstAggregator *aggregator) {
    auto *self = TCMOA_FUSE(aggregator);
    self->state->first_x.reset();
    self->state->shown_until = 0;
    GST_OBJECT_LOCK(self);
    self->state->quality.reset();
    GST_OBJECT_UNLOCK(self);
    return GST_AGGREGATOR_CLASS(tcmoa_fuse_parent_class)->flush(aggregator);
}

// A deadline leaves time to fuse, so that the result is not late itself.
GstClockTime get_next_time(GstAggregator *aggregator) {
    const GstClockTime next = gst_aggregator_simple_get_next_time(aggregator);
    const GstClockTime spent = TCMOA_FUSE(aggregator)->state->meter.reported();
    return GST_CLOCK_TIME_IS_VALID(next) && next > spent ? next - spent : next;
}

// The output ends with x, but the base class lets nobody know before y has a frame, too: a gap stands for one.
void wake_for_end(GstAggregator *aggregator, GstAggregatorPad *y) {
    GST_OBJECT_LOCK(y);
    const GstSegment segment = y->segment;
    GST_OBJECT_UNLOCK(y);
    if (segment.format != GST_FORMAT_TIME || gst_aggregator_pad_is_eos(y)) return;
    GST_AGGREGATOR_CLASS(tcmoa_fuse_parent_class)
        ->sink_event(aggregator, y, gst_event_new_gap(segment.start, GST_CLOCK_TIME_NONE));
}

gboolean sink_event(GstAggregator *aggregator, GstAggregatorPad *pad, GstEvent *event) {
    auto *self = TCMOA_FUSE(aggregator);
    Feed &feed = *TCMOA_FUSE_PAD(pad)->feed;
    if (GST_EVENT_TYPE(event) == GST_EVENT_CAPS) {
        // Not to the base class, which keeps new caps pending until it takes a frame itself.
        GstCaps *caps = nullptr;
        gst_event_parse_caps(event, &caps);
        const bool accepted = accept_caps(self, feed, caps);
        gst_event_unref(event);
        return accepted;
    }
    if (GST_EVENT_TYPE(event) == GST_EVENT_SEGMENT) {
        GstSegment segment;
        gst_event_copy_segment(event, &segment);
        if (segment.format != GST_FORMAT_TIME) {
            GST_ELEMENT_ERROR(self, STREAM, FORMAT,
                              ("%s counts %s, not time: put a parser in front, as rawvideoparse",
                               GST_OBJECT_NAME(pad), gst_format_get_name(segment.format)),
                              (nullptr));
            self->state->failure = "segment";
            gst_event_unref(event);
            return FALSE;
        }
        if (&feed == &self->state->x) {
            // The output's time is x's.
            segment.position = GST_CLOCK_TIME_NONE;
            gst_aggregator_update_segment(aggregator, &segment);
        }
        GST_OBJECT_LOCK(self);
        self->state->quality.reset();
        GST_OBJECT_UNLOCK(self);
    }
    const bool x_ends = GST_EVENT_TYPE(event) == GST_EVENT_EOS && &feed == &self->state->x;
    const gboolean done = GST_AGGREGATOR_CLASS(tcmoa_fuse_parent_class)->sink_event(aggregator, pad, event);
    if (x_ends) wake_for_end(aggregator, GST_AGGREGATOR_PAD(self->state->y.pad()));
    return done;
}

gboolean sink_query(GstAggregator *aggregator, GstAggregatorPad *pad, GstQuery *query) {
    auto *self = TCMOA_FUSE(aggregator);
    if (GST_QUERY_TYPE(query) == GST_QUERY_CAPS) {
        GstCaps *filter = nullptr;
        gst_query_parse_caps(query, &filter);
        GstCaps *caps = query_sink_caps(self, GST_PAD(pad), filter);
        gst_query_set_caps_result(query, caps);
        gst_caps_unref(caps);
        return TRUE;
    }
    if (GST_QUERY_TYPE(query) == GST_QUERY_ACCEPT_CAPS) {
        // Frames of another size are let in and refused with the caps event, whose error says what to do; refused
        // here, the message would be upstream's "not negotiated".
        GstCaps *caps = nullptr;
        gst_query_parse_accept_caps(query, &caps);
        GstCaps *any = gst_pad_get_pad_template_caps(GST_PAD(pad));
        gst_query_set_accept_caps_result(query, gst_caps_is_subset(caps, any));
        gst_caps_unref(any);
        return TRUE;
    }
    return GST_AGGREGATOR_CLASS(tcmoa_fuse_parent_class)->sink_query(aggregator, pad, query);
}

gboolean src_query(GstAggregator *aggregator, GstQuery *query) {
    // The output ends with x; the base class would say the longer of the two.
    if (GST_QUERY_TYPE(query) == GST_QUERY_DURATION)
        return gst_pad_peer_query(GST_PAD(TCMOA_FUSE(aggregator)->state->x.pad()), query);
    return GST_AGGREGATOR_CLASS(tcmoa_fuse_parent_class)->src_query(aggregator, query);
}

gboolean src_event(GstAggregator *aggregator, GstEvent *event) {
    auto *self = TCMOA_FUSE(aggregator);
    if (GST_EVENT_TYPE(event) == GST_EVENT_QOS) {
        double proportion = 0;
        GstClockTimeDiff diff = 0;
        GstClockTime timestamp = 0;
        gst_event_parse_qos(event, nullptr, &proportion, &diff, &timestamp);
        const bool live = GST_CLOCK_TIME_IS_VALID(gst_aggregator_get_latency(aggregator));
        const GstClockTime frame = self->state->x.interval();
        GST_OBJECT_LOCK(self);
        self->state->quality.update(proportion, diff, timestamp, live, frame);
        GST_OBJECT_UNLOCK(self);
    }
    return GST_AGGREGATOR_CLASS(tcmoa_fuse_parent_class)->src_event(aggregator, event);
}

// What the signal `samples-selected` shows.
GstSample *peek_next_sample(GstAggregator *, GstAggregatorPad *pad) {
    const PicturePtr &selected = TCMOA_FUSE_PAD(pad)->feed->selected();
    if (!selected) return nullptr;
    GstVideoInfo info = selected->info;
    GstCaps *caps = gst_video_info_to_caps(&info);
    GstSample *sample = gst_sample_new(selected->buffer.get(), caps, &pad->segment, nullptr);
    gst_caps_unref(caps);
    return sample;
}

GstFlowReturn flush_pad(GstAggregatorPad *pad, GstAggregator *aggregator) {
    TCMOA_FUSE_PAD(pad)->feed->flush();
    return GST_AGGREGATOR_PAD_CLASS(tcmoa_fuse_pad_parent_class)->flush(pad, aggregator);
}

void finalize(GObject *object) {
    auto *self = TCMOA_FUSE(object);
    self->state->forget();
    delete self->state;
    G_OBJECT_CLASS(tcmoa_fuse_parent_class)->finalize(object);
}

void install_properties(GObjectClass *klass) {
    constexpr auto kAlways = static_cast<GParamFlags>(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS);
    constexpr auto kSettled = static_cast<GParamFlags>(kAlways | GST_PARAM_MUTABLE_READY);
    constexpr auto kPlaying = static_cast<GParamFlags>(kAlways | GST_PARAM_MUTABLE_PLAYING);
    constexpr auto kControlled = static_cast<GParamFlags>(kPlaying | GST_PARAM_CONTROLLABLE);
    g_object_class_install_property(
        klass, kBundle,
        g_param_spec_string("bundle", "Bundle",
                            "Folder that `tcmoa export` wrote. It is opened from NULL to READY, and its width and "
                            "height become those of all pads",
                            nullptr, kSettled));
    g_object_class_install_property(
        klass, kBackend,
        g_param_spec_string("backend", "Backend",
                            "What runs the network: auto (an engine that runs here, else OpenVINO), openvino, "
                            "openvino-bf16 or tensorrt",
                            "auto", kSettled));
    g_object_class_install_property(
        klass, kThreads,
        g_param_spec_int("threads", "Threads", "Threads of a backend on the CPU; 0: all cores", 0, G_MAXINT, 0,
                         kSettled));
    g_object_class_install_property(
        klass, kPromptScale,
        g_param_spec_double("prompt-scale", "Prompt scale",
                            "alpha: factor on what the network finds in x and y, a number without unit. 1 leaves it "
                            "as it is. Until it is set, the bundle's own default holds. Takes effect with the next "
                            "frame; a controller is read at each output frame's stream time",
                            -kPromptLimit, kPromptLimit, 1, kControlled));
    g_object_class_install_property(
        klass, kPromptShift,
        g_param_spec_double("prompt-shift", "Prompt shift",
                            "beta: added to what the network finds, a number without unit. 0 leaves it as it is, more "
                            "is more of x, less is more of y. Until it is set, the bundle's own default holds. Takes "
                            "effect with the next frame; a controller is read at each output frame's stream time",
                            -kPromptLimit, kPromptLimit, 0, kControlled));
    g_object_class_install_property(
        klass, kOnLoss,
        g_param_spec_enum("on-loss", "On loss",
                          "What comes out while a source is lost, which a WARNING message tells once: while no frame "
                          "of y is near x's in time (within 1.5 frames of the slower source and 20 ms; also after "
                          "EOS of y), or, in a live pipeline, while x is late by as much. The end of x always ends "
                          "the output. An INFO message tells when the source is back",
                          on_loss_type(), static_cast<int>(OnLoss::kHold), kPlaying));
    g_object_class_install_property(
        klass, kStats,
        g_param_spec_boxed("stats", "Statistics",
                           "What was done since READY: frames (fused), failed, dropped (late, by QoS), held (fused "
                           "with a lost source's last frame), passed (alone), unpaired (of x, without a partner and "
                           "not put out); backend-ns and convert-ns (sums over frames, nanoseconds in the network "
                           "and in converting pixels)",
                           GST_TYPE_STRUCTURE,
                           static_cast<GParamFlags>(G_PARAM_READABLE | G_PARAM_STATIC_STRINGS)));
}

GstAggregatorPad *add_sink(TcmoaFuse *self, const char *name) {
    GstPadTemplate *pad_template = gst_element_class_get_pad_template(GST_ELEMENT_GET_CLASS(self), name);
    auto *pad = static_cast<GstPad *>(g_object_new(TCMOA_TYPE_FUSE_PAD, "name", name, "direction", GST_PAD_SINK,
                                                   "template", pad_template, nullptr));
    gst_element_add_pad(GST_ELEMENT(self), pad);
    return GST_AGGREGATOR_PAD(pad);
}

}  // namespace

static void tcmoa_fuse_pad_class_init(TcmoaFusePadClass *klass) {
    auto *pad_class = GST_AGGREGATOR_PAD_CLASS(klass);
    pad_class->flush = flush_pad;
    // The base class drops late frames by a grid of times that this element does not use.
    pad_class->skip_buffer = nullptr;
}

static void tcmoa_fuse_pad_init(TcmoaFusePad *) {}

static void tcmoa_fuse_class_init(TcmoaFuseClass *klass) {
    auto *object_class = G_OBJECT_CLASS(klass);
    object_class->set_property = set_property;
    object_class->get_property = get_property;
    object_class->finalize = finalize;
    install_properties(object_class);

    auto *element_class = GST_ELEMENT_CLASS(klass);
    element_class->change_state = change_state;
    gst_element_class_add_static_pad_template_with_gtype(element_class, &x_template, TCMOA_TYPE_FUSE_PAD);
    gst_element_class_add_static_pad_template_with_gtype(element_class, &y_template, TCMOA_TYPE_FUSE_PAD);
    gst_element_class_add_static_pad_template_with_gtype(element_class, &src_template, GST_TYPE_AGGREGATOR_PAD);
    gst_element_class_set_static_metadata(
        element_class, "TC-MoA image fusion", "Filter/Effect/Video",
        "Fuses two registered videos of one scene into one, e.g. visible light and infrared, with a bundle that "
        "`tcmoa export` wrote. One frame comes out for each frame of sink_x, with its time stamp, duration and "
        "segment; the frame of sink_y that covers most of its time goes with it, whatever its framerate",
        "TC-MoA deployment team");
    gst_type_mark_as_plugin_api(TCMOA_TYPE_FUSE_PAD, static_cast<GstPluginAPIFlags>(0));
    gst_type_mark_as_plugin_api(on_loss_type(), static_cast<GstPluginAPIFlags>(0));

    auto *aggregator_class = GST_AGGREGATOR_CLASS(klass);
    aggregator_class->aggregate = aggregate;
    aggregator_class->stop = stop;
    aggregator_class->flush = flush;
    aggregator_class->get_next_time = get_next_time;
    aggregator_class->sink_event = sink_event;
    aggregator_class->sink_query = sink_query;
    aggregator_class->src_query = src_query;
    aggregator_class->src_event = src_event;
    aggregator_class->update_src_caps = update_src_caps;
    aggregator_class->negotiated_src_caps = negotiated_src_caps;
    aggregator_class->peek_next_sample = peek_next_sample;
}

static void tcmoa_fuse_init(TcmoaFuse *self) {
    GstAggregatorPad *x = add_sink(self, "sink_x"), *y = add_sink(self, "sink_y");
    self->state = new State(x, y);
    TCMOA_FUSE_PAD(x)->feed = &self->state->x;
    TCMOA_FUSE_PAD(y)->feed = &self->state->y;
}
