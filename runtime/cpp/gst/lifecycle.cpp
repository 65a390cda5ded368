// The bundle follows the element's states: opened before pads are asked for caps, closed when the element rests.
#include "element.hpp"

namespace tcmoa::gst {
namespace {

// Which kind of resource error a failed tcmoa_open() is.
GstResourceError code_of(int status) {
    switch (status) {
        case TCMOA_ERROR_MEMORY: return GST_RESOURCE_ERROR_NO_SPACE_LEFT;
        case TCMOA_ERROR_MISSING: return GST_RESOURCE_ERROR_OPEN_READ;
        case TCMOA_ERROR_INPUT: return GST_RESOURCE_ERROR_SETTINGS;
        case TCMOA_ERROR_BUNDLE: return GST_RESOURCE_ERROR_NOT_FOUND;
        default: return GST_RESOURCE_ERROR_FAILED;
    }
}

void post(TcmoaFuse *self, GstResourceError code, const std::string &text) {
    gst_element_message_full(GST_ELEMENT(self), GST_MESSAGE_ERROR, GST_RESOURCE_ERROR, static_cast<gint>(code),
                             g_strdup(text.c_str()), nullptr, __FILE__, __func__, __LINE__);
}

}  // namespace

bool open_bundle(TcmoaFuse *self) {
    State &state = state_of(self);
    GST_OBJECT_LOCK(self);
    const Settings settings = state.settings;
    GST_OBJECT_UNLOCK(self);
    if (settings.bundle.empty()) {
        post(self, GST_RESOURCE_ERROR_NOT_FOUND, "bundle is not set: expected a folder that `tcmoa export` wrote");
        return false;
    }
    int status = TCMOA_OK;
    std::string error;
    {
        const std::lock_guard guard(state.fuser_lock);
        status = state.fuser.open(settings.bundle, settings.backend, settings.threads);
        state.figures = {};
        if (status != TCMOA_OK) {
            error = state.fuser.error();
            state.fuser.close();
        }
    }
    if (status != TCMOA_OK) {  // without the lock: who gets the message may ask for `stats`
        post(self, code_of(status), error);
        return false;
    }
    state.counters.held = state.counters.passed = state.counters.dropped = state.counters.unpaired = 0;
    state.meter.start(state.fuser.first_frame_ns());
    return true;
}

void close_bundle(TcmoaFuse *self) {
    State &state = state_of(self);
    const std::lock_guard guard(state.fuser_lock);
    if (!state.fuser) return;
    state.figures = state.fuser.figures();
    state.fuser.close();
}

GstStructure *stats_of(TcmoaFuse *self) {
    State &state = state_of(self);
    const std::lock_guard guard(state.fuser_lock);
    const Figures figures = state.fuser ? state.fuser.figures() : state.figures;
    return gst_structure_new("tcmoafuse-stats", "frames", G_TYPE_UINT64, figures.frames, "failed", G_TYPE_UINT64,
                             figures.failed, "dropped", G_TYPE_UINT64, state.counters.dropped.load(), "held",
                             G_TYPE_UINT64, state.counters.held.load(), "passed", G_TYPE_UINT64,
                             state.counters.passed.load(), "unpaired", G_TYPE_UINT64, state.counters.unpaired.load(),
                             "backend-ns", G_TYPE_UINT64, figures.backend_ns, "convert-ns", G_TYPE_UINT64,
                             figures.convert_ns, nullptr);
}

void State::forget() {
    x.forget();
    y.forget();
    first_x.reset();
    shown_until = 0;
    failure.clear();
    if (converter != nullptr) gst_video_converter_free(converter);
    converter = nullptr;
    quality.reset();
}

}  // namespace tcmoa::gst
