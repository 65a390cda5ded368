// The GPU of the simulated driver: memory, streams, and what is a mistake. A stand-in that never ran on a GPU; see
// include/standin.hpp.
#include "gpu.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace standin {

std::recursive_mutex lock;
standin::Control knobs;
standin::Counts figures{};
Context contexts[3] = {{0, true, 0}, {1, true, 0}, {0, false, 1}};
Stream *all_streams = nullptr;
Event *all_events = nullptr;

namespace {
Allocations memory;
Stream legacy;
}  // namespace

void mistake(const char *what) {
    if (figures.mistakes++ == 0) std::snprintf(figures.mistake, sizeof figures.mistake, "%s", what);
}

Result enter(const char *name, bool wants_context, bool may_fail) {
    if (may_fail) {
        ++figures.calls;
        if (knobs.fail_call != 0 && figures.calls == knobs.fail_call) return knobs.fail_result;
    }
    if (knobs.fail_function != nullptr && std::strcmp(knobs.fail_function, name) == 0 && knobs.fail_after-- == 0) {
        knobs.fail_function = nullptr;
        return knobs.fail_result;
    }
    if (wants_context && depth == 0) {
        mistake(name);
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

void reach(Event &event, long number, Stream *stream) {
    while (event.done < number && stream->head < stream->tail) step(*stream);
    if (event.done < number) mistake("an event that nothing reaches");
}

void step(Stream &stream) {
    const Operation operation = stream.ring[stream.head % kMostOperations];
    switch (operation.kind) {
        case Operation::copy:
            if (find(operation.target, operation.bytes) == memory.end() ||
                find(operation.source, operation.bytes) == memory.end()) {
                mistake("a copy of memory that is not there");
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
            reach(*operation.event, operation.number, operation.stream);
            break;
    }
    ++stream.head;
}

void settle(Stream &stream) {
    while (stream.head < stream.tail) step(stream);
}

Result push(Stream *stream, const Operation &operation) {
    if (stream->destroyed) {
        mistake("work in a stream that was destroyed");
        return kInvalidHandle;
    }
    if (depth > 0 && stream->context != stack[depth - 1]) return kInvalidHandle;
    if (stream->capture != nullptr) {
        if (stream->capturer != std::this_thread::get_id()) mistake("another thread's work in a capture");
        if (operation.kind == Operation::wait || operation.kind == Operation::record) {
            stream->invalid = true;
            return kCaptureIsolation;
        }
        if (stream->capture->count == 16) std::abort();
        stream->capture->operations[stream->capture->count++] = operation;
        return kOk;
    }
    if (stream->tail - stream->head == kMostOperations) settle(*stream);
    stream->ring[stream->tail++ % kMostOperations] = operation;
    if (knobs.eager) settle(*stream);
    return kOk;
}

Result copy(const void *target, const void *source, std::size_t bytes, void *stream) {
    if (find(target, bytes) == memory.end() || find(source, bytes) == memory.end()) {
        mistake("a copy beyond an allocation");
        return kInvalidValue;
    }
    return push(stream_of(stream),
                {Operation::copy, const_cast<void *>(target), source, bytes, nullptr, nullptr, 0, nullptr});
}

bool is_known(Allocations::iterator found) { return found != memory.end(); }

// What must not happen while the calling thread captures: it invalidates that.
static bool disturbs_capture() {
    bool found = false;
    for (Stream *s = all_streams; s != nullptr; s = s->next) {
        if (s->capture != nullptr && s->capturer == std::this_thread::get_id()) found = s->invalid = true;
    }
    return found;
}

Result allocate(std::size_t bytes, Context *context, void **pointer) {
    if (disturbs_capture()) return kCaptureUnsupported;
    if (context != nullptr && knobs.memory != 0) {
        if (bytes > knobs.memory) return kOutOfMemory;
        knobs.memory -= bytes;
    }
    *pointer = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    std::memset(*pointer, 0xa5, bytes);
    memory[reinterpret_cast<std::uintptr_t>(*pointer)] = {bytes, context};
    return kOk;
}

Result release(void *pointer, bool on_device) {
    const auto found = memory.find(reinterpret_cast<std::uintptr_t>(pointer));
    if (found == memory.end() || (found->second.context != nullptr) != on_device) {
        mistake("memory is freed that is not there");
        return kInvalidValue;
    }
    for (Stream *s = all_streams; s != nullptr; s = s->next) {
        for (long i = s->head; i < s->tail; ++i) {
            const auto &operation = s->ring[i % kMostOperations];
            if (operation.kind == Operation::copy &&
                (find(operation.target, 1) == found || find(operation.source, 1) == found)) {
                mistake("memory is freed that a copy still needs");
            }
        }
    }
    std::memset(pointer, 0xdd, found->second.bytes);
    memory.erase(found);
    std::free(pointer);
    return kOk;
}

}  // namespace standin

using namespace standin;

extern "C" {

standin::Control *standin_control() { return &knobs; }
standin::Counts *standin_counts() { return &figures; }

void standin_reset() {
    const std::lock_guard guard(lock);
    knobs = {};
    const auto before = figures;
    figures = {};
    figures.device_memory = before.device_memory;
    figures.pinned_memory = before.pinned_memory;
    figures.streams = before.streams;
    figures.events = before.events;
    figures.graphs = before.graphs;
    figures.contexts = before.contexts;
    figures.engines = before.engines;
}

void standin_settle() {
    const std::lock_guard guard(lock);
    settle(legacy);
    for (Stream *s = all_streams; s != nullptr; s = s->next) settle(*s);
}

int standin_depth() { return depth; }

void *standin_foreign_memory(std::size_t bytes, int device, int primary) {
    const std::lock_guard guard(lock);
    void *pointer = nullptr;
    (void)allocate(bytes, primary != 0 ? &contexts[device] : &contexts[2], &pointer);
    return pointer;
}

void *standin_foreign_stream() {
    static Stream stream;
    stream.context = &contexts[2];
    return &stream;
}

void standin_free_foreign(void *pointer) {
    const std::lock_guard guard(lock);
    (void)release(pointer, true);
}

int standin_launch(void *stream, void (*run)(void *), void *arguments) {
    const std::lock_guard guard(lock);
    if (depth == 0) {
        mistake("a kernel without a context");
        return kNoContext;
    }
    return push(stream_of(stream), {Operation::run, arguments, nullptr, 0, run, nullptr, 0, nullptr});
}

int standin_is_pending(const void *arguments) {
    const std::lock_guard guard(lock);
    for (Stream *s = all_streams; s != nullptr; s = s->next) {
        for (long i = s->head; i < s->tail; ++i) {
            const auto &operation = s->ring[i % kMostOperations];
            if (operation.kind == Operation::run && operation.target == arguments) return 1;
        }
    }
    return 0;
}

void standin_mistake(const char *what) {
    const std::lock_guard guard(lock);
    mistake(what);
}

}  // extern "C"
