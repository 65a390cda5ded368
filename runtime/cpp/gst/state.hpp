// The state of an element, shared by the files that implement it.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <string>

#include "fuser_handle.hpp"
#include "element_types.h"
#include "latency.hpp"
#include "link_watch.hpp"
#include "pad_queue.hpp"
#include "qos.hpp"

GST_DEBUG_CATEGORY_EXTERN(tcmoa_fuse_debug);

// Post an element error, warning or info message with a text that is composed at run time.
#define TCMOA_MESSAGE(KIND, self, domain, code, text) \
    GST_ELEMENT_##KIND(self, domain, code, ("%s", std::string(text).c_str()), (nullptr))

namespace tcmoa::gst {

enum class OnLoss { kHold, kPass, kStop };

// Values of the properties. Guarded by the object lock.
struct Settings {
    std::string bundle, backend = "auto";
    int threads = 0;
    std::optional<double> scale, shift;  // unset: the defaults of the bundle
    OnLoss on_loss = OnLoss::kHold;
    int fit = TCMOA_FIT_EXACT;
    bool trust_engines = false;
};

struct Counters {
    std::atomic<std::uint64_t> held = 0, passed = 0, dropped = 0, unpaired = 0;
};

struct State {
    State(GstAggregatorPad *x_pad, GstAggregatorPad *y_pad) : x(x_pad), y(y_pad) {}

    Settings settings;
    QosState qos;  // guarded by the object lock

    std::mutex fuser_lock;  // for reading `fuser` while the bundle is opened or closed
    FuserHandle fuser;
    FuserStats closed_stats;  // of the bundle that was closed last

    LinkWatch links;  // while the state is PAUSED or PLAYING
    Counters counters;

    // Used by the aggregating thread.
    PadQueue x, y;
    LatencyMeter latency;
    std::optional<GstClockTime> first_x;  // running time of the first frame of x
    GstClockTime output_until = 0;        // running time up to which frames of y were output in place of lost ones of x
    bool failed = false;                  // an error was posted: no more frames

    // Converts frames that are passed without fusing; created again when the caps of either side change.
    GstVideoConverter *converter = nullptr;
    GstVideoInfo converter_from = {}, converter_to = {};

    // Drop all frames, while no thread aggregates.
    void reset();
};

// Implemented with the element's type, in gsttcmoafuse.cpp.
State &state_of(TcmoaFuse *self);
PadQueue &queue_of(GstAggregatorPad *pad);
GstAggregatorClass *parent_class();

}  // namespace tcmoa::gst
