// What the files of the element share: its state, and the steps that are apart.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <string>

#include "feed.hpp"
#include "fuser.hpp"
#include "gsttcmoafuse.h"
#include "latency.hpp"
#include "quality.hpp"

GST_DEBUG_CATEGORY_EXTERN(tcmoa_fuse_debug);

// An element error, warning or info message with a text that is known only at run time.
#define TCMOA_MESSAGE(KIND, self, domain, code, text) \
    GST_ELEMENT_##KIND(self, domain, code, ("%s", std::string(text).c_str()), (nullptr))

namespace tcmoa::gst {

enum class OnLoss { kHold, kPass, kStop };

// Properties as they are set. The object lock guards them.
struct Settings {
    std::string bundle, backend = "auto";
    int threads = 0;
    std::optional<double> scale, shift;  // until they are set, the bundle's own hold
    OnLoss on_loss = OnLoss::kHold;
};

struct Counters {
    std::atomic<std::uint64_t> held = 0, passed = 0, dropped = 0, unpaired = 0;
};

struct State {
    explicit State(GstAggregatorPad *x_pad, GstAggregatorPad *y_pad) : x(x_pad), y(y_pad) {}

    Settings settings;
    Quality quality;  // the object lock guards it

    std::mutex fuser_lock;  // for reading figures while the bundle is opened or closed
    Fuser fuser;
    Figures figures;  // of the bundle that was closed last

    Counters counters;

    // Of the aggregating thread.
    Feed x, y;
    LatencyMeter meter;
    std::optional<GstClockTime> first_x;    // running time of the first frame of x
    GstClockTime shown_until = 0;           // running time up to which frames of y led the output
    std::string failure;                    // caps were refused: no more frames

    // Converts frames that pass alone; made anew when either side's caps change.
    GstVideoConverter *converter = nullptr;
    GstVideoInfo converter_from = {}, converter_to = {};

    void forget();  // all frames, while nothing runs
};

State &state_of(TcmoaFuse *self);

// lifecycle.cpp: the bundle follows the element's states.
bool open_bundle(TcmoaFuse *self);
void close_bundle(TcmoaFuse *self);
GstStructure *stats_of(TcmoaFuse *self);

// negotiate.cpp
GstFlowReturn update_src_caps(GstAggregator *aggregator, GstCaps *allowed, GstCaps **result);
gboolean negotiated_src_caps(GstAggregator *aggregator, GstCaps *caps);
bool accept_caps(TcmoaFuse *self, Feed &feed, GstCaps *caps);
GstCaps *query_sink_caps(TcmoaFuse *self, GstPad *pad, GstCaps *filter);
void report_latency(TcmoaFuse *self);

// aggregate.cpp
GstFlowReturn aggregate(GstAggregator *aggregator, gboolean timeout);

// produce.cpp: one output frame in the time of `lead`; `x` or `y` NULL: the other passes alone.
GstFlowReturn produce(TcmoaFuse *self, const Picture &lead, const PicturePtr &x, const PicturePtr &y);

}  // namespace tcmoa::gst
