// The simulated GPU of the stand-ins, as tests see and steer it. Nothing here ever ran on a GPU.
//
// Memory of the "GPU" is memory of the host. Work that is queued in a stream runs as late as it may: when something
// waits for it, and then only that. So a wait that is missing shows as a wrong result. With `eager` it runs at once.
#pragma once

#include <cstddef>
#include <cstdint>

namespace standin {

struct Control {
    int init_result = 0;     // of cuInit
    int devices = 2;
    int major = 8, minor = 9;
    bool eager = false;      // work runs as early as it may
    bool stalled = false;    // asking whether work is done does not bring it on
    const char *fail_function = nullptr;  // this function of CUDA ...
    int fail_after = 0;                   // ... fails after so many calls, once
    int fail_result = 999;
    int fail_call = 0;       // the so-manyth call of CUDA fails, counted from 1; 0: none
    std::size_t memory = 0;  // bytes that are left on the GPU; 0: without limit

    const char *refuse = nullptr;  // this step of TensorRT: "start", "load", "context", "bind", "queue" ...
    int refuse_after = 0;          // ... after so many times, once
    const char *reason = "a reason of TensorRT";
    bool capturable = true;  // what TensorRT-RTX answers
    int pause_us = 0;        // that queueing an engine takes
};

struct Counts {
    int device_memory, pinned_memory, streams, events, graphs, contexts;  // that are there now
    int engines;                                 // objects of TensorRT that are there now
    int calls, copies_in, copies_out, copies_within, launches, kernels, compiled;  // so far
    int queued;                                  // enqueueV3 so far
    int mistakes;                                // what would be undefined, or silently wrong, on a real GPU
    char mistake[200];                           // the first of them
};

}  // namespace standin

extern "C" {
standin::Control *standin_control();
standin::Counts *standin_counts();
void standin_reset();               // controls and counts; what exists stays
void standin_settle();              // run all work
int standin_depth();                // contexts on the calling thread's stack
// Memory of another GPU, or of another context of the first one.
void *standin_foreign_memory(std::size_t bytes, int device, int primary);
void *standin_foreign_stream();
void standin_free_foreign(void *pointer);

// For the simulated TensorRT: queue `run(arguments)`, and note a mistake.
int standin_launch(void *stream, void (*run)(void *), void *arguments);
int standin_is_pending(const void *arguments);
void standin_mistake(const char *what);
}

namespace standin {

inline Control &control() { return *standin_control(); }
inline Counts &counts() { return *standin_counts(); }

}  // namespace standin
