// The simulated GPU: memory, streams, and the detection of misuse; see include/simulated.hpp.
#include "gpu.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace simulated {

std::recursive_mutex lock;
simulated::Control controls;
simulated::Counts counters{};
Context contexts[3] = {{0, true}, {1, true}, {0, false, 1}};
Stream *all_streams = nullptr;
Event *all_events = nullptr;

namespace {

Allocations memory;
Graph *all_graphs = nullptr;
long last_sequence = 0;

[[maybe_unused]] const bool legacy_streams_are_listed = [] {
    for (auto &context : contexts) {
        context.legacy.context = &context;
        context.legacy.is_default = context.legacy.is_legacy = true;
        context.legacy.next = all_streams;
        all_streams = &context.legacy;
    }
    return true;
}();

// The default stream of the calling thread in a context.
Stream *thread_stream(Context *context) {
    thread_local Stream *streams[3] = {};
    auto *&stream = streams[context - contexts];
    if (stream == nullptr) {  // never freed: work in it may outlive the thread
        stream = new Stream;
        stream->context = context;
        stream->is_default = stream->is_blocking = true;
        stream->next = all_streams;
        all_streams = stream;
    }
    return stream;
}

// The kernel that runs now.
Context *running = nullptr;

void end_context(Context &context, Result fault) {
    if (context.fault == kOk) context.fault = fault;
}

// Run the operations of a stream that were enqueued earlier than one of another stream.
void run_before(Stream &stream, long sequence) {
    while (stream.head < stream.tail && stream.ring[stream.head % kMaxOperations].sequence < sequence) run_next(stream);
}

// The legacy default stream and the blocking streams of a context wait for each other.
void wait_for_default_streams(Stream &stream, long sequence) {
    if (stream.is_blocking) run_before(stream.context->legacy, sequence);
    if (!stream.is_legacy) return;
    for (Stream *s = all_streams; s != nullptr; s = s->next) {
        if (s->is_blocking && s->context == stream.context) run_before(*s, sequence);
    }
}

}  // namespace

Context *current() { return depth > 0 ? stack[depth - 1] : nullptr; }

void record_misuse(const char *what) {
    if (counters.misuses++ == 0) std::snprintf(counters.first_misuse, sizeof counters.first_misuse, "%s", what);
}

Result enter(const char *name, bool needs_context, bool may_fail) {
    if (may_fail) {
        ++counters.calls;
        if (controls.fail_call != 0 && counters.calls == controls.fail_call) return controls.fail_result;
    }
    if (controls.fail_function != nullptr && std::strcmp(controls.fail_function, name) == 0 && controls.fail_after-- == 0) {
        controls.fail_function = nullptr;
        return controls.fail_result;
    }
    if (!needs_context) return kOk;
    if (depth == 0) {
        record_misuse(name);
        return kNoContext;
    }
    if (current()->references == 0) {
        record_misuse("a context that was released is current");
        return kContextIsDestroyed;
    }
    return current()->fault;
}

Allocations::iterator find(const void *pointer, std::size_t bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    auto found = memory.upper_bound(address);
    if (found == memory.begin()) return memory.end();
    --found;
    return address + bytes <= found->first + found->second.bytes ? found : memory.end();
}

Stream *stream_of(void *handle) {
    Context *context = depth > 0 ? current() : &contexts[0];
    if (handle == nullptr || handle == reinterpret_cast<void *>(1)) return &context->legacy;
    if (handle == reinterpret_cast<void *>(2)) return thread_stream(context);
    return static_cast<Stream *>(handle);
}

void run_until(Event &event, long number, Stream *stream) {
    while (event.done < number && stream->head < stream->tail) run_next(*stream);
    if (event.done < number) record_misuse("an event is never recorded");
}

void run_next(Stream &stream) {
    const Operation operation = stream.ring[stream.head % kMaxOperations];
    wait_for_default_streams(stream, operation.sequence);
    if (stream.context->fault != kOk && operation.kind != Operation::record) {  // nothing runs any more
        ++stream.head;
        return;
    }
    switch (operation.kind) {
        case Operation::copy:
            if (find(operation.target, operation.bytes) == memory.end() ||
                find(operation.source, operation.bytes) == memory.end()) {
                record_misuse("a copy of memory that was freed");
                end_context(*stream.context, kIllegalAddress);
            } else {
                std::memcpy(operation.target, operation.source, operation.bytes);
            }
            break;
        case Operation::run:
            if (controls.fault != kOk && controls.fault_after-- == 0) {
                end_context(*stream.context, std::exchange(controls.fault, kOk));
            } else {
                running = stream.context;
                operation.function(operation.target);
                running = nullptr;
            }
            break;
        case Operation::record:
            operation.event->done = operation.number;
            break;
        case Operation::wait:
            run_until(*operation.event, operation.number, operation.stream);
            break;
    }
    ++stream.head;
}

void run_all(Stream &stream) {
    while (stream.head < stream.tail) run_next(stream);
}

Result push(Stream *stream, const Operation &operation) {
    if (stream->destroyed) {
        record_misuse("work in a destroyed stream");
        return kInvalidHandle;
    }
    // Copies may be in a stream of any context, kernels only in one of the current context.
    if (operation.kind == Operation::run && stream->context != current()) return kInvalidHandle;
    if (operation.kind == Operation::record && operation.event->context != stream->context) return kInvalidHandle;
    if (stream->context->fault != kOk) return stream->context->fault;
    if (stream->is_legacy) {
        for (Stream *s = all_streams; s != nullptr; s = s->next) {
            if (s->capture != nullptr && s->is_blocking && s->context == stream->context) {
                s->invalid = true;
                return kCaptureImplicit;
            }
        }
    }
    if (stream->capture != nullptr) {
        if (stream->capturer != std::this_thread::get_id()) record_misuse("work of another thread in a capture");
        if (operation.kind == Operation::wait || operation.kind == Operation::record) {
            stream->invalid = true;
            return kCaptureIsolation;
        }
        if (stream->capture->count == 16) std::abort();
        stream->capture->operations[stream->capture->count++] = operation;
        return kOk;
    }
    if (stream->tail - stream->head == kMaxOperations) run_all(*stream);
    auto &added = stream->ring[stream->tail++ % kMaxOperations] = operation;
    added.sequence = ++last_sequence;
    if (controls.eager) run_all(*stream);
    return kOk;
}

Result copy(const void *target, const void *source, std::size_t bytes, void *stream) {
    if (find(target, bytes) == memory.end() || find(source, bytes) == memory.end()) {
        record_misuse("a copy outside of an allocation");
        return kInvalidValue;
    }
    return push(stream_of(stream),
                {Operation::copy, const_cast<void *>(target), source, bytes, nullptr, nullptr, 0, nullptr});
}

Graph *new_graph(const Graph &content) {
    auto *made = new Graph(content);
    made->context = current();
    made->previous = nullptr;
    made->next = all_graphs;
    if (all_graphs != nullptr) all_graphs->previous = made;
    all_graphs = made;
    ++counters.graphs;
    return made;
}

void delete_graph(Graph *graph) {
    (graph->previous != nullptr ? graph->previous->next : all_graphs) = graph->next;
    if (graph->next != nullptr) graph->next->previous = graph->previous;
    delete graph;
    --counters.graphs;
}

void destroy(Context &context) {
    int objects = 0;
    for (auto each = memory.begin(); each != memory.end();) {
        if (each->second.owner == &context) {
            --(each->second.context != nullptr ? counters.device_memory : counters.pinned_memory);
            std::free(reinterpret_cast<void *>(each->first));
            each = memory.erase(each);
            ++objects;
        } else {
            ++each;
        }
    }
    for (Stream *s = all_streams; s != nullptr; s = s->next) {
        if (s->context != &context) continue;
        s->head = s->tail;
        if (s->is_default || s->destroyed) continue;
        s->destroyed = true;
        --counters.streams;
        ++objects;
    }
    for (Event *e = all_events; e != nullptr; e = e->next) {
        if (e->context != &context || e->destroyed) continue;
        e->destroyed = true;
        --counters.events;
        ++objects;
    }
    for (Graph *g = all_graphs; g != nullptr;) {
        Graph *next = g->next;
        if (g->context == &context) {
            delete_graph(g);
            ++objects;
        }
        g = next;
    }
    if (objects > 0 && context.fault == kOk) record_misuse("a context is released with objects in it");
}

bool is_known(Allocations::iterator found) { return found != memory.end(); }

// An allocation while the calling thread captures invalidates the capture.
static bool disturbs_capture() {
    bool found = false;
    for (Stream *s = all_streams; s != nullptr; s = s->next) {
        if (s->capture != nullptr && s->capturer == std::this_thread::get_id()) found = s->invalid = true;
    }
    return found;
}

Result allocate(std::size_t bytes, Context *context, void **pointer) {
    if (disturbs_capture()) return kCaptureUnsupported;
    if (context != nullptr && controls.memory != 0) {
        if (bytes > controls.memory) return kOutOfMemory;
        controls.memory -= bytes;
    }
    *pointer = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    std::memset(*pointer, 0xa5, bytes);
    memory[reinterpret_cast<std::uintptr_t>(*pointer)] = {bytes, context, context != nullptr ? context : current()};
    return kOk;
}

Result release(void *pointer, bool on_device) {
    const auto found = memory.find(reinterpret_cast<std::uintptr_t>(pointer));
    if (found == memory.end() || (found->second.context != nullptr) != on_device) {
        record_misuse("a free of memory that was not allocated");
        return kInvalidValue;
    }
    for (Stream *s = all_streams; s != nullptr; s = s->next) {
        for (long i = s->head; i < s->tail; ++i) {
            const auto &operation = s->ring[i % kMaxOperations];
            if (operation.kind == Operation::copy &&
                (find(operation.target, 1) == found || find(operation.source, 1) == found)) {
                record_misuse("a free of memory that a pending copy uses");
            }
        }
    }
    std::memset(pointer, 0xdd, found->second.bytes);
    memory.erase(found);
    std::free(pointer);
    return kOk;
}

}  // namespace simulated

using namespace simulated;

extern "C" {

simulated::Control *simulated_control() { return &controls; }
simulated::Counts *simulated_counts() { return &counters; }

void simulated_reset() {
    const std::lock_guard guard(lock);
    controls = {};
    for (auto &context : contexts) context.fault = kOk;
    const auto before = counters;
    counters = {};
    counters.device_memory = before.device_memory;
    counters.pinned_memory = before.pinned_memory;
    counters.streams = before.streams;
    counters.events = before.events;
    counters.graphs = before.graphs;
    counters.contexts = before.contexts;
    counters.engines = before.engines;
}

void simulated_run_all() {
    const std::lock_guard guard(lock);
    for (Stream *s = all_streams; s != nullptr; s = s->next) run_all(*s);
}

int simulated_context_depth() { return depth; }
void *simulated_current_context() { return current(); }
int simulated_has_primary_context() { return current() != nullptr && current()->is_primary ? 1 : 0; }
int simulated_context_fault() {
    const std::lock_guard guard(lock);
    return current() == nullptr ? kOk : current()->fault;
}
int simulated_context_references(int device) {
    const std::lock_guard guard(lock);
    return contexts[device].references;
}

void *simulated_foreign_memory(std::size_t bytes, int device, int primary) {
    const std::lock_guard guard(lock);
    void *pointer = nullptr;
    (void)allocate(bytes, primary != 0 ? &contexts[device] : &contexts[2], &pointer);
    return pointer;
}

void *simulated_foreign_stream() {
    static Stream stream;
    stream.context = &contexts[2];
    return &stream;
}

void simulated_free_foreign(void *pointer) {
    const std::lock_guard guard(lock);
    (void)release(pointer, true);
}

int simulated_launch(void *stream, void (*run)(void *), void *arguments) {
    const std::lock_guard guard(lock);
    if (const Result refused = enter("a kernel", true, false)) return refused;
    return push(stream_of(stream), {Operation::run, arguments, nullptr, 0, run, nullptr, 0, nullptr});
}

int simulated_is_pending(const void *arguments) {
    const std::lock_guard guard(lock);
    for (Stream *s = all_streams; s != nullptr; s = s->next) {
        for (long i = s->head; i < s->tail; ++i) {
            const auto &operation = s->ring[i % kMaxOperations];
            if (operation.kind == Operation::run && operation.target == arguments) return 1;
        }
    }
    return 0;
}

bool simulated_access(const void *address, std::size_t bytes, std::size_t alignment) {
    const std::lock_guard guard(lock);
    const auto found = find(address, bytes);
    if (!is_known(found) || (found->second.context != nullptr && found->second.context->device != running->device)) {
        end_context(*running, kIllegalAddress);
    } else if (reinterpret_cast<std::uintptr_t>(address) % alignment != 0) {
        end_context(*running, kMisalignedAddress);
    }
    return running->fault == kOk;
}

// A program that is run by a test fails if it misused the GPU.
__attribute__((destructor)) static void report_misuse() {
    if (counters.misuses == 0 || std::getenv("SIMULATED_MISUSE_FAILS") == nullptr) return;
    std::fprintf(stderr, "misuse of the simulated GPU: %s\n", counters.first_misuse);
    std::_Exit(97);
}

void simulated_record_misuse(const char *what) {
    const std::lock_guard guard(lock);
    record_misuse(what);
}

}  // extern "C"
