// Controls and counters of the simulated GPU. Nothing of it ever ran on a real one.
//
// It follows the documentation of CUDA's driver interface: contexts and what belongs to them, streams of several GPUs,
// the legacy default stream and those of threads, errors that end a context, captures.
//
// GPU memory is host memory. Work in a stream runs as late as possible: when something waits for it, and only as far as
// needed. So a missing synchronization shows as a wrong result. With `eager` work runs when it is enqueued.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simulated {

struct Control {
    int init_result = 0;     // result of cuInit
    int devices = 2;
    int major = 8, minor = 9;
    bool eager = false;      // work runs when it is enqueued
    bool stalled = false;    // cuEventQuery does not advance work
    const char *fail_function = nullptr;  // CUDA function that fails once,
    int fail_after = 0;                   // after this number of calls,
    int fail_result = 999;                // with this result
    int fail_call = 0;       // number of the CUDA call that fails, from 1; 0: none
    std::size_t memory = 0;  // free bytes on the GPU; 0: no limit
    int fault = 0;           // error of the next kernel, e.g. 700 (CUDA_ERROR_ILLEGAL_ADDRESS), which ends its context
    int fault_after = 0;     // after this number of kernels

    const char *refuse = nullptr;  // step of TensorRT that fails once: "start", "load", "context", "bind", "enqueue" ...
    int refuse_after = 0;          // after this number of times
    const char *reason = "a reason of TensorRT";  // logged with it
    bool capturable = true;                       // answer of TensorRT-RTX
    int pause_us = 0;                             // duration of enqueueing an engine
};

struct Counts {
    int device_memory, pinned_memory, streams, events, graphs, contexts;  // objects that exist
    int engines;                                                          // objects of TensorRT that exist
    int calls, copies_in, copies_out, copies_within, launches, kernels, compiled;  // total
    int enqueued;                                                                  // total calls of enqueueV3
    int misuses;             // calls that are undefined, or silently wrong, on a real GPU
    char first_misuse[200];
};

}  // namespace simulated

extern "C" {
simulated::Control *simulated_control();
simulated::Counts *simulated_counts();
void simulated_reset();  // controls and counters; objects remain
void simulated_run_all();
int simulated_context_depth();  // number of contexts on the calling thread's stack
void *simulated_current_context();  // nullptr if there is none
int simulated_has_primary_context();  // whether the current one is the primary context of a GPU
int simulated_context_fault();  // the error that ended the current context, or 0
int simulated_context_references(int device);  // that the process holds of a GPU's primary context
// Memory of another GPU, or of a context of the first GPU that is not its primary one.
void *simulated_foreign_memory(std::size_t bytes, int device, int primary);
void *simulated_foreign_stream();
void simulated_free_foreign(void *pointer);

// For the simulated TensorRT: enqueue the kernel `run(arguments)` in a stream, and record a misuse.
int simulated_launch(void *stream, void (*run)(void *), void *arguments);
int simulated_is_pending(const void *arguments);
void simulated_record_misuse(const char *what);
// Within a kernel: whether its GPU may access the bytes with this alignment. If not, the context of the kernel ends.
bool simulated_access(const void *address, std::size_t bytes, std::size_t alignment);
}

namespace simulated {

inline Control &control() { return *simulated_control(); }
inline Counts &counts() { return *simulated_counts(); }

}  // namespace simulated
