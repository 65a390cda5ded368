#include "properties.hpp"

#include "lifecycle.hpp"

namespace tcmoa::gst {
namespace {

enum Property { kNoProperty, kBundle, kBackend, kThreads, kPromptScale, kPromptShift, kOnLoss, kFit, kTrustEngines, kStats };

constexpr double kMaxPrompt = 16;

constexpr const char *kBundleHelp =
    "Bundle folder that `tcmoa export` wrote. It is opened from NULL to READY; with fit=exact all pads then have its "
    "width and height";
constexpr const char *kBackendHelp =
    "Backend that runs the network: auto (TensorRT if the bundle has an engine that runs here, else OpenVINO), "
    "openvino, openvino-bf16 or tensorrt";
constexpr const char *kThreadsHelp = "Number of threads of a backend on the CPU; 0: all cores";
constexpr const char *kPromptScaleHelp =
    "alpha of Eq. 8: factor of the prompts that the network computes. 1 leaves them unchanged. Until it is set, the "
    "bundle's default is used. Takes effect with the next frame; a controller is evaluated at the stream time of each "
    "output frame. An error with a network that has no prompt (`tcmoa wrap`)";
constexpr const char *kPromptShiftHelp =
    "beta of Eq. 8: added to the prompts that the network computes. 0 leaves them unchanged, larger values give x more "
    "weight, smaller values y. Until it is set, the bundle's default is used. Takes effect with the next frame; a "
    "controller is evaluated at the stream time of each output frame. An error with a network that has no prompt";
constexpr const char *kOnLossHelp =
    "What is output while a source is lost. y is lost while none of its frames is near the frame of x in time (within "
    "1.5 frames of the slower source plus 20 ms; also after its EOS). In a live pipeline, x is lost while it is late by "
    "that time. The end of x always ends the output. A WARNING message reports the loss, an INFO message the recovery";
constexpr const char *kFitHelp =
    "How frames of another size than the bundle's are fused. The output has the size of sink_x. Frames of the bundle's "
    "size are fused as they are";
constexpr const char *kTrustEnginesHelp =
    "Load engines of the bundle that this user did not build with `tcmoa build`, too. An engine is native code: trust "
    "whoever built it";
constexpr const char *kStatsHelp =
    "Counters since READY: frames (fused), failed, dropped (late, by QoS), held (fused with the last frame of a lost "
    "source), passed (without fusing), unpaired (frames of x without a partner and without an output); backend-ns and "
    "convert-ns (total nanoseconds in the network and in the conversion of pixels)";

std::string string_of(const GValue *value) {
    const gchar *text = g_value_get_string(value);
    return text == nullptr ? "" : text;
}

// Properties of the open bundle cannot change while it is in use.
bool refuse_change(TcmoaFuse *self, guint id, const GParamSpec *spec) {
    if (id != kBundle && id != kBackend && id != kThreads && id != kFit && id != kTrustEngines) return false;
    if (GST_STATE(self) <= GST_STATE_READY) return false;
    TCMOA_MESSAGE(WARNING, self, RESOURCE, SETTINGS,
                  std::string(spec->name) + ": not changed; expected the state NULL or READY. Stop the element first.");
    return true;
}

void set_property(GObject *object, guint id, const GValue *value, GParamSpec *spec) {
    auto *self = TCMOA_FUSE(object);
    if (refuse_change(self, id, spec)) return;
    Settings &settings = state_of(self).settings;
    GST_OBJECT_LOCK(self);
    switch (id) {
        case kBundle: settings.bundle = string_of(value); break;
        case kBackend: settings.backend = string_of(value); break;
        case kThreads: settings.threads = g_value_get_int(value); break;
        case kPromptScale: settings.scale = g_value_get_double(value); break;
        case kPromptShift: settings.shift = g_value_get_double(value); break;
        case kOnLoss: settings.on_loss = static_cast<OnLoss>(g_value_get_enum(value)); break;
        case kFit: settings.fit = g_value_get_enum(value); break;
        case kTrustEngines: settings.trust_engines = g_value_get_boolean(value) != FALSE; break;
        default: G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
    }
    GST_OBJECT_UNLOCK(self);
}

void get_property(GObject *object, guint id, GValue *value, GParamSpec *spec) {
    auto *self = TCMOA_FUSE(object);
    if (id == kStats) {
        g_value_take_boxed(value, get_stats(self));
        return;
    }
    State &state = state_of(self);
    double default_scale = 1, default_shift = 0;
    {
        const std::lock_guard guard(state.fuser_lock);
        if (state.fuser) {
            default_scale = static_cast<double>(state.fuser.info().default_scale);
            default_shift = static_cast<double>(state.fuser.info().default_shift);
        }
    }
    const Settings &settings = state.settings;
    GST_OBJECT_LOCK(self);
    switch (id) {
        case kBundle: g_value_set_string(value, settings.bundle.empty() ? nullptr : settings.bundle.c_str()); break;
        case kBackend: g_value_set_string(value, settings.backend.c_str()); break;
        case kThreads: g_value_set_int(value, settings.threads); break;
        case kPromptScale: g_value_set_double(value, settings.scale.value_or(default_scale)); break;
        case kPromptShift: g_value_set_double(value, settings.shift.value_or(default_shift)); break;
        case kOnLoss: g_value_set_enum(value, static_cast<int>(settings.on_loss)); break;
        case kFit: g_value_set_enum(value, settings.fit); break;
        case kTrustEngines: g_value_set_boolean(value, settings.trust_engines); break;
        default: G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
    }
    GST_OBJECT_UNLOCK(self);
}

}  // namespace

GType on_loss_type() {
    static const GEnumValue values[] = {
        {static_cast<int>(OnLoss::kHold), "Fuse with the last frame of the lost source", "hold"},
        {static_cast<int>(OnLoss::kPass), "Pass the frames of the other source without fusing", "pass"},
        {static_cast<int>(OnLoss::kStop), "End the stream (EOS)", "stop"},
        {0, nullptr, nullptr}};
    static const GType type = g_enum_register_static("TcmoaFuseOnLoss", values);
    return type;
}

GType fit_type() {
    static const GEnumValue values[] = {
        {TCMOA_FIT_EXACT, "Refuse them", "exact"},
        {TCMOA_FIT_RESIZE, "Resize the sources, and the result to the size of sink_x; loses detail", "resize"},
        {TCMOA_FIT_PAD, "Pad smaller frames by repeating their edges, and crop the result", "pad"},
        {TCMOA_FIT_TILE, "Cut frames into overlapping tiles that are blended; smaller frames are padded", "tile"},
        {TCMOA_FIT_AUTO, "As tile; as resize for a bundle that cannot be tiled", "auto"},
        {0, nullptr, nullptr}};
    static const GType type = g_enum_register_static("TcmoaFuseFit", values);
    return type;
}

void install_properties(GObjectClass *object_class) {
    object_class->set_property = set_property;
    object_class->get_property = get_property;
    constexpr auto kReadWrite = static_cast<GParamFlags>(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS);
    constexpr auto kReady = static_cast<GParamFlags>(kReadWrite | GST_PARAM_MUTABLE_READY);
    constexpr auto kPlaying = static_cast<GParamFlags>(kReadWrite | GST_PARAM_MUTABLE_PLAYING);
    constexpr auto kControllable = static_cast<GParamFlags>(kPlaying | GST_PARAM_CONTROLLABLE);
    const auto install = [&](Property id, GParamSpec *spec) {
        g_object_class_install_property(object_class, id, spec);
    };
    install(kBundle, g_param_spec_string("bundle", "Bundle", kBundleHelp, nullptr, kReady));
    install(kBackend, g_param_spec_string("backend", "Backend", kBackendHelp, "auto", kReady));
    install(kThreads, g_param_spec_int("threads", "Threads", kThreadsHelp, 0, G_MAXINT, 0, kReady));
    install(kPromptScale, g_param_spec_double("prompt-scale", "Prompt scale", kPromptScaleHelp, -kMaxPrompt, kMaxPrompt,
                                              1, kControllable));
    install(kPromptShift, g_param_spec_double("prompt-shift", "Prompt shift", kPromptShiftHelp, -kMaxPrompt, kMaxPrompt,
                                              0, kControllable));
    install(kOnLoss, g_param_spec_enum("on-loss", "On loss", kOnLossHelp, on_loss_type(),
                                       static_cast<int>(OnLoss::kHold), kPlaying));
    install(kFit, g_param_spec_enum("fit", "Fit", kFitHelp, fit_type(), TCMOA_FIT_EXACT, kReady));
    install(kTrustEngines, g_param_spec_boolean("trust-engines", "Trust engines", kTrustEnginesHelp, FALSE, kReady));
    install(kStats, g_param_spec_boxed("stats", "Statistics", kStatsHelp, GST_TYPE_STRUCTURE,
                                       static_cast<GParamFlags>(G_PARAM_READABLE | G_PARAM_STATIC_STRINGS)));
}

}  // namespace tcmoa::gst
