// TensorRT behind tensorrt_runtime.hpp: the one file that includes its headers. Built once per flavour, for
// TensorRT-RTX by tensorrt_runtime_rtx.cpp; the library itself is loaded when its engines are first looked at.
//
// Both flavours' headers define inline functions and virtual tables of the same names with different contents. The
// linker would keep one of each, which calls the wrong function. So the namespace gets a name of ours, which is only
// seen here: all that crosses to the library is the extern "C" entry and virtual tables.
#ifdef TCMOA_FLAVOUR_RTX
#define nvinfer1 tcmoa_nvinfer_rtx
#else
#define nvinfer1 tcmoa_nvinfer
#endif

#include <NvInfer.h>

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <mutex>

#include "error.hpp"
#include "tensorrt_runtime.hpp"

#ifdef TCMOA_FLAVOUR_RTX
#ifndef TRT_MAJOR_RTX
#error "these are the headers of TensorRT, not of TensorRT-RTX: set TCMOA_TENSORRT_RTX_INCLUDE_DIR"
#endif
#define TCMOA_MAJOR TRT_MAJOR_RTX
#else
#ifdef TRT_MAJOR_RTX
#error "these are the headers of TensorRT-RTX, not of TensorRT: set TCMOA_TENSORRT_INCLUDE_DIR"
#endif
#define TCMOA_MAJOR NV_TENSORRT_MAJOR
#endif
#define TCMOA_TEXT_OF(number) #number
#define TCMOA_TEXT(number) TCMOA_TEXT_OF(number)

namespace tcmoa {
namespace {

namespace nv = nvinfer1;

#ifdef TCMOA_FLAVOUR_RTX
constexpr const char *kTitle = "TensorRT-RTX " TCMOA_TEXT(TCMOA_MAJOR);
constexpr const char *kName = "tensorrt_rtx";
constexpr const char *kFile = "libtensorrt_rtx.so." TCMOA_TEXT(TCMOA_MAJOR);
constexpr const char *kVariable = "TCMOA_TENSORRT_RTX_LIBRARY";
#else
constexpr const char *kTitle = "TensorRT " TCMOA_TEXT(TCMOA_MAJOR);
constexpr const char *kName = "tensorrt";
constexpr const char *kFile = "libnvinfer.so." TCMOA_TEXT(TCMOA_MAJOR);
constexpr const char *kVariable = "TCMOA_TENSORRT_LIBRARY";
#endif

// The errors that the library logged last. One for the process, as the library keeps the first logger it is given.
class Log final : public nv::ILogger {
public:
    void log(Severity severity, nv::AsciiChar const *text) noexcept override {
        if (severity != Severity::kERROR && severity != Severity::kINTERNAL_ERROR) return;
        const std::lock_guard lock(mutex_);
        const auto place = count_.load() % last_.size();
        try {
            last_[place] = shown(text == nullptr ? "" : text, 300);
        } catch (...) {
            last_[place].clear();
        }
        ++count_;
    }

    [[nodiscard]] std::size_t mark() const noexcept { return count_.load(); }

    // The first error after `mark`, as the later ones follow from it.
    [[nodiscard]] std::string first_since(std::size_t mark) const {
        const std::lock_guard lock(mutex_);
        const std::size_t count = count_.load();
        if (count == mark) return "it logged no reason";
        return last_[std::max(mark, count - std::min(count, last_.size())) % last_.size()];
    }

private:
    mutable std::mutex mutex_;
    std::atomic<std::size_t> count_{0};
    std::array<std::string, 64> last_;
};

// What a message about an engine needs of its description.
struct Origin {
    std::string path, again, version;

    [[noreturn]] void fail(tcmoa_status status, const std::string &what, const std::string &reason) const {
        const std::string text = path + ": " + kName + " " + version + " could not " + what + " (" + reason + ")";
        std::string lower = reason;
        for (char &c : lower) c = (c >= 'A' && c <= 'Z') ? static_cast<char>(c - 'A' + 'a') : c;
        if (lower.find("memory") != std::string::npos && lower.find("out of") != std::string::npos) {
            throw Error(TCMOA_ERROR_MEMORY, text + "; export a smaller frame, or end what else holds GPU memory");
        }
        throw Error(status, text + "; " + again);
    }
};

class Context final : public EngineContext {
public:
    Context(Log &log, Origin origin, std::unique_ptr<nv::IExecutionContext> context)
        : log_(log), origin_(std::move(origin)), context_(std::move(context)) {}

    void work_in(void *scratch, std::size_t bytes) override {
        context_->setDeviceMemoryV2(scratch, static_cast<std::int64_t>(bytes));  // returns nothing
    }

    void bind(const char *name, void *address) override {
        const auto mark = log_.mark();
        if (!context_->setTensorAddress(name, address)) fail("bind '" + std::string(name) + "'", mark);
    }

    void enqueue(void *stream) override {
        const auto mark = log_.mark();
        if (!context_->enqueueV3(static_cast<cudaStream_t>(stream))) fail("queue the engine", mark);
    }

    [[nodiscard]] bool can_capture(void *stream) const override { return ask(*context_, stream); }

private:
    // A template, as not every version's header has the question.
    template <typename T>
    static bool ask(T &context, void *stream) {
        if constexpr (requires { context.isStreamCapturable(static_cast<cudaStream_t>(stream)); }) {
            return context.isStreamCapturable(static_cast<cudaStream_t>(stream));
        } else {
            return true;
        }
    }

    [[noreturn]] void fail(const std::string &what, std::size_t mark) const {
        origin_.fail(TCMOA_ERROR_INTERNAL, what, log_.first_since(mark));
    }

    Log &log_;
    Origin origin_;
    std::unique_ptr<nv::IExecutionContext> context_;
};

class Loaded final : public LoadedEngine {
public:
    Loaded(Log &log, Origin origin, nv::IRuntime *runtime, std::string_view blob)
        : log_(log), origin_(std::move(origin)), runtime_(runtime) {
        const auto mark = log_.mark();
        engine_.reset(runtime_->deserializeCudaEngine(blob.data(), blob.size()));
        if (!engine_) origin_.fail(TCMOA_ERROR_BUNDLE, "load", log_.first_since(mark));
#ifdef TCMOA_FLAVOUR_RTX
        config_.reset(checked("configure", [&] { return engine_->createRuntimeConfig(); }));
        config_->setExecutionContextAllocationStrategy(nv::ExecutionContextAllocationStrategy::kUSER_MANAGED);
        cache_.reset(checked("make a runtime cache", [&] { return config_->createRuntimeCache(); }));
#endif
    }

    [[nodiscard]] std::size_t scratch_bytes() const override {
        return static_cast<std::size_t>(std::max<std::int64_t>(engine_->getDeviceMemorySizeV2(), 0));
    }

    [[nodiscard]] std::vector<EngineTensor> tensors() const override {
        std::vector<EngineTensor> found;
        for (std::int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
            const char *name = engine_->getIOTensorName(i);
            if (name == nullptr) origin_.fail(TCMOA_ERROR_BUNDLE, "name its tensors", "a name is missing");
            const auto shape = engine_->getTensorShape(name);
            EngineTensor tensor{name, type_of(engine_->getTensorDataType(name)), {}, false, false};
            for (std::int32_t k = 0; k < shape.nbDims; ++k) tensor.shape.push_back(shape.d[k]);
            tensor.input = engine_->getTensorIOMode(name) == nv::TensorIOMode::kINPUT;
            tensor.plain = engine_->getTensorLocation(name) == nv::TensorLocation::kDEVICE &&
                           engine_->getTensorFormat(name) == nv::TensorFormat::kLINEAR;
            found.push_back(std::move(tensor));
        }
        return found;
    }

#ifdef TCMOA_FLAVOUR_RTX
    bool take_kernels(std::string_view blob) override { return cache_->deserialize(blob.data(), blob.size()); }

    [[nodiscard]] std::string kernels() const override {
        const std::unique_ptr<nv::IHostMemory> memory(cache_->serialize());
        if (!memory || memory->data() == nullptr) return "";
        return {static_cast<const char *>(memory->data()), memory->size()};
    }
#else
    bool take_kernels(std::string_view) override { return false; }
    [[nodiscard]] std::string kernels() const override { return ""; }
#endif

    [[nodiscard]] std::unique_ptr<EngineContext> new_context() override {
#ifdef TCMOA_FLAVOUR_RTX
        if (!cache_is_set_) {  // not before: first it may take in the kernels of an earlier run
            const auto mark = log_.mark();
            cache_is_set_ = config_->setRuntimeCache(*cache_);
            if (!cache_is_set_) {
                origin_.fail(TCMOA_ERROR_INTERNAL, "take the runtime cache", log_.first_since(mark));
            }
        }
#endif
        std::unique_ptr<nv::IExecutionContext> context(checked("make a context", [&] {
#ifdef TCMOA_FLAVOUR_RTX
            return engine_->createExecutionContext(config_.get());
#else
            return engine_->createExecutionContext(nv::ExecutionContextAllocationStrategy::kUSER_MANAGED);
#endif
        }));
        return std::make_unique<Context>(log_, origin_, std::move(context));
    }

private:
    template <typename Step>
    auto checked(const char *what, Step step) -> decltype(step()) {
        const auto mark = log_.mark();
        auto *result = step();
        if (result == nullptr) origin_.fail(TCMOA_ERROR_INTERNAL, what, log_.first_since(mark));
        return result;
    }

    static std::string type_of(nv::DataType type) {
        if (type == nv::DataType::kUINT8) return "uint8";
        if (type == nv::DataType::kFLOAT) return "float32";
        return "type " + std::to_string(static_cast<int>(type));
    }

    Log &log_;
    Origin origin_;
    std::unique_ptr<nv::IRuntime> runtime_;  // freed last
    std::unique_ptr<nv::ICudaEngine> engine_;
#ifdef TCMOA_FLAVOUR_RTX
    std::unique_ptr<nv::IRuntimeCache> cache_;
    std::unique_ptr<nv::IRuntimeConfig> config_;
    bool cache_is_set_ = false;
#endif
};

class Library final : public TensorRt {
public:
    Library() {
        const char *asked = secure_getenv(kVariable);
        const std::string file = asked != nullptr && *asked != '\0' ? asked : kFile;
        void *library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) missing(first_line(dlerror()));
        create_ = symbol<decltype(create_)>(library, "createInferRuntime_INTERNAL");
        for (const char *part : {"Major", "Minor", "Patch", "Build"}) {
            const auto number = symbol<std::int32_t (*)()>(library, "getInferLib" + std::string(part) + "Version");
            version_ += (version_.empty() ? "" : ".") + std::to_string(number());
        }
        // An older or newer major version has other virtual tables than the headers that this was built with.
        if (version_.rfind(TCMOA_TEXT(TCMOA_MAJOR) ".", 0) != 0) missing(file + " is of version " + version_);
    }

    [[nodiscard]] std::string version() const override { return version_; }

    [[nodiscard]] std::unique_ptr<LoadedEngine> load(const Engine &description, std::string_view blob) override {
        Origin origin{description.path.string(), description.again, version_};
        const auto mark = log_.mark();
        auto *runtime = static_cast<nv::IRuntime *>(create_(&log_, static_cast<std::int32_t>(NV_TENSORRT_VERSION)));
        if (runtime == nullptr) origin.fail(TCMOA_ERROR_MISSING, "start", log_.first_since(mark));
        return std::make_unique<Loaded>(log_, std::move(origin), runtime, blob);
    }

private:
    [[noreturn]] static void missing(const std::string &reason) {
        fail_missing(std::string(kFile) + " cannot be loaded (" + reason + "); install " + kTitle + ", then set " +
                     kVariable + " to it or have the system's loader find it");
    }

    template <typename T>
    static T symbol(void *library, const std::string &name) {
        void *found = dlsym(library, name.c_str());
        if (found == nullptr) missing("it has no " + name);
        return reinterpret_cast<T>(found);
    }

    void *(*create_)(void *, std::int32_t) = nullptr;
    std::string version_;
    Log log_;
};

}  // namespace

#ifdef TCMOA_FLAVOUR_RTX
TensorRt &open_tensorrt_rtx() {
#else
TensorRt &open_tensorrt() {
#endif
    static auto *library = new Library;  // never freed: TensorRT's own threads may still log at exit
    return *library;
}

}  // namespace tcmoa
