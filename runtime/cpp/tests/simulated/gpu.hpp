// Internals of the simulated driver, shared by cuda.cpp and gpu.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>

#include "simulated.hpp"

namespace simulated {

using Result = int;
using Address = unsigned long long;

constexpr Result kOk = 0, kInvalidValue = 1, kOutOfMemory = 2, kNoContext = 201, kInvalidHandle = 400, kNotReady = 600,
                 kCaptureUnsupported = 900, kCaptureInvalidated = 901, kCaptureIsolation = 905;
constexpr int kMaxOperations = 512;

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
    Event *next = nullptr;  // list of all events, see Stream::next
};

struct Operation {
    enum { copy, run, record, wait } kind;
    void *target;
    const void *source;
    std::size_t bytes;
    void (*function)(void *);
    Event *event;
    long number;
    Stream *stream;  // where the event was recorded
};

struct Graph {
    Operation operations[16];
    int count = 0;
};

struct Stream {
    Context *context = nullptr;
    Operation ring[kMaxOperations];
    long head = 0, tail = 0;
    Graph *capture = nullptr;
    std::thread::id capturer;
    bool invalid = false, destroyed = false;
    Stream *next = nullptr;  // list of all streams; never freed, so that a destroyed one keeps its address
};

struct Memory {
    std::size_t bytes;
    Context *context;  // nullptr: page-locked host memory
};

extern std::recursive_mutex lock;  // held in all calls
extern simulated::Control controls;
extern simulated::Counts counters;
extern Context contexts[3];  // the primary contexts of two GPUs, and another context of the first GPU
extern Stream *all_streams;
extern Event *all_events;
inline thread_local Context *stack[16];
inline thread_local int depth = 0;

void record_misuse(const char *what);

// Called first by every function: fails if the controls ask for it, or if a required context is missing.
Result enter(const char *name, bool needs_context = true, bool may_fail = true);
#define ENTER(...)                                       \
    const std::lock_guard guard(lock);                   \
    if (const Result refused = enter(__VA_ARGS__)) return refused

Stream *stream_of(void *handle);
void run_next(Stream &stream);
void run_all(Stream &stream);
void run_until(Event &event, long number, Stream *stream);  // run the work before the event
Result push(Stream *stream, const Operation &operation);    // enqueue
Result copy(const void *target, const void *source, std::size_t bytes, void *stream);

using Allocations = std::map<std::uintptr_t, Memory>;
Allocations::iterator find(const void *pointer, std::size_t bytes);
bool is_known(Allocations::iterator found);
Result allocate(std::size_t bytes, Context *context, void **pointer);
Result release(void *pointer, bool on_device);

}  // namespace simulated
