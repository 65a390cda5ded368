// The functions of tcmoa.h: arguments are checked, exceptions become statuses and messages.
#include <algorithm>
#include <chrono>
#include <memory>
#include <new>
#include <string>

#include "error.hpp"
#include "frame.hpp"
#include "fuser.hpp"
#include "handle.hpp"
#include "load_backend.hpp"
#include "tcmoa.h"

namespace {

using tcmoa::Error;
using tcmoa::fail_input;

constexpr int kMaxSlots = 16;
constexpr int kMaxThreads = 1024;
constexpr int kMaxCudaDevice = 1023;
constexpr std::int64_t kMaxTimeoutMs = 86'400'000;  // a day; far below what overflows a clock

thread_local tcmoa::LastError last_error;  // of calls without a handle

bool is_usable(const tcmoa_fuser *fuser) noexcept { return fuser != nullptr && fuser->is_of_this_process(); }

void set_error(tcmoa_fuser *fuser, std::string_view message) noexcept {
    (is_usable(fuser) ? fuser->error : last_error).set(message);
}

// Run `body`; an exception becomes a status and a message.
template <typename Body>
int guarded(tcmoa_fuser *fuser, Body body) noexcept {
    try {
        return body();
    } catch (const Error &error) {
        set_error(fuser, error.what());
        return error.status();
    } catch (const std::bad_alloc &) {
        set_error(fuser, "out of memory. Export a smaller frame, or end other programs.");
        return TCMOA_ERROR_MEMORY;
    } catch (const std::exception &error) {
        set_error(fuser, "internal error: " + tcmoa::first_line(error.what()) + ". Please report it.");
        return TCMOA_ERROR_INTERNAL;
    } catch (...) {
        set_error(fuser, "internal error: unknown exception. Please report it.");
        return TCMOA_ERROR_INTERNAL;
    }
}

template <typename Body>
int with_handle(tcmoa_fuser *fuser, const char *function, Body body) noexcept {
    return guarded(fuser, [&] {
        if (fuser == nullptr) fail_input(function, "the handle is NULL; expected a handle of tcmoa_open()");
        if (!fuser->is_of_this_process()) {
            fail_input(function,
                       "the handle is of process " + std::to_string(fuser->process) +
                           ", from before fork(); expected a handle of this process",
                       "open the bundle in the child process");
        }
        body(fuser->fuser);
        return TCMOA_OK;
    });
}

void require(const void *pointer, const char *function, const char *parameter) {
    if (pointer == nullptr) fail_input(function, std::string(parameter) + " is NULL; expected an address to write to");
}

void check_range(const char *option, int value, int min, int max) {
    if (value >= min && value <= max) return;
    fail_input(std::string("options.") + option,
               std::to_string(value) + "; expected " + std::to_string(min) + " to " + std::to_string(max));
}

void check_options(const tcmoa_options &options) {
    bool zero = true;
    for (auto word : options.reserved) zero = zero && word == 0;
    if (!zero) {
        fail_input("options.reserved", "not 0; expected 0",
                   "fill the options with tcmoa_options_default() before setting fields");
    }
    const std::string backend = options.backend == nullptr ? "auto" : options.backend;
    if (backend != "auto" && backend != "openvino" && backend != "openvino-bf16" && backend != "tensorrt") {
        fail_input("options.backend",
                   "'" + tcmoa::printable(backend) + "'; expected auto, openvino, openvino-bf16 or tensorrt");
    }
    check_range("threads", options.threads, 0, kMaxThreads);
    check_range("slots", options.slots, 1, kMaxSlots);
    check_range("cuda_device", options.cuda_device, 0, kMaxCudaDevice);
    check_range("cuda_graph", options.cuda_graph, 0, 1);
    check_range("trust_engines", options.trust_engines, 0, 1);
    check_range("fit", options.fit, TCMOA_FIT_EXACT, TCMOA_FIT_AUTO);
    if (!(options.stretch_low >= 0 && options.stretch_low < options.stretch_high && options.stretch_high <= 100)) {
        fail_input("options.stretch_low, options.stretch_high",
                   std::to_string(options.stretch_low) + ", " + std::to_string(options.stretch_high) +
                       "; expected percentiles 0 <= low < high <= 100");
    }
}

void check_batch(const tcmoa::Bundle &bundle, int fit) {
    if (bundle.contract.batch == 1 || fit == TCMOA_FIT_TILE || fit == TCMOA_FIT_AUTO) return;
    fail_input(bundle.path.string(),
               "fuses batches of " + std::to_string(bundle.contract.batch) + " pairs; expected a batch of 1",
               "export a bundle with a batch of 1, or set options.fit to TCMOA_FIT_TILE, which fuses tiles in batches");
}

void check_sides(const char *function, int width, int height) {
    const auto is_side = [](int side) { return side >= 1 && side <= tcmoa::kMaxSide; };
    if (is_side(width) && is_side(height)) return;
    fail_input(function, tcmoa::size_text(width, height) + "; expected sides from 1 to " + std::to_string(tcmoa::kMaxSide));
}

tcmoa_options copy_options(const tcmoa_options *options) {
    tcmoa_options copy;
    tcmoa_options_default(&copy);
    if (options == nullptr) return copy;
    if (options->struct_size != sizeof(tcmoa_options)) {
        fail_input("options.struct_size",
                   std::to_string(options->struct_size) + "; expected " + std::to_string(sizeof(tcmoa_options)) +
                       ", the size in libtcmoa " + tcmoa_version(),
                   "call tcmoa_options_default(), and compile with the header of this version");
    }
    copy = *options;
    check_options(copy);
    return copy;
}

}  // namespace

extern "C" {

const char *tcmoa_version(void) {
#define TCMOA_STRINGIZE(number) #number
#define TCMOA_JOIN(major, minor, patch) TCMOA_STRINGIZE(major) "." TCMOA_STRINGIZE(minor) "." TCMOA_STRINGIZE(patch)
    return TCMOA_JOIN(TCMOA_VERSION_MAJOR, TCMOA_VERSION_MINOR, TCMOA_VERSION_PATCH);
}

const char *tcmoa_status_name(int status) {
    switch (status) {
#define TCMOA_CASE(name) \
    case name:           \
        return #name;
        TCMOA_CASE(TCMOA_OK)
        TCMOA_CASE(TCMOA_ERROR_INTERNAL)
        TCMOA_CASE(TCMOA_ERROR_INPUT)
        TCMOA_CASE(TCMOA_ERROR_BUNDLE)
        TCMOA_CASE(TCMOA_ERROR_MISSING)
        TCMOA_CASE(TCMOA_ERROR_MEMORY)
        TCMOA_CASE(TCMOA_ERROR_BUSY)
        TCMOA_CASE(TCMOA_ERROR_TIMEOUT)
        default:
            return "unknown status";
    }
}

void tcmoa_options_default(tcmoa_options *options) {
    if (options == nullptr) return;
    *options = tcmoa_options{};
    options->struct_size = sizeof(tcmoa_options);
    options->slots = 2;
    options->stretch_low = 1;
    options->stretch_high = 99;
    options->cuda_graph = 1;
}

int tcmoa_open(const char *path, const tcmoa_options *options, tcmoa_fuser **fuser) {
    if (fuser != nullptr) *fuser = nullptr;
    return guarded(nullptr, [&] {
        require(fuser, "tcmoa_open", "fuser");
        if (path == nullptr) fail_input("tcmoa_open", "path is NULL; expected a bundle folder");
        const auto chosen = copy_options(options);
        auto bundle = std::make_unique<const tcmoa::Bundle>(tcmoa::Bundle::open(path));
        check_batch(*bundle, chosen.fit);
        tcmoa::BackendOptions backend_options;
        if (chosen.backend != nullptr) backend_options.name = chosen.backend;
        backend_options.threads = chosen.threads;
        backend_options.cuda_device = chosen.cuda_device;
        backend_options.cuda_graph = chosen.cuda_graph != 0;
        backend_options.trust_engines = chosen.trust_engines != 0;
        auto backend = tcmoa::load_backend(*bundle, backend_options);
        *fuser = new tcmoa_fuser(std::move(bundle), std::move(backend), chosen);
        return TCMOA_OK;
    });
}

void tcmoa_close(tcmoa_fuser **fuser) {
    if (fuser == nullptr) return;
    if (is_usable(*fuser)) delete *fuser;
    *fuser = nullptr;
}

size_t tcmoa_error(const tcmoa_fuser *fuser, char *text, size_t size) {
    return (is_usable(fuser) ? fuser->error : last_error).copy_to(text, size);
}

int tcmoa_get_info(tcmoa_fuser *fuser, tcmoa_info *info) {
    return with_handle(fuser, "tcmoa_get_info", [&](tcmoa::Fuser &handle) {
        require(info, "tcmoa_get_info", "info");
        *info = handle.info();
    });
}

int tcmoa_get_stats(tcmoa_fuser *fuser, tcmoa_stats *stats) {
    return with_handle(fuser, "tcmoa_get_stats", [&](tcmoa::Fuser &handle) {
        require(stats, "tcmoa_get_stats", "stats");
        *stats = handle.stats();
    });
}

int tcmoa_set_prompt(tcmoa_fuser *fuser, float scale, float shift) {
    return with_handle(fuser, "tcmoa_set_prompt",
                       [&](tcmoa::Fuser &handle) { handle.prompt_maps("scale, shift").set(scale, shift); });
}

int tcmoa_set_prompt_maps(tcmoa_fuser *fuser, const float *scale, const float *shift, size_t count) {
    return with_handle(fuser, "tcmoa_set_prompt_maps",
                       [&](tcmoa::Fuser &handle) {
                           const auto info = handle.info();
                           handle.prompt_maps("prompt maps").set_maps({info.grid_height, info.grid_width}, scale, shift, count);
                       });
}

int tcmoa_set_prompt_maps_for_size(tcmoa_fuser *fuser, int width, int height, const float *scale, const float *shift,
                                   size_t count) {
    constexpr const char *name = "tcmoa_set_prompt_maps_for_size";
    return with_handle(fuser, name, [&](tcmoa::Fuser &handle) {
        check_sides(name, width, height);
        handle.prompt_maps("prompt maps").set_maps(handle.grid_of({height, width}), scale, shift, count);
    });
}

int tcmoa_get_grid(tcmoa_fuser *fuser, int width, int height, int32_t *grid_width, int32_t *grid_height) {
    return with_handle(fuser, "tcmoa_get_grid", [&](tcmoa::Fuser &handle) {
        require(grid_width, "tcmoa_get_grid", "grid_width");
        require(grid_height, "tcmoa_get_grid", "grid_height");
        check_sides("tcmoa_get_grid", width, height);
        const auto grid = handle.grid_of({height, width});
        *grid_width = static_cast<int32_t>(grid.width);
        *grid_height = static_cast<int32_t>(grid.height);
    });
}

int tcmoa_get_prompt_maps(tcmoa_fuser *fuser, float *scale, float *shift, size_t count) {
    return with_handle(fuser, "tcmoa_get_prompt_maps",
                       [&](tcmoa::Fuser &handle) { handle.prompt_maps("prompt maps").get_maps(scale, shift, count); });
}

int tcmoa_fuse(tcmoa_fuser *fuser, const tcmoa_frame *x, const tcmoa_frame *y, const tcmoa_frame *fused) {
    return with_handle(fuser, "tcmoa_fuse",
                       [&](tcmoa::Fuser &handle) { handle.fuse(x, y, fused, nullptr, 0); });
}

int tcmoa_fuse_with_prompt(tcmoa_fuser *fuser, const tcmoa_frame *x, const tcmoa_frame *y, const tcmoa_frame *fused,
                           float *prompt, size_t count) {
    return with_handle(fuser, "tcmoa_fuse_with_prompt", [&](tcmoa::Fuser &handle) {
        require(prompt, "tcmoa_fuse_with_prompt", "prompt");
        handle.fuse(x, y, fused, prompt, count);
    });
}

int tcmoa_submit(tcmoa_fuser *fuser, const tcmoa_frame *x, const tcmoa_frame *y, uint64_t *ticket) {
    return with_handle(fuser, "tcmoa_submit", [&](tcmoa::Fuser &handle) {
        require(ticket, "tcmoa_submit", "ticket");
        *ticket = handle.submit(x, y);
    });
}

int tcmoa_wait(tcmoa_fuser *fuser, uint64_t ticket, const tcmoa_frame *fused, int64_t timeout_ms) {
    bool done = true;
    const int status = with_handle(fuser, "tcmoa_wait", [&](tcmoa::Fuser &handle) {
        const auto timeout = std::clamp<std::int64_t>(timeout_ms, -1, kMaxTimeoutMs);
        done = handle.wait(ticket, fused, std::chrono::milliseconds(timeout));
    });
    if (status == TCMOA_OK && !done) {
        set_error(fuser, "the frame is not ready yet. Call tcmoa_wait() again.");
        return TCMOA_ERROR_TIMEOUT;
    }
    return status;
}

int tcmoa_discard(tcmoa_fuser *fuser, uint64_t ticket) {
    return with_handle(fuser, "tcmoa_discard", [&](tcmoa::Fuser &handle) { handle.discard(ticket); });
}

}  // extern "C"
