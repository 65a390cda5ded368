#include "lifecycle.hpp"

namespace tcmoa::gst {
namespace {

GstResourceError error_code(int status) {
    switch (status) {
        case TCMOA_ERROR_MEMORY: return GST_RESOURCE_ERROR_NO_SPACE_LEFT;
        case TCMOA_ERROR_MISSING: return GST_RESOURCE_ERROR_OPEN_READ;
        case TCMOA_ERROR_INPUT: return GST_RESOURCE_ERROR_SETTINGS;
        case TCMOA_ERROR_BUNDLE: return GST_RESOURCE_ERROR_NOT_FOUND;
        default: return GST_RESOURCE_ERROR_FAILED;
    }
}

void post_error(TcmoaFuse *self, GstResourceError code, const std::string &text) {
    gst_element_message_full(GST_ELEMENT(self), GST_MESSAGE_ERROR, GST_RESOURCE_ERROR, static_cast<gint>(code),
                             g_strdup(text.c_str()), nullptr, __FILE__, __func__, __LINE__);
}

bool open_bundle(TcmoaFuse *self) {
    State &state = state_of(self);
    GST_OBJECT_LOCK(self);
    const Settings settings = state.settings;
    GST_OBJECT_UNLOCK(self);
    if (settings.bundle.empty()) {
        post_error(self, GST_RESOURCE_ERROR_NOT_FOUND,
                   "bundle: not set; expected a bundle folder. Make one with `tcmoa export`");
        return false;
    }
    int status = TCMOA_OK;
    std::string error;
    {
        const std::lock_guard guard(state.fuser_lock);
        status = state.fuser.open(settings.bundle, settings.backend, settings.threads, settings.fit, settings.trust_engines);
        state.closed_stats = {};
        if (status != TCMOA_OK) {
            error = state.fuser.error();
            state.fuser.close();
        }
    }
    if (status != TCMOA_OK) {  // posted without the lock: the receiver may read the property `stats`
        post_error(self, error_code(status), error);
        return false;
    }
    state.counters.held = state.counters.passed = state.counters.dropped = state.counters.unpaired = 0;
    state.latency.start(state.fuser.first_frame_ns());
    return true;
}

void close_bundle(TcmoaFuse *self) {
    State &state = state_of(self);
    const std::lock_guard guard(state.fuser_lock);
    if (!state.fuser) return;
    state.closed_stats = state.fuser.stats();
    state.fuser.close();
}

// The bundle is opened from NULL to READY, since e.g. videoscale asks for the frame size before the first frame. A
// bundle that was set or changed in READY is opened from READY to PAUSED.
bool must_open(TcmoaFuse *self, GstStateChange transition) {
    State &state = state_of(self);
    GST_OBJECT_LOCK(self);
    const std::string bundle = state.settings.bundle;
    const int fit = state.settings.fit;
    GST_OBJECT_UNLOCK(self);
    if (transition == GST_STATE_CHANGE_NULL_TO_READY) return !bundle.empty();
    if (transition == GST_STATE_CHANGE_READY_TO_PAUSED) {
        return !state.fuser || state.fuser.bundle() != bundle || state.fuser.fit() != fit;
    }
    return false;
}

}  // namespace

GstStateChangeReturn change_state(GstElement *element, GstStateChange transition) {
    auto *self = TCMOA_FUSE(element);
    if (must_open(self, transition) && !open_bundle(self)) return GST_STATE_CHANGE_FAILURE;
    if (transition == GST_STATE_CHANGE_PAUSED_TO_READY) state_of(self).links.stop();
    const GstStateChangeReturn result = GST_ELEMENT_CLASS(parent_class())->change_state(element, transition);
    if (transition == GST_STATE_CHANGE_READY_TO_PAUSED && result != GST_STATE_CHANGE_FAILURE) {
        state_of(self).links.start(element);
    }
    if (transition == GST_STATE_CHANGE_READY_TO_NULL) close_bundle(self);
    return result;
}

GstStructure *get_stats(TcmoaFuse *self) {
    State &state = state_of(self);
    const std::lock_guard guard(state.fuser_lock);
    const FuserStats stats = state.fuser ? state.fuser.stats() : state.closed_stats;
    return gst_structure_new("tcmoafuse-stats", "frames", G_TYPE_UINT64, stats.frames, "failed", G_TYPE_UINT64,
                             stats.failed, "dropped", G_TYPE_UINT64, state.counters.dropped.load(), "held",
                             G_TYPE_UINT64, state.counters.held.load(), "passed", G_TYPE_UINT64,
                             state.counters.passed.load(), "unpaired", G_TYPE_UINT64, state.counters.unpaired.load(),
                             "backend-ns", G_TYPE_UINT64, stats.backend_ns, "convert-ns", G_TYPE_UINT64,
                             stats.convert_ns, nullptr);
}

}  // namespace tcmoa::gst
