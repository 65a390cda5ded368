#include "cuda_driver.hpp"

#include <algorithm>
#include <iterator>
#include <string>

#include "error.hpp"
#include "shared_library.hpp"

namespace tcmoa::cuda {
namespace {

// E.g. "out of memory (CUDA_ERROR_OUT_OF_MEMORY)".
std::string describe(const Driver &driver, Result result) {
    const char *text = nullptr, *name = nullptr;
    (void)driver.cuGetErrorString(result, &text);
    (void)driver.cuGetErrorName(result, &name);
    return first_line(text) + " (" + (name == nullptr ? std::to_string(result) : std::string(name)) + ")";
}

Driver load() {
    const SharedLibrary library(nullptr, {"libcuda.so.1"},
                                std::string("install an NVIDIA driver for CUDA 12 or newer, or ") + kUseOpenVino);
    Driver driver;
#define TCMOA_LOAD(name, parameters) driver.name = library.function<decltype(driver.name)>(#name);
    TCMOA_CUDA_FUNCTIONS(TCMOA_LOAD)
#undef TCMOA_LOAD
    return driver;
}

}  // namespace

const Driver &Driver::get() {
    static const Driver driver = [] {  // the next call tries again if it throws
        Driver loaded = load();
        const Result result = loaded.cuInit(0);
        if (result != kSuccess) {
            int version = 0;
            (void)loaded.cuDriverGetVersion(&version);
            fail_missing("CUDA",
                         "no usable GPU: " + describe(loaded, result) + ", with a driver for CUDA " +
                             std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10),
                         std::string(kCheckGpu) + ", or " + kUseOpenVino);
        }
        return loaded;
    }();
    return driver;
}

void Driver::check(Result result, std::string_view function) const {
    if (result == kSuccess) return;
    const std::string name(function);
    if (result == kOutOfMemory) throw Error(TCMOA_ERROR_MEMORY, "CUDA", "out of GPU memory in " + name, kFreeMemory);
    const bool is_fatal = std::find(std::begin(kFatal), std::end(kFatal), result) != std::end(kFatal);
    fail_internal("CUDA", name + " failed: " + describe(*this, result), is_fatal ? kRestart : kCheckGpu);
}

}  // namespace tcmoa::cuda
