// TensorRT behind tensorrt_runtime.hpp: the only file that includes its headers. Compiled once per flavor, for
// TensorRT-RTX by tensorrt_runtime_rtx.cpp. The library itself is loaded when its engines are first needed.
//
// The headers of both flavors define inline functions and virtual tables of equal names and different contents; the
// linker would keep one of each, and calls would reach the wrong function. So this file renames their namespace. Only
// the extern "C" entry point and virtual tables are shared with the library, and these have no namespace.
#ifdef TCMOA_FLAVOR_RTX
#define nvinfer1 tcmoa_nvinfer_rtx
#else
#define nvinfer1 tcmoa_nvinfer
#endif

#include <NvInfer.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>

#include "error.hpp"
#include "shared_library.hpp"
#include "tensorrt_runtime.hpp"

#ifdef TCMOA_FLAVOR_RTX
#ifndef TRT_MAJOR_RTX
#error "these are the headers of TensorRT, not of TensorRT-RTX: set TCMOA_TENSORRT_RTX_INCLUDE"
#endif
#define TCMOA_MAJOR TRT_MAJOR_RTX
#define TCMOA_MINOR TRT_MINOR_RTX
#else
#ifdef TRT_MAJOR_RTX
#error "these are the headers of TensorRT-RTX, not of TensorRT: set TCMOA_TENSORRT_INCLUDE"
#endif
#if NV_TENSORRT_MAJOR < 10
#error "these headers are too old: set TCMOA_TENSORRT_INCLUDE to those of TensorRT 10 or newer"
#endif
#define TCMOA_MAJOR NV_TENSORRT_MAJOR
#define TCMOA_MINOR NV_TENSORRT_MINOR
#endif
#define TCMOA_STRINGIZE_ARGUMENT(number) #number
#define TCMOA_STRINGIZE(number) TCMOA_STRINGIZE_ARGUMENT(number)

namespace tcmoa {
namespace {

namespace nv = nvinfer1;

#ifdef TCMOA_FLAVOR_RTX
constexpr Flavor kFlavor = Flavor::rtx;
constexpr const char *kTitle = "TensorRT-RTX";
constexpr const char *kFileName = "libtensorrt_rtx.so." TCMOA_STRINGIZE(TCMOA_MAJOR);
constexpr const char *kVariable = "TCMOA_TENSORRT_RTX_LIBRARY";
#else
constexpr Flavor kFlavor = Flavor::tensorrt;
constexpr const char *kTitle = "TensorRT";
constexpr const char *kFileName = "libnvinfer.so." TCMOA_STRINGIZE(TCMOA_MAJOR);
constexpr const char *kVariable = "TCMOA_TENSORRT_LIBRARY";
#endif
constexpr const char *kHeaderVersion = TCMOA_STRINGIZE(TCMOA_MAJOR) "." TCMOA_STRINGIZE(TCMOA_MINOR);

// The errors that the library logged last. One logger per process: the library keeps the first that it is given.
class Logger final : public nv::ILogger {
public:
    void log(Severity severity, nv::AsciiChar const *text) noexcept override {
        if (severity != Severity::kERROR && severity != Severity::kINTERNAL_ERROR) return;
        const std::lock_guard lock(mutex_);
        auto &message = last_[count_.load() % last_.size()];
        try {
            message = printable(text == nullptr ? "" : text, 300);
        } catch (...) {
            message.clear();
        }
        ++count_;
    }

    // Number of errors so far.
    [[nodiscard]] std::size_t count() const noexcept { return count_.load(); }

    // The error after the first `count`: later ones are consequences of it.
    [[nodiscard]] std::string first_after(std::size_t count) const {
        const std::lock_guard lock(mutex_);
        const std::size_t now = count_.load();
        if (now == count) return "no reason logged";
        return last_[std::max(count, now - std::min(now, last_.size())) % last_.size()];
    }

private:
    mutable std::mutex mutex_;
    std::atomic<std::size_t> count_{0};
    std::array<std::string, 64> last_;
};

// What an error about an engine says.
struct ErrorContext {
    std::string path, remedy, version;

    [[noreturn]] void fail(tcmoa_status status, const std::string &action, const std::string &reason) const {
        const std::string problem = std::string(kTitle) + " " + version + " failed to " + action + " (" + reason + ")";
        std::string lower = reason;
        for (char &c : lower) c = (c >= 'A' && c <= 'Z') ? static_cast<char>(c - 'A' + 'a') : c;
        if (lower.find("memory") != std::string::npos && lower.find("out of") != std::string::npos) {
            throw Error(TCMOA_ERROR_MEMORY, path, problem, "export a smaller frame, or end other programs on the GPU");
        }
        throw Error(status, path, problem, remedy);
    }
};

class Context final : public EngineContext {
public:
    Context(Logger &logger, ErrorContext errors, std::unique_ptr<nv::IExecutionContext> context)
        : logger_(logger), errors_(std::move(errors)), context_(std::move(context)) {}

    void set_scratch(void *memory, std::size_t bytes) override {
        give_memory(*context_, memory, static_cast<std::int64_t>(bytes));  // returns nothing
    }

    void bind(const char *tensor, void *address) override {
        const auto count = logger_.count();
        if (!context_->setTensorAddress(tensor, address)) fail("bind '" + std::string(tensor) + "'", count);
    }

    void enqueue(void *stream) override {
        const auto count = logger_.count();
        if (!context_->enqueueV3(static_cast<cudaStream_t>(stream))) fail("enqueue the engine", count);
    }

    [[nodiscard]] bool can_capture(void *stream) const override {
        return is_capturable(*context_, static_cast<cudaStream_t>(stream));
    }

private:
    // Templates, since not every version has these functions. TensorRT 10.0 does not take the size.
    template <typename T>
    static void give_memory(T &context, void *memory, std::int64_t bytes) {
        if constexpr (requires { context.setDeviceMemoryV2(memory, bytes); }) {
            context.setDeviceMemoryV2(memory, bytes);
        } else {
            context.setDeviceMemory(memory);
        }
    }

    template <typename T>
    static bool is_capturable(T &context, cudaStream_t stream) {
        if constexpr (requires { context.isStreamCapturable(stream); }) {
            return context.isStreamCapturable(stream);
        } else {
            return true;
        }
    }

    [[noreturn]] void fail(const std::string &action, std::size_t count) const {
        errors_.fail(TCMOA_ERROR_INTERNAL, action, logger_.first_after(count));
    }

    Logger &logger_;
    ErrorContext errors_;
    std::unique_ptr<nv::IExecutionContext> context_;
};

class Loaded final : public LoadedEngine {
public:
    Loaded(Logger &logger, ErrorContext errors, nv::IRuntime *runtime, std::string_view bytes)
        : logger_(logger), errors_(std::move(errors)), runtime_(runtime) {
        const auto count = logger_.count();
        engine_.reset(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
        if (!engine_) errors_.fail(TCMOA_ERROR_BUNDLE, "load it", logger_.first_after(count));
#ifdef TCMOA_FLAVOR_RTX
        config_.reset(checked("create a runtime configuration", [&] { return engine_->createRuntimeConfig(); }));
        config_->setExecutionContextAllocationStrategy(nv::ExecutionContextAllocationStrategy::kUSER_MANAGED);
        cache_.reset(checked("create a runtime cache", [&] { return config_->createRuntimeCache(); }));
#endif
    }

    [[nodiscard]] std::size_t scratch_bytes() const override {
        return needed_memory(*engine_);
    }

    [[nodiscard]] EngineTensors tensors() const override {
        EngineTensors found;
        for (std::int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
            const char *name = engine_->getIOTensorName(i);
            if (name == nullptr) errors_.fail(TCMOA_ERROR_BUNDLE, "name its tensors", "a name is missing");
            const auto shape = engine_->getTensorShape(name);
            const std::vector<std::int64_t> sides(shape.d, shape.d + std::max(shape.nbDims, 0));
            const bool is_input = engine_->getTensorIOMode(name) == nv::TensorIOMode::kINPUT;
            (is_input ? found.inputs : found.outputs)
                .push_back({name, describe_tensor(type_name(engine_->getTensorDataType(name)), sides)});
            const bool is_linear = engine_->getTensorLocation(name) == nv::TensorLocation::kDEVICE &&
                                   engine_->getTensorFormat(name) == nv::TensorFormat::kLINEAR;
            if (!is_linear && found.unsupported.empty()) found.unsupported = name;
        }
        return found;
    }

#ifdef TCMOA_FLAVOR_RTX
    bool load_kernels(std::string_view kernels) override {
        return cache_->deserialize(kernels.data(), kernels.size());
    }

    [[nodiscard]] std::string compiled_kernels() const override {
        const std::unique_ptr<nv::IHostMemory> memory(cache_->serialize());
        if (!memory || memory->data() == nullptr) return "";
        return {static_cast<const char *>(memory->data()), memory->size()};
    }
#else
    bool load_kernels(std::string_view) override { return false; }
    [[nodiscard]] std::string compiled_kernels() const override { return ""; }
#endif

    [[nodiscard]] std::unique_ptr<EngineContext> new_context() override {
#ifdef TCMOA_FLAVOR_RTX
        if (!cache_is_set_) {  // not earlier: kernels can be loaded only into a cache that is not in use
            const auto count = logger_.count();
            cache_is_set_ = config_->setRuntimeCache(*cache_);
            if (!cache_is_set_) {
                errors_.fail(TCMOA_ERROR_INTERNAL, "set the runtime cache", logger_.first_after(count));
            }
        }
#endif
        std::unique_ptr<nv::IExecutionContext> context(checked("create a context", [&] {
#ifdef TCMOA_FLAVOR_RTX
            return engine_->createExecutionContext(config_.get());
#else
            return engine_->createExecutionContext(nv::ExecutionContextAllocationStrategy::kUSER_MANAGED);
#endif
        }));
        return std::make_unique<Context>(logger_, errors_, std::move(context));
    }

private:
    // A template, since TensorRT 10.0 has only the first version of this function.
    template <typename T>
    static std::size_t needed_memory(const T &engine) {
        if constexpr (requires { engine.getDeviceMemorySizeV2(); }) {
            return static_cast<std::size_t>(std::max<std::int64_t>(engine.getDeviceMemorySizeV2(), 0));
        } else {
            return engine.getDeviceMemorySize();
        }
    }

    template <typename Create>
    auto checked(const char *action, Create create) -> decltype(create()) {
        const auto count = logger_.count();
        auto *object = create();
        if (object == nullptr) errors_.fail(TCMOA_ERROR_INTERNAL, action, logger_.first_after(count));
        return object;
    }

    static std::string type_name(nv::DataType type) {
        if (type == nv::DataType::kUINT8) return name_of(ElementType::uint8);
        if (type == nv::DataType::kFLOAT) return name_of(ElementType::float32);
        return "type " + std::to_string(static_cast<int>(type));
    }

    Logger &logger_;
    ErrorContext errors_;
    std::unique_ptr<nv::IRuntime> runtime_;  // freed last
    std::unique_ptr<nv::ICudaEngine> engine_;
#ifdef TCMOA_FLAVOR_RTX
    std::unique_ptr<nv::IRuntimeCache> cache_;
    std::unique_ptr<nv::IRuntimeConfig> config_;
    bool cache_is_set_ = false;
#endif
};

class Library final : public TensorRt {
public:
    Library() {
        const SharedLibrary library(kVariable, {kFileName},
                                    std::string("install ") + kTitle + " " + kHeaderVersion + ", then set " +
                                        kVariable + " to its path or add its folder to the system's loader");
        std::vector<std::int32_t> numbers;
        for (const char *part : {"Major", "Minor", "Patch", "Build"}) {
            numbers.push_back(library.function<std::int32_t (*)()>("getInferLib" + std::string(part) + "Version")());
            version_ += (version_.empty() ? "" : ".") + std::to_string(numbers.back());
        }
        // Before the first object of the library is made: it accepts the number of any version, and then calls the
        // virtual functions of its own version.
        const auto expected = expected_version(kFlavor, {TCMOA_MAJOR, TCMOA_MINOR}, {numbers[0], numbers[1]});
        if (!expected.empty()) {
            fail_missing(kFileName,
                         "version " + version_ + "; expected " + expected +
                             ", since this libtcmoa was built with the headers of " + kTitle + " " + kHeaderVersion,
                         std::string("install ") + kTitle + " " + kHeaderVersion +
                             ", or build libtcmoa with the headers of the installed version");
        }
        create_runtime_ = library.function<CreateRuntime>("createInferRuntime_INTERNAL");
    }

    [[nodiscard]] std::string version() const override { return version_; }

    [[nodiscard]] std::unique_ptr<LoadedEngine> load(const Engine &description, std::string_view bytes) override {
        ErrorContext errors{description.path.string(), description.remedy, version_};
        const auto count = logger_.count();
        auto *runtime =
            static_cast<nv::IRuntime *>(create_runtime_(&logger_, static_cast<std::int32_t>(NV_TENSORRT_VERSION)));
        if (runtime == nullptr) errors.fail(TCMOA_ERROR_MISSING, "start", logger_.first_after(count));
        return std::make_unique<Loaded>(logger_, std::move(errors), runtime, bytes);
    }

private:
    using CreateRuntime = void *(*)(void *, std::int32_t);
    CreateRuntime create_runtime_ = nullptr;
    std::string version_;
    Logger logger_;
};

}  // namespace

#ifdef TCMOA_FLAVOR_RTX
TensorRt &open_tensorrt_rtx() {
#else
TensorRt &open_tensorrt() {
#endif
    static auto *library = new Library;  // never freed: TensorRT's threads may log until the process exits
    return *library;
}

}  // namespace tcmoa
