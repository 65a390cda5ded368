// The element's type: pads, state and virtual functions.
#include "gsttcmoafuse.h"

#include "aggregate.hpp"
#include "caps.hpp"
#include "element_types.h"
#include "events.hpp"
#include "lifecycle.hpp"
#include "negotiate.hpp"
#include "properties.hpp"
#include "state.hpp"

using namespace tcmoa::gst;

GST_DEBUG_CATEGORY(tcmoa_fuse_debug);
#define GST_CAT_DEFAULT tcmoa_fuse_debug

struct _TcmoaFusePad {
    GstVideoAggregatorPad parent;
    PadQueue *queue;  // owned by the element
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
PadQueue &tcmoa::gst::queue_of(GstAggregatorPad *pad) { return *TCMOA_FUSE_PAD(pad)->queue; }
GstAggregatorClass *tcmoa::gst::parent_class() { return GST_AGGREGATOR_CLASS(tcmoa_fuse_parent_class); }

namespace {

#define TCMOA_GST_CAPS GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE(TCMOA_GST_FORMATS))

GstStaticPadTemplate x_template = GST_STATIC_PAD_TEMPLATE("sink_x", GST_PAD_SINK, GST_PAD_ALWAYS, TCMOA_GST_CAPS);
GstStaticPadTemplate y_template = GST_STATIC_PAD_TEMPLATE("sink_y", GST_PAD_SINK, GST_PAD_ALWAYS, TCMOA_GST_CAPS);
GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, TCMOA_GST_CAPS);

gboolean stop(GstAggregator *aggregator) {
    state_of(TCMOA_FUSE(aggregator)).reset();
    return parent_class()->stop(aggregator);
}

GstFlowReturn flush(GstAggregator *aggregator) {
    auto *self = TCMOA_FUSE(aggregator);
    State &state = state_of(self);
    state.first_x.reset();
    state.output_until = 0;
    GST_OBJECT_LOCK(self);
    state.qos.reset();
    GST_OBJECT_UNLOCK(self);
    return parent_class()->flush(aggregator);
}

// The deadline of the next frame is early enough to fuse it in time.
GstClockTime get_next_time(GstAggregator *aggregator) {
    const GstClockTime next = gst_aggregator_simple_get_next_time(aggregator);
    const GstClockTime fusing = state_of(TCMOA_FUSE(aggregator)).latency.reported();
    return GST_CLOCK_TIME_IS_VALID(next) && next > fusing ? next - fusing : next;
}

// The sample of the signal `samples-selected`.
GstSample *peek_next_sample(GstAggregator *, GstAggregatorPad *pad) {
    const FramePtr &selected = queue_of(pad).selected();
    if (!selected) return nullptr;
    GstVideoInfo info = selected->info;
    GstCaps *caps = gst_video_info_to_caps(&info);
    GstSample *sample = gst_sample_new(selected->buffer.get(), caps, &pad->segment, nullptr);
    gst_caps_unref(caps);
    return sample;
}

GstFlowReturn flush_pad(GstAggregatorPad *pad, GstAggregator *aggregator) {
    queue_of(pad).flush();
    return GST_AGGREGATOR_PAD_CLASS(tcmoa_fuse_pad_parent_class)->flush(pad, aggregator);
}

void finalize(GObject *object) {
    auto *self = TCMOA_FUSE(object);
    self->state->reset();
    delete self->state;
    G_OBJECT_CLASS(tcmoa_fuse_parent_class)->finalize(object);
}

GstAggregatorPad *add_sink_pad(TcmoaFuse *self, const char *name) {
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
    // The base class drops late frames by output times that this element does not use.
    pad_class->skip_buffer = nullptr;
}

static void tcmoa_fuse_pad_init(TcmoaFusePad *) {}

static void tcmoa_fuse_class_init(TcmoaFuseClass *klass) {
    auto *object_class = G_OBJECT_CLASS(klass);
    object_class->finalize = finalize;
    install_properties(object_class);

    auto *element_class = GST_ELEMENT_CLASS(klass);
    element_class->change_state = change_state;
    gst_element_class_add_static_pad_template_with_gtype(element_class, &x_template, TCMOA_TYPE_FUSE_PAD);
    gst_element_class_add_static_pad_template_with_gtype(element_class, &y_template, TCMOA_TYPE_FUSE_PAD);
    gst_element_class_add_static_pad_template_with_gtype(element_class, &src_template, GST_TYPE_AGGREGATOR_PAD);
    gst_element_class_set_static_metadata(
        element_class, "TC-MoA image fusion", "Filter/Effect/Video",
        "Fuses two registered videos of one scene, e.g. visible light and infrared, with a bundle that `tcmoa export` "
        "wrote. Each frame of sink_x gives one output frame with the same timestamp, duration and segment; it is fused "
        "with the frame of sink_y that covers most of its time. The sources may have different framerates",
        "TC-MoA deployment team");
    gst_type_mark_as_plugin_api(TCMOA_TYPE_FUSE_PAD, static_cast<GstPluginAPIFlags>(0));
    gst_type_mark_as_plugin_api(on_loss_type(), static_cast<GstPluginAPIFlags>(0));
    gst_type_mark_as_plugin_api(fit_type(), static_cast<GstPluginAPIFlags>(0));

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
    GstAggregatorPad *x = add_sink_pad(self, "sink_x"), *y = add_sink_pad(self, "sink_y");
    self->state = new State(x, y);
    TCMOA_FUSE_PAD(x)->queue = &self->state->x;
    TCMOA_FUSE_PAD(y)->queue = &self->state->y;
}
