// The inside of the simulated driver, of cuda.cpp and gpu.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>

#include "standin.hpp"

namespace standin {

using Result = int;
using Address = unsigned long long;

constexpr Result kOk = 0, kInvalidValue = 1, kOutOfMemory = 2, kNoContext = 201, kInvalidHandle = 400, kNotReady = 600,
                 kCaptureUnsupported = 900, kCaptureInvalidated = 901, kCaptureIsolation = 905;
constexpr int kMostOperations = 512;

struct Context {
    int device;
    bool primary;
    int retained;
};

struct Stream;

struct Event {
    long recorded = 0, done = 0;
    Stream *stream = nullptr;  // where it was recorded last
    bool destroyed = false;
    Event *next = nullptr;  // of all there ever were, as with streams
};

struct Operation {
    enum { copy, run, record, wait } kind;
    void *target;
    const void *source;
    std::size_t bytes;
    void (*function)(void *);
    Event *event;
    long number;
    Stream *stream;  // that reaches the event
};

struct Graph {
    Operation operations[16];
    int count = 0;
};

struct Stream {
    Context *context = nullptr;
    Operation ring[kMostOperations];
    long head = 0, tail = 0;
    Graph *capture = nullptr;
    std::thread::id capturer;
    bool invalid = false, destroyed = false;
    Stream *next = nullptr;  // of all there ever were: freed never, so that none is mistaken for a later one
};

struct Memory {
    std::size_t bytes;
    Context *context;  // none: page-locked memory of the host
};

extern std::recursive_mutex lock;  // held in every call
extern standin::Control knobs;
extern standin::Counts figures;
extern Context contexts[3];  // the primary ones of two GPUs, and another one of the first
extern Stream *all_streams;
extern Event *all_events;
inline thread_local Context *stack[16];
inline thread_local int depth = 0;

void mistake(const char *what);

// What every function does first: a failure that was asked for, and whether a context is there that it wants.
Result enter(const char *name, bool wants_context = true, bool may_fail = true);
#define ENTER(...)                                       \
    const std::lock_guard guard(lock);                   \
    if (const Result refused = enter(__VA_ARGS__)) return refused

Stream *stream_of(void *handle);
void step(Stream &stream);                                // run the next piece of work
void settle(Stream &stream);                              // run all
void reach(Event &event, long number, Stream *stream);    // run what comes before
Result push(Stream *stream, const Operation &operation);  // queue
Result copy(const void *target, const void *source, std::size_t bytes, void *stream);

using Allocations = std::map<std::uintptr_t, Memory>;
Allocations::iterator find(const void *pointer, std::size_t bytes);
bool is_known(Allocations::iterator found);
Result allocate(std::size_t bytes, Context *context, void **pointer);
Result release(void *pointer, bool on_device);

}  // namespace standin
