#include "cuda.hpp"

#include <array>

#include "error.hpp"

namespace tcmoa::cuda {
namespace {

// An attribute of a pointer, or `fallback` if CUDA does not know the pointer.
template <typename T>
T pointer_attribute(const Driver &driver, int attribute, Address pointer, T fallback) {
    T value = fallback;
    const Result result = driver.cuPointerGetAttribute(&value, attribute, pointer);
    if (result == kInvalidValue) return fallback;
    driver.check(result, "cuPointerGetAttribute");
    return value;
}

[[noreturn]] void out_of_memory(const Driver &driver, const char *kind, std::size_t bytes) {
    std::size_t free = 0, total = 0;
    std::string available;
    if (driver.cuMemGetInfo_v2(&free, &total) == kSuccess) {
        available = ", " + std::to_string(free) + " of " + std::to_string(total) + " are free on the GPU";
    }
    throw Error(TCMOA_ERROR_MEMORY, "CUDA",
                std::string("out of ") + kind + " memory: " + std::to_string(bytes) + " bytes requested" + available,
                kFreeMemory);
}

}  // namespace

Device::Properties Device::properties(int index) {
    const Driver &driver = Driver::get();
    int count = 0;
    driver.check(driver.cuDeviceGetCount(&count), "cuDeviceGetCount");
    if (count == 0) fail_missing("CUDA", "no GPU found", std::string(kCheckGpu) + ", or " + kUseOpenVino);
    if (index < 0 || index >= count) {
        fail_input("options.cuda_device",
                   std::to_string(index) + "; expected 0 to " + std::to_string(count - 1) + " on this machine");
    }
    Properties found;
    driver.check(driver.cuDeviceGet(&found.device, index), "cuDeviceGet");
    std::array<char, 256> name{};
    driver.check(driver.cuDeviceGetName(name.data(), static_cast<int>(name.size()) - 1, found.device),
                 "cuDeviceGetName");
    found.name = first_line(name.data());
    driver.check(driver.cuDeviceGetAttribute(&found.major, kCapabilityMajor, found.device), "cuDeviceGetAttribute");
    driver.check(driver.cuDeviceGetAttribute(&found.minor, kCapabilityMinor, found.device), "cuDeviceGetAttribute");
    return found;
}

Device::Device(int index) : driver_(Driver::get()), index_(index), device_(properties(index).device) {
    driver_.check(driver_.cuDevicePrimaryCtxRetain(&context_, device_), "cuDevicePrimaryCtxRetain");
}

Device::~Device() { (void)driver_.cuDevicePrimaryCtxRelease_v2(device_); }

void Device::refuse(std::string_view frame, const std::string &problem, const char *remedy) const {
    fail_input(frame, problem + "; expected GPU " + std::to_string(index_) + ", on which this handle runs", remedy);
}

void Device::check_memory(const void *pointer, std::string_view frame) const {
    const auto address = reinterpret_cast<Address>(pointer);
    if (pointer_attribute<unsigned int>(driver_, kPointerMemoryType, address, 0) != kMemoryTypeDevice) {
        refuse(frame, "pixels are not in GPU memory", "pass it as a host frame (TCMOA_HOST)");
    }
    const int device = pointer_attribute(driver_, kPointerDevice, address, -1);
    if (device != index_) refuse(frame, "pixels are on GPU " + std::to_string(device), "copy the frame to that GPU");
    // Mapped memory (cuMemMap) belongs to no context and is accessible from all of them.
    const Handle context = pointer_attribute<Handle>(driver_, kPointerContext, address, nullptr);
    if (context != nullptr && context != context_) {
        refuse(frame, "pixels belong to a CUDA context other than the GPU's primary one",
               "allocate them in the primary context (cuDevicePrimaryCtxRetain), as CUDA's runtime library does");
    }
}

void Device::check_stream(Handle stream, std::string_view frame) const {
    // The default streams belong to the current context, which is this one.
    if (stream == nullptr || stream == kLegacyStream || stream == kPerThreadStream) return;
    Handle context = nullptr;
    const Result result = driver_.cuStreamGetCtx(stream, &context);
    const bool is_unknown = result == kInvalidValue || result == kInvalidContext || result == kInvalidHandle;
    if (!is_unknown) driver_.check(result, "cuStreamGetCtx");  // the GPU failed, not the caller
    if (is_unknown || context != context_) {
        refuse(frame, "cuda_stream is not of the GPU's primary CUDA context", "create the stream there, or pass NULL");
    }
}

CurrentDevice::CurrentDevice(const Device &device) {
    const Driver &driver = Driver::get();
    driver.check(driver.cuCtxPushCurrent_v2(device.context()), "cuCtxPushCurrent");
}

CurrentDevice::~CurrentDevice() {
    Handle popped = nullptr;
    (void)Driver::get().cuCtxPopCurrent_v2(&popped);
}

DeviceMemory new_device_memory(std::size_t bytes) {
    const Driver &driver = Driver::get();
    Address address = 0;
    const Result result = driver.cuMemAlloc_v2(&address, bytes);
    if (result == kOutOfMemory) out_of_memory(driver, "GPU", bytes);
    driver.check(result, "cuMemAlloc");
    return DeviceMemory(address);
}

PinnedMemory new_pinned_memory(std::size_t bytes) {
    const Driver &driver = Driver::get();
    void *address = nullptr;
    const Result result = driver.cuMemHostAlloc(&address, bytes, 0);
    if (result == kOutOfMemory) out_of_memory(driver, "page-locked", bytes);
    driver.check(result, "cuMemHostAlloc");
    return PinnedMemory(address);
}

Stream new_stream() {
    const Driver &driver = Driver::get();
    Handle handle = nullptr;
    driver.check(driver.cuStreamCreate(&handle, kStreamNonBlocking), "cuStreamCreate");
    return Stream(handle);
}

Event new_event() {
    const Driver &driver = Driver::get();
    Handle handle = nullptr;
    driver.check(driver.cuEventCreate(&handle, kEventDisableTiming), "cuEventCreate");
    return Event(handle);
}

void begin_capture(Handle stream) {
    const Driver &driver = Driver::get();
    driver.check(driver.cuStreamBeginCapture_v2(stream, kCaptureThreadLocal), "cuStreamBeginCapture");
}

Graph end_capture(Handle stream, bool failed) {
    const Driver &driver = Driver::get();
    Handle graph = nullptr, launch = nullptr;
    const Result ended = driver.cuStreamEndCapture(stream, &graph);
    Result result = ended;
    if (!failed && result == kSuccess) result = driver.cuGraphInstantiateWithFlags(&launch, graph, 0);
    if (graph != nullptr) (void)driver.cuGraphDestroy(graph);
    if (!failed) driver.check(result, ended == kSuccess ? "cuGraphInstantiate" : "cuStreamEndCapture");
    return Graph(launch);
}

}  // namespace tcmoa::cuda
