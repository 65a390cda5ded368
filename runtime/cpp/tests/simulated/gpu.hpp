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
                 kIllegalAddress = 700, kContextIsDestroyed = 709, kMisalignedAddress = 716, kCaptureUnsupported = 900,
                 kCaptureInvalidated = 901, kCaptureIsolation = 905, kCaptureImplicit = 906;
constexpr int kMaxOperations = 512;

struct Context;
struct Stream;

struct Event {
    Context *context = nullptr;
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
    long sequence = 0;  // position among all operations, in the order of their calls
};

struct Graph {
    Operation operations[16];
    int count = 0;
    Context *context = nullptr;
    Graph *next = nullptr, *previous = nullptr;  // list of all graphs
};

struct Stream {
    Context *context = nullptr;
    Operation ring[kMaxOperations];
    long head = 0, tail = 0;
    Graph *capture = nullptr;
    std::thread::id capturer;
    bool invalid = false, destroyed = false;
    bool is_default = false;   // of a context or of a thread; exists as long as the context
    bool is_legacy = false;
    bool is_blocking = false;  // takes turns with the legacy default stream of its context
    Stream *next = nullptr;  // list of all streams; never freed, so that a destroyed one keeps its address
};

struct Context {
    int device;
    bool is_primary;
    int references = 0;   // of a primary context; without one it does not exist
    Result fault = kOk;   // once a kernel failed, what every later call returns; the process must end
    Stream legacy{};      // default stream
};

struct Memory {
    std::size_t bytes;
    Context *context;  // nullptr: page-locked host memory
    Context *owner;    // with which it ends
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

// Called first by every function: fails if the controls ask for it, if a required context is missing, or if that failed
// earlier.
Result enter(const char *name, bool needs_context = true, bool may_fail = true);
#define ENTER(...)                                       \
    const std::lock_guard guard(lock);                   \
    if (const Result refused = enter(__VA_ARGS__)) return refused

Context *current();                 // nullptr if there is none
Stream *stream_of(void *handle);    // of the current context and the calling thread if it is a default stream
void run_next(Stream &stream);
void run_all(Stream &stream);
void run_until(Event &event, long number, Stream *stream);  // run the work before the event
Graph *new_graph(const Graph &content);
void delete_graph(Graph *graph);
void destroy(Context &context);  // with all that is in it
Result push(Stream *stream, const Operation &operation);    // enqueue
Result copy(const void *target, const void *source, std::size_t bytes, void *stream);

using Allocations = std::map<std::uintptr_t, Memory>;
Allocations::iterator find(const void *pointer, std::size_t bytes);
bool is_known(Allocations::iterator found);
Result allocate(std::size_t bytes, Context *context, void **pointer);
Result release(void *pointer, bool on_device);

}  // namespace simulated
