// The simulated GPU: memory, streams, and the detection of misuse; see include/simulated.hpp.
#include "gpu.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace simulated {

std::recursive_mutex lock;
simulated::Control controls;
simulated::Counts counters{};
Context contexts[3] = {{0, true, 0}, {1, true, 0}, {0, false, 1}};
Stream *all_streams = nullptr;
Event *all_events = nullptr;

namespace {
Allocations memory;
Stream legacy;
}  // namespace

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
    if (needs_context && depth == 0) {
        record_misuse(name);
        return kNoContext;
    }
    return kOk;
}

Allocations::iterator find(const void *pointer, std::size_t bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    auto found = memory.upper_bound(address);
    if (found == memory.begin()) return memory.end();
    --found;
    return address + bytes <= found->first + found->second.bytes ? found : memory.end();
}

Stream *stream_of(void *handle) {
    if (handle != nullptr && handle != reinterpret_cast<void *>(1)) return static_cast<Stream *>(handle);
    legacy.context = &contexts[0];
    return &legacy;
}

void run_until(Event &event, long number, Stream *stream) {
    while (event.done < number && stream->head < stream->tail) run_next(*stream);
    if (event.done < number) record_misuse("an event is never recorded");
}

void run_next(Stream &stream) {
    const Operation operation = stream.ring[stream.head % kMaxOperations];
    switch (operation.kind) {
        case Operation::copy:
            if (find(operation.target, operation.bytes) == memory.end() ||
                find(operation.source, operation.bytes) == memory.end()) {
                record_misuse("a copy of memory that was freed");
            } else {
                std::memcpy(operation.target, operation.source, operation.bytes);
            }
            break;
        case Operation::run:
            operation.function(operation.target);
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
    if (depth > 0 && stream->context != stack[depth - 1]) return kInvalidHandle;
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
    stream->ring[stream->tail++ % kMaxOperations] = operation;
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
    memory[reinterpret_cast<std::uintptr_t>(*pointer)] = {bytes, context};
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
    run_all(legacy);
    for (Stream *s = all_streams; s != nullptr; s = s->next) run_all(*s);
}

int simulated_context_depth() { return depth; }

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
    if (depth == 0) {
        record_misuse("a kernel without a context");
        return kNoContext;
    }
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

void simulated_record_misuse(const char *what) {
    const std::lock_guard guard(lock);
    record_misuse(what);
}

}  // extern "C"
