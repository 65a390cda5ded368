#include "link_watch.hpp"

#include <string>

namespace tcmoa::gst {
namespace {

constexpr GstClockTime kInterval = GST_SECOND / 2;
constexpr int kMaxChecks = 4;

struct Watched {
    explicit Watched(GstElement *watched) : element(GST_ELEMENT(gst_object_ref(watched))) {}
    ~Watched() { gst_object_unref(element); }
    Watched(const Watched &) = delete;
    Watched &operator=(const Watched &) = delete;

    GstElement *element;
    bool was_linked[2] = {false, false};  // sink_x, sink_y
    int num_checks = 0;                   // in which a pad was missing and nothing could add it
    bool is_done = false;
};

// Whether an element adds source pads when it has read its input, and has not added one yet.
bool awaits_pads(GstElement *element) {
    if (element->numsrcpads > 0) return false;
    for (const GList *item = GST_ELEMENT_GET_CLASS(element)->padtemplates; item != nullptr; item = item->next) {
        const auto *pad_template = static_cast<const GstPadTemplate *>(item->data);
        if (pad_template->presence == GST_PAD_SOMETIMES && pad_template->direction == GST_PAD_SRC) return true;
    }
    return false;
}

// Whether an element of the pipeline may still add pads.
bool pipeline_awaits_pads(GstElement *element) {
    GstObject *top = GST_OBJECT(gst_object_ref(element));
    for (GstObject *parent = gst_object_get_parent(top); parent != nullptr; parent = gst_object_get_parent(top)) {
        gst_object_unref(top);
        top = parent;
    }
    bool found = false;
    if (GST_IS_BIN(top)) {
        GstIterator *elements = gst_bin_iterate_recurse(GST_BIN(top));
        const auto check = [](const GValue *value, gpointer result) {
            auto *each = GST_ELEMENT(g_value_get_object(value));
            if (awaits_pads(each)) *static_cast<bool *>(result) = true;
        };
        while (gst_iterator_foreach(elements, check, &found) == GST_ITERATOR_RESYNC) gst_iterator_resync(elements);
        gst_iterator_free(elements);
    }
    gst_object_unref(top);
    return found;
}

void report(GstElement *element, const bool was_linked[2]) {
    const std::string names = was_linked[0] ? "sink_y" : was_linked[1] ? "sink_x" : "sink_x and sink_y";
    const std::string example = was_linked[0] ? "sink_y" : "sink_x";
    gchar *name = gst_element_get_name(element);
    const std::string text = names + ": not linked; expected a video on each of sink_x and sink_y. Link one, e.g. "
                                     "videotestsrc ! " + name + "." + example + ".";
    GST_ELEMENT_ERROR(element, CORE, PAD, ("%s", text.c_str()), (nullptr));
    g_free(name);
}

gboolean check(GstClock *, GstClockTime, GstClockID, gpointer data) {
    auto &watched = *static_cast<Watched *>(data);
    if (watched.is_done) return FALSE;
    bool all = true;
    const char *const names[2] = {"sink_x", "sink_y"};
    for (int i = 0; i < 2; ++i) {
        GstPad *pad = gst_element_get_static_pad(watched.element, names[i]);
        watched.was_linked[i] = watched.was_linked[i] || gst_pad_is_linked(pad);
        gst_object_unref(pad);
        all = all && watched.was_linked[i];
    }
    if (all) {
        watched.is_done = true;
    } else if (pipeline_awaits_pads(watched.element)) {
        watched.num_checks = 0;
    } else if (++watched.num_checks == kMaxChecks) {
        watched.is_done = true;
        report(watched.element, watched.was_linked);
    }
    return TRUE;
}

}  // namespace

void LinkWatch::start(GstElement *element) {
    stop();
    GstClock *clock = gst_system_clock_obtain();
    timer_ = gst_clock_new_periodic_id(clock, gst_clock_get_time(clock) + kInterval, kInterval);
    const auto free = [](gpointer data) { delete static_cast<Watched *>(data); };
    gst_clock_id_wait_async(timer_, check, new Watched(element), free);
    gst_object_unref(clock);
}

// A check that is running keeps the element alive and ends by itself.
void LinkWatch::stop() {
    if (timer_ == nullptr) return;
    gst_clock_id_unschedule(timer_);
    gst_clock_id_unref(timer_);
    timer_ = nullptr;
}

}  // namespace tcmoa::gst
