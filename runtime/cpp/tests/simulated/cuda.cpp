// A simulated libcuda.so.1, see include/simulated.hpp. It has the functions that src/cuda_driver.hpp lists, allocates
// nothing while work is enqueued, and records calls that are undefined on a real GPU.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "gpu.hpp"

using namespace simulated;

extern "C" {

Result cuInit(unsigned int) {
    ENTER("cuInit", false);
    return controls.init_result;
}
Result cuDriverGetVersion(int *version) {
    *version = 13000;
    return kOk;
}
Result cuGetErrorName(Result, const char **text) {
    *text = "CUDA_ERROR_SIMULATED";
    return kOk;
}
Result cuGetErrorString(Result, const char **text) {
    *text = "an error of the simulation";
    return kOk;
}
Result cuDeviceGetCount(int *count) {
    ENTER("cuDeviceGetCount", false);
    *count = controls.devices;
    return kOk;
}
Result cuDeviceGet(int *device, int index) {
    ENTER("cuDeviceGet", false);
    *device = index;
    return kOk;
}
Result cuDeviceGetName(char *name, int bytes, int device) {
    ENTER("cuDeviceGetName", false);
    std::snprintf(name, static_cast<std::size_t>(bytes), "Simulated GPU %d", device);
    return kOk;
}
Result cuDeviceGetAttribute(int *value, int attribute, int) {
    ENTER("cuDeviceGetAttribute", false);
    *value = attribute == 75 ? controls.major : attribute == 76 ? controls.minor : 0;
    return kOk;
}
Result cuDevicePrimaryCtxRetain(void **context, int device) {
    ENTER("cuDevicePrimaryCtxRetain", false);
    ++contexts[device].references;
    ++counters.contexts;
    *context = &contexts[device];
    return kOk;
}
Result cuDevicePrimaryCtxRelease_v2(int device) {
    ENTER("cuDevicePrimaryCtxRelease", false, false);
    auto &context = contexts[device];
    if (context.references == 0) {
        record_misuse("a release of a context that is not retained");
        return kNoContext;
    }
    --counters.contexts;
    if (--context.references > 0) return kOk;
    for (int i = 0; i < depth; ++i) {
        if (stack[i] == &context) record_misuse("a release of the current context");
    }
    destroy(context);
    return kOk;
}
Result cuCtxPushCurrent_v2(void *context) {
    ENTER("cuCtxPushCurrent", false, false);  // fails on a real GPU only after the GPU is lost
    if (depth == 16) std::abort();
    if (static_cast<Context *>(context)->references == 0) {
        record_misuse("a context that does not exist is made current");
        return kNoContext;
    }
    stack[depth++] = static_cast<Context *>(context);
    return kOk;
}
Result cuCtxPopCurrent_v2(void **context) {
    ENTER("cuCtxPopCurrent", false, false);
    if (depth == 0) {
        record_misuse("no context is current");
        return kNoContext;
    }
    *context = stack[--depth];
    return kOk;
}
Result cuMemGetInfo_v2(std::size_t *free, std::size_t *total) {
    ENTER("cuMemGetInfo", true, false);
    *free = controls.memory;
    *total = 1 << 30;
    return kOk;
}
Result cuMemAlloc_v2(Address *address, std::size_t bytes) {
    ENTER("cuMemAlloc");
    void *pointer = nullptr;
    const Result result = allocate(bytes, current(), &pointer);
    *address = reinterpret_cast<Address>(pointer);
    counters.device_memory += result == kOk;
    return result;
}
Result cuMemFree_v2(Address address) {
    ENTER("cuMemFree", true, false);
    const Result result = release(reinterpret_cast<void *>(address), true);
    counters.device_memory -= result == kOk;
    return result;
}
Result cuMemHostAlloc(void **pointer, std::size_t bytes, unsigned int) {
    ENTER("cuMemHostAlloc");
    const Result result = allocate(bytes, nullptr, pointer);
    counters.pinned_memory += result == kOk;
    return result;
}
Result cuMemFreeHost(void *pointer) {
    ENTER("cuMemFreeHost", true, false);
    const Result result = release(pointer, false);
    counters.pinned_memory -= result == kOk;
    return result;
}
Result cuMemcpyHtoDAsync_v2(Address target, const void *source, std::size_t bytes, void *stream) {
    ENTER("cuMemcpyHtoDAsync");
    ++counters.copies_in;
    return copy(reinterpret_cast<void *>(target), source, bytes, stream);
}
Result cuMemcpyDtoHAsync_v2(void *target, Address source, std::size_t bytes, void *stream) {
    ENTER("cuMemcpyDtoHAsync");
    ++counters.copies_out;
    return copy(target, reinterpret_cast<void *>(source), bytes, stream);
}
Result cuMemcpyDtoDAsync_v2(Address target, Address source, std::size_t bytes, void *stream) {
    ENTER("cuMemcpyDtoDAsync");
    ++counters.copies_within;
    return copy(reinterpret_cast<void *>(target), reinterpret_cast<void *>(source), bytes, stream);
}
Result cuPointerGetAttribute(void *value, int attribute, Address address) {
    ENTER("cuPointerGetAttribute", false, false);
    const auto found = find(reinterpret_cast<void *>(address), 1);
    if (!is_known(found)) return kInvalidValue;
    Context *context = found->second.context;
    if (attribute == 1) std::memcpy(value, &context, sizeof context);
    const unsigned int type = context == nullptr ? 1 : 2;
    if (attribute == 2) std::memcpy(value, &type, sizeof type);
    const int device = context == nullptr ? 0 : context->device;
    if (attribute == 9) std::memcpy(value, &device, sizeof device);
    return kOk;
}
Result cuStreamCreate(void **stream, unsigned int flags) {
    ENTER("cuStreamCreate");
    auto *made = new Stream;
    made->context = current();
    made->is_blocking = flags == 0;
    made->next = all_streams;
    all_streams = made;
    ++counters.streams;
    *stream = made;
    return kOk;
}
Result cuStreamDestroy_v2(void *stream) {
    ENTER("cuStreamDestroy", true, false);
    auto *found = stream_of(stream);
    if (found->destroyed) record_misuse("a stream is destroyed twice");
    found->destroyed = true;
    --counters.streams;
    return kOk;
}
Result cuStreamSynchronize(void *stream) {
    ENTER("cuStreamSynchronize");
    if (stream_of(stream)->capture != nullptr) {
        record_misuse("synchronization of a stream during its capture");
        stream_of(stream)->invalid = true;
        return kCaptureUnsupported;
    }
    run_all(*stream_of(stream));
    return stream_of(stream)->context->fault;
}
Result cuStreamGetCtx(void *stream, void **context) {
    ENTER("cuStreamGetCtx");
    *context = stream_of(stream)->context;
    return kOk;
}
Result cuEventCreate(void **event, unsigned int) {
    ENTER("cuEventCreate");
    ++counters.events;
    auto *made = new Event;
    made->context = current();
    made->next = all_events;
    all_events = made;
    *event = made;
    return kOk;
}
Result cuEventDestroy_v2(void *event) {
    ENTER("cuEventDestroy", true, false);
    auto *found = static_cast<Event *>(event);  // not freed: pending work may refer to it
    if (found->destroyed) record_misuse("an event is destroyed twice");
    found->destroyed = true;
    --counters.events;
    return kOk;
}
Result cuEventRecord(void *event, void *stream) {
    ENTER("cuEventRecord");
    auto *found = static_cast<Event *>(event);
    const Result result = push(
        stream_of(stream), {Operation::record, nullptr, nullptr, 0, nullptr, found, found->recorded + 1, nullptr});
    if (result == kOk) {
        ++found->recorded;
        found->stream = stream_of(stream);
    }
    return result;
}
Result cuStreamWaitEvent(void *stream, void *event, unsigned int) {
    ENTER("cuStreamWaitEvent");
    auto *found = static_cast<Event *>(event);
    if (found->recorded == 0) return kOk;
    return push(stream_of(stream),
                {Operation::wait, nullptr, nullptr, 0, nullptr, found, found->recorded, found->stream});
}
Result cuEventQuery(void *event) {
    ENTER("cuEventQuery");
    auto *found = static_cast<Event *>(event);
    if (found->done >= found->recorded) return kOk;
    if (!controls.stalled) run_next(*found->stream);
    return found->stream->context->fault != kOk ? found->stream->context->fault : kNotReady;
}
Result cuEventSynchronize(void *event) {
    ENTER("cuEventSynchronize");
    auto *found = static_cast<Event *>(event);
    if (found->done < found->recorded) run_until(*found, found->recorded, found->stream);
    return found->stream == nullptr ? kOk : found->stream->context->fault;
}
Result cuStreamBeginCapture_v2(void *stream, int mode) {
    ENTER("cuStreamBeginCapture");
    if (mode != 1) record_misuse("a capture that other threads can invalidate");
    auto *found = stream_of(stream);
    if (found->is_legacy) return kCaptureUnsupported;
    found->capture = new_graph({});
    found->capturer = std::this_thread::get_id();
    found->invalid = false;
    return kOk;
}
Result cuStreamEndCapture(void *stream, void **graph) {
    const std::lock_guard guard(lock);
    auto *found = stream_of(stream);
    auto *made = std::exchange(found->capture, nullptr);
    const Result refused = enter("cuStreamEndCapture");
    *graph = nullptr;
    if (refused == kOk && !found->invalid) {
        *graph = made;
        return kOk;
    }
    if (made != nullptr) delete_graph(made);
    return refused != kOk ? refused : kCaptureInvalidated;
}
Result cuGraphInstantiateWithFlags(void **launch, void *graph, unsigned long long) {
    ENTER("cuGraphInstantiate");
    *launch = new_graph(*static_cast<Graph *>(graph));
    return kOk;
}
Result cuGraphLaunch(void *launch, void *stream) {
    ENTER("cuGraphLaunch");
    ++counters.launches;
    const auto *found = static_cast<Graph *>(launch);
    Result result = kOk;
    for (int i = 0; i < found->count && result == kOk; ++i) result = push(stream_of(stream), found->operations[i]);
    return result;
}
Result cuGraphExecDestroy(void *launch) {
    ENTER("cuGraphExecDestroy", true, false);
    delete_graph(static_cast<Graph *>(launch));
    return kOk;
}
Result cuGraphDestroy(void *graph) {
    ENTER("cuGraphDestroy", true, false);
    delete_graph(static_cast<Graph *>(graph));
    return kOk;
}

}  // extern "C"
