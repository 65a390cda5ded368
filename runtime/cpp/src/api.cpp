// The functions of tcmoa.h: arguments checked, exceptions turned into statuses and messages.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "error.hpp"
#include "fuser.hpp"
#include "handle.hpp"
#include "tcmoa.h"

namespace {

using tcmoa::Error;
using tcmoa::fail_input;

constexpr int kMostSlots = 16;
constexpr int kMostThreads = 1024;

thread_local std::string last_error;  // of calls without a handle

void remember(tcmoa_fuser *fuser, const char *text) noexcept {
    try {
        if (fuser == nullptr) {
            last_error = text;
        } else {
            fuser->fuser.set_error(text);
        }
    } catch (const std::bad_alloc &) {  // the status has to do
    }
}

// Run `step`; what it throws becomes a status and a message.
template <typename Step>
int guarded(tcmoa_fuser *fuser, Step step) noexcept {
    try {
        return step();
    } catch (const Error &error) {
        remember(fuser, error.what());
        return error.status();
    } catch (const std::bad_alloc &) {
        remember(fuser, "not enough memory; export a smaller frame, or end what else holds memory");
        return TCMOA_ERROR_MEMORY;
    } catch (const std::exception &error) {
        remember(fuser, ("unexpected: " + tcmoa::first_line(error.what()) + "; please report it").c_str());
        return TCMOA_ERROR_INTERNAL;
    } catch (...) {
        remember(fuser, "unexpected: an exception of another language; please report it");
        return TCMOA_ERROR_INTERNAL;
    }
}

template <typename Step>
int with_handle(tcmoa_fuser *fuser, const char *function, Step step) noexcept {
    return guarded(fuser, [&] {
        if (fuser == nullptr) fail_input(std::string(function) + ": the handle is NULL: expected one from tcmoa_open()");
        step(fuser->fuser);
        return TCMOA_OK;
    });
}

void check_options(const tcmoa_options &options) {
    for (auto word : options.reserved) {
        if (word != 0) fail_input("options.reserved is not 0: fill the options with tcmoa_options_default() first");
    }
    const std::string backend = options.backend == nullptr ? "auto" : options.backend;
    if (backend != "auto" && backend != "openvino" && backend != "openvino-bf16" && backend != "tensorrt") {
        fail_input("options.backend is '" + tcmoa::shown(backend) +
                   "': expected auto, openvino, openvino-bf16 or tensorrt");
    }
    const auto check_range = [](const char *name, int value, int least, int most) {
        if (value < least || value > most) {
            fail_input("options." + std::string(name) + " is " + std::to_string(value) + ": expected " +
                       std::to_string(least) + " to " + std::to_string(most));
        }
    };
    check_range("threads", options.threads, 0, kMostThreads);
    check_range("slots", options.slots, 1, kMostSlots);
    check_range("cuda_device", options.cuda_device, 0, 1023);
    check_range("cuda_graph", options.cuda_graph, 0, 1);
    if (!(options.stretch_low >= 0 && options.stretch_low < options.stretch_high && options.stretch_high <= 100)) {
        fail_input("options.stretch_low and stretch_high are " + std::to_string(options.stretch_low) + " and " +
                   std::to_string(options.stretch_high) + ": expected percentiles 0 <= low < high <= 100");
    }
}

}  // namespace

extern "C" {

const char *tcmoa_version(void) {
#define TCMOA_TEXT(number) #number
#define TCMOA_JOIN(major, minor, patch) TCMOA_TEXT(major) "." TCMOA_TEXT(minor) "." TCMOA_TEXT(patch)
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
        if (fuser == nullptr) fail_input("tcmoa_open: fuser is NULL: expected where the handle goes");
        if (path == nullptr) fail_input("tcmoa_open: path is NULL: expected a bundle folder");
        tcmoa_options chosen;
        tcmoa_options_default(&chosen);
        if (options != nullptr) {
            if (options->struct_size != sizeof(tcmoa_options)) {
                fail_input("options.struct_size is " + std::to_string(options->struct_size) + ": expected " +
                           std::to_string(sizeof(tcmoa_options)) + ", as tcmoa_options_default() of libtcmoa " +
                           tcmoa_version() + " sets it; compile against its header");
            }
            chosen = *options;
        }
        check_options(chosen);
        auto bundle = std::make_unique<const tcmoa::Bundle>(tcmoa::Bundle::open(path));
        tcmoa::BackendOptions wanted;
        if (chosen.backend != nullptr) wanted.name = chosen.backend;
        wanted.threads = chosen.threads;
        wanted.cuda_device = chosen.cuda_device;
        wanted.cuda_graph = chosen.cuda_graph != 0;
        auto backend = tcmoa::load_backend(*bundle, wanted);
        *fuser = new tcmoa_fuser(std::move(bundle), std::move(backend), chosen);
        return TCMOA_OK;
    });
}

void tcmoa_close(tcmoa_fuser **fuser) {
    if (fuser == nullptr) return;
    delete *fuser;
    *fuser = nullptr;
}

size_t tcmoa_error(const tcmoa_fuser *fuser, char *text, size_t size) {
    if (text == nullptr) size = 0;
    if (fuser != nullptr) return fuser->fuser.copy_error(text, size);
    if (size > 0) {
        const auto bytes = std::min(size - 1, last_error.size());
        std::memcpy(text, last_error.data(), bytes);
        text[bytes] = '\0';
    }
    return last_error.size();
}

int tcmoa_get_info(tcmoa_fuser *fuser, tcmoa_info *info) {
    return with_handle(fuser, "tcmoa_get_info", [&](tcmoa::Fuser &handle) {
        if (info == nullptr) fail_input("tcmoa_get_info: info is NULL: expected where the answer goes");
        *info = handle.info();
    });
}

int tcmoa_get_figures(tcmoa_fuser *fuser, tcmoa_figures *figures) {
    return with_handle(fuser, "tcmoa_get_figures", [&](tcmoa::Fuser &handle) {
        if (figures == nullptr) fail_input("tcmoa_get_figures: figures is NULL: expected where the answer goes");
        *figures = handle.figures();
    });
}

int tcmoa_set_prompt(tcmoa_fuser *fuser, float scale, float shift) {
    return with_handle(fuser, "tcmoa_set_prompt", [&](tcmoa::Fuser &handle) { handle.set_prompt(scale, shift); });
}

int tcmoa_set_prompt_maps(tcmoa_fuser *fuser, const float *scale, const float *shift, size_t count) {
    return with_handle(fuser, "tcmoa_set_prompt_maps",
                       [&](tcmoa::Fuser &handle) { handle.set_prompt_maps(scale, shift, count); });
}

int tcmoa_get_prompt_maps(tcmoa_fuser *fuser, float *scale, float *shift, size_t count) {
    return with_handle(fuser, "tcmoa_get_prompt_maps",
                       [&](tcmoa::Fuser &handle) { handle.get_prompt_maps(scale, shift, count); });
}

int tcmoa_fuse(tcmoa_fuser *fuser, const tcmoa_frame *x, const tcmoa_frame *y, const tcmoa_frame *fused) {
    return with_handle(fuser, "tcmoa_fuse",
                       [&](tcmoa::Fuser &handle) { handle.fuse(x, y, fused, nullptr, 0); });
}

int tcmoa_fuse_with_prompt(tcmoa_fuser *fuser, const tcmoa_frame *x, const tcmoa_frame *y, const tcmoa_frame *fused,
                           float *prompt, size_t count) {
    return with_handle(fuser, "tcmoa_fuse_with_prompt", [&](tcmoa::Fuser &handle) {
        if (prompt == nullptr) fail_input("tcmoa_fuse_with_prompt: prompt is NULL: expected where the prompts go");
        handle.fuse(x, y, fused, prompt, count);
    });
}

int tcmoa_submit(tcmoa_fuser *fuser, const tcmoa_frame *x, const tcmoa_frame *y, uint64_t *ticket) {
    return with_handle(fuser, "tcmoa_submit", [&](tcmoa::Fuser &handle) {
        if (ticket == nullptr) fail_input("tcmoa_submit: ticket is NULL: expected where the ticket goes");
        *ticket = handle.submit(x, y);
    });
}

int tcmoa_wait(tcmoa_fuser *fuser, uint64_t ticket, const tcmoa_frame *fused, int64_t timeout_ms) {
    bool done = true;
    const int status = with_handle(fuser, "tcmoa_wait", [&](tcmoa::Fuser &handle) {
        // A day is no limit to anybody, and far from what clocks overflow at.
        const auto limit = std::clamp<int64_t>(timeout_ms, -1, 86'400'000);
        done = handle.wait(ticket, fused, std::chrono::milliseconds(limit));
    });
    if (status == TCMOA_OK && !done) {
        remember(fuser, "the frame is not ready yet: wait again");
        return TCMOA_ERROR_TIMEOUT;
    }
    return status;
}

int tcmoa_discard(tcmoa_fuser *fuser, uint64_t ticket) {
    return with_handle(fuser, "tcmoa_discard", [&](tcmoa::Fuser &handle) { handle.discard(ticket); });
}

}  // extern "C"
