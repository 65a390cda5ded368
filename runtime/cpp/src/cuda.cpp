#include "cuda.hpp"

#include <dlfcn.h>

#include <array>

namespace tcmoa::cuda {
namespace {

constexpr const char *kElse = "use the backend openvino";
constexpr const char *kSmaller = "export a smaller frame, take fewer slots, or end what else holds memory";

constexpr int kCapabilityMajor = 75, kCapabilityMinor = 76;                 // CU_DEVICE_ATTRIBUTE_*
constexpr int kPointerContext = 1, kPointerMemoryType = 2, kPointerDevice = 9;  // CU_POINTER_ATTRIBUTE_*
constexpr unsigned int kMemoryDevice = 2;                                   // CU_MEMORYTYPE_DEVICE
constexpr unsigned int kStreamNonBlocking = 1, kEventDisableTiming = 2;
constexpr int kCaptureThreadLocal = 1;  // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL

std::string words(const Driver &driver, Result result) {
    const char *text = nullptr, *name = nullptr;
    (void)driver.cuGetErrorString(result, &text);
    (void)driver.cuGetErrorName(result, &name);
    return first_line(text) + " (" + (name == nullptr ? std::to_string(result) : std::string(name)) + ")";
}

Driver load() {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        fail_missing("there is no NVIDIA driver (" + first_line(dlerror()) + "); install one, or " + kElse);
    }
    Driver driver;  // never unloaded: its threads may outlive the last handle
#define TCMOA_LOAD(name, parameters)                                                                           \
    driver.name = reinterpret_cast<decltype(driver.name)>(dlsym(library, #name));                              \
    if (driver.name == nullptr) {                                                                              \
        fail_missing("the NVIDIA driver has no function " #name ": it is too old; install one for CUDA 12 or " \
                     "newer, or " + std::string(kElse));                                                       \
    }
    TCMOA_CUDA_FUNCTIONS(TCMOA_LOAD)
#undef TCMOA_LOAD
    return driver;
}

// A pointer's attribute, or `otherwise` where CUDA does not know it.
template <typename T>
T attribute(const Driver &driver, int which, Address pointer, T otherwise) {
    T value = otherwise;
    return driver.cuPointerGetAttribute(&value, which, pointer) == kSuccess ? value : otherwise;
}

[[noreturn]] void refuse(std::string_view name, const std::string &what, int index, const char *advice) {
    fail_input(std::string(name) + ": " + what + ", expected GPU " + std::to_string(index) +
               ", which this handle runs on; " + advice);
}

[[noreturn]] void out_of_memory(const Driver &driver, const char *where, std::size_t bytes) {
    std::size_t free = 0, total = 0;
    std::string room;
    if (driver.cuMemGetInfo_v2(&free, &total) == kSuccess) {
        room = " (" + std::to_string(free) + " of " + std::to_string(total) + " free on the GPU)";
    }
    throw Error(TCMOA_ERROR_MEMORY, std::string("out of ") + where + " memory: " + std::to_string(bytes) +
                                        " bytes were asked for" + room + "; " + kSmaller);
}

}  // namespace

const Driver &Driver::get() {
    static const Driver driver = [] {  // tried again at the next call where it throws
        Driver loaded = load();
        const Result result = loaded.cuInit(0);
        if (result != kSuccess) {
            int version = 0;
            (void)loaded.cuDriverGetVersion(&version);
            fail_missing("there is no CUDA device that works: " + words(loaded, result) + ", with a driver for CUDA " +
                         std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10) +
                         "; check it with `nvidia-smi`, or " + kElse);
        }
        return loaded;
    }();
    return driver;
}

void Driver::check(Result result, std::string_view function) const {
    if (result == kSuccess) return;
    const std::string where(function);
    if (result == kOutOfMemory) {
        throw Error(TCMOA_ERROR_MEMORY, "out of GPU memory in " + where + "; " + kSmaller);
    }
    fail_internal("CUDA failed in " + where + ": " + words(*this, result) + "; check the GPU with `nvidia-smi`");
}

Device::Properties Device::properties(int index) {
    const Driver &driver = Driver::get();
    int count = 0;
    driver.check(driver.cuDeviceGetCount(&count), "cuDeviceGetCount");
    if (count == 0) fail_missing(std::string("there is no CUDA device; check with `nvidia-smi`, or ") + kElse);
    if (index < 0 || index >= count) {
        fail_input("cuda_device is " + std::to_string(index) + ", expected 0 to " + std::to_string(count - 1) +
                   ": as many GPUs as CUDA shows");
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

void Device::check_memory(const void *pointer, std::string_view name) const {
    constexpr const char *advice = "copy the frame there first";
    const auto address = reinterpret_cast<Address>(pointer);
    if (attribute<unsigned int>(driver_, kPointerMemoryType, address, 0) != kMemoryDevice) {
        refuse(name, "its pixels are not in memory of a GPU", index_, "give it as a host frame (TCMOA_HOST)");
    }
    const int device = attribute(driver_, kPointerDevice, address, -1);
    if (device != index_) refuse(name, "its pixels are on GPU " + std::to_string(device), index_, advice);
    // Mapped memory has no context and is everybody's.
    const Handle context = attribute<Handle>(driver_, kPointerContext, address, nullptr);
    if (context != nullptr && context != context_) {
        refuse(name, "its pixels belong to another CUDA context than the GPU's primary one", index_,
               "allocate them in the primary context (cuDevicePrimaryCtxRetain), as CUDA's runtime library does");
    }
}

void Device::check_stream(Handle stream, std::string_view name) const {
    if (stream == nullptr || stream == kLegacyStream) return;  // of whichever context is current, which is ours
    Handle context = nullptr;
    if (driver_.cuStreamGetCtx(stream, &context) != kSuccess || context != context_) {
        refuse(name, "its cuda_stream is not of the GPU's primary CUDA context", index_,
               "make the stream there, or give NULL");
    }
}

Current::Current(const Device &device) {
    const Driver &driver = Driver::get();
    driver.check(driver.cuCtxPushCurrent_v2(device.context()), "cuCtxPushCurrent");
}

Current::~Current() {
    Handle before = nullptr;
    (void)Driver::get().cuCtxPopCurrent_v2(&before);
}

DeviceMemory device_memory(std::size_t bytes) {
    const Driver &driver = Driver::get();
    Address address = 0;
    const Result result = driver.cuMemAlloc_v2(&address, bytes);
    if (result == kOutOfMemory) out_of_memory(driver, "GPU", bytes);
    driver.check(result, "cuMemAlloc");
    return DeviceMemory(address);
}

PinnedMemory pinned_memory(std::size_t bytes) {
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
