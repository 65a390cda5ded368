// A simulated libnvinfer.so, or libtensorrt_rtx.so if it is compiled with the headers in rtx/. Its engines are a few
// lines of text, see toy_bundle.hpp:
//
//     toy engine
//     input x uint8 1 4 6 3          name, type and shape of each tensor; `host` or `chw2` may follow
//     output fused uint8 1 4 6 3
//     scratch 72                     bytes of scratch memory
//
// fused = mean of x and y, plus 100 * prompt_shift at the pixel's token; prompt[i] = prompt_scale[0] * i.
#include <NvInfer.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "simulated.hpp"

extern "C" {
int cuMemAlloc_v2(unsigned long long *, std::size_t);
int cuMemFree_v2(unsigned long long);
}

namespace {

using namespace nvinfer1;

constexpr const char *kKernels = "toy kernels";

struct Tensor {
    std::string name, type;
    Dims shape{};
    bool input = false;
    TensorLocation location = TensorLocation::kDEVICE;
    TensorFormat format = TensorFormat::kLINEAR;

    [[nodiscard]] std::size_t elements() const {
        std::size_t count = 1;
        for (int i = 0; i < shape.nbDims; ++i) count *= static_cast<std::size_t>(shape.d[i]);
        return count;
    }
};

ILogger *logger = nullptr;  // the first that it is given, as in TensorRT

void log(const char *text) { logger->log(ILogger::Severity::kERROR, text); }

// Whether this step must fail; then it logs two errors, the second of them as a consequence of the first.
bool refused(const char *step) {
    auto &control = simulated::control();
    if (control.refuse == nullptr || std::strcmp(control.refuse, step) != 0) return false;
    if (control.refuse_after-- != 0) return false;
    control.refuse = nullptr;
    log(control.reason);
    log("a consequence of it");
    return true;
}

// TensorRT uses CUDA's runtime library, which works in the context that is current. Where none is, it would make the
// primary context of the first GPU. An object belongs to the context in which it was made.
class Object {
public:
    Object() : context_(simulated_current_context()) {
        ++simulated::counts().engines;
        if (simulated_has_primary_context() == 0) simulated_record_misuse("TensorRT without a primary context");
    }
    ~Object() {
        --simulated::counts().engines;
        check_context();
    }
    Object(const Object &) = delete;
    Object &operator=(const Object &) = delete;

protected:
    void check_context() const {
        if (simulated_current_context() != context_) simulated_record_misuse("TensorRT in another context");
    }

private:
    void *context_;
};

class HostMemory final : public IHostMemory, Object {
public:
    explicit HostMemory(std::string text) : text_(std::move(text)) {}
    void *data() const noexcept override { return const_cast<char *>(text_.data()); }
    std::size_t size() const noexcept override { return text_.size(); }

private:
    std::string text_;
};

// Compiled kernels; shared by a cache and the contexts that compile.
using Kernels = std::string;

class ExecutionContext final : public IExecutionContext, Object {
public:
    ExecutionContext(const std::vector<Tensor> &tensors, std::size_t scratch, Kernels *kernels)
        : tensors_(tensors), scratch_bytes_(scratch), kernels_(kernels) {}

    ~ExecutionContext() noexcept override {
        if (simulated_is_pending(this) != 0) simulated_record_misuse("a context is destroyed before it ran");
        if (compiled_ != 0) {
            cuMemFree_v2(compiled_);
        }
    }

#ifdef TCMOA_SIMULATED_OLD_MEMORY_FUNCTIONS
    void setDeviceMemory(void *memory) noexcept override {
        const auto size = static_cast<std::int64_t>(scratch_bytes_);
#else
    void setDeviceMemoryV2(void *memory, std::int64_t size) noexcept override {
#endif
        if (reinterpret_cast<std::uintptr_t>(memory) % 256 != 0) simulated_record_misuse("scratch memory is not aligned");
        if (size < static_cast<std::int64_t>(scratch_bytes_)) simulated_record_misuse("scratch memory is too small");
        scratch_ = static_cast<unsigned char *>(memory);
    }

    bool setTensorAddress(char const *name, void *data) noexcept override {
        check_context();
        if (refused("bind")) return false;
        if (reinterpret_cast<std::uintptr_t>(data) % 256 != 0) simulated_record_misuse("a tensor is not aligned");
        addresses_[name] = static_cast<unsigned char *>(data);
        return true;
    }

    bool enqueueV3(cudaStream_t stream) noexcept override {
        ++simulated::counts().enqueued;
        check_context();
        if (refused("enqueue")) return false;
        if (scratch_ == nullptr || addresses_.size() != tensors_.size()) {
            log("a tensor has no address");
            return false;
        }
        if (compiled_ == 0) {  // like the first run of a real engine, which may allocate and then cannot be captured
            if (const int failed = cuMemAlloc_v2(&compiled_, 64)) {
                compiled_ = 0;
                log(failed == 2 ? "Out of memory" : "a failure of CUDA");
                return false;
            }
            if (kernels_ == nullptr || kernels_->empty()) ++simulated::counts().compiled;
            if (kernels_ != nullptr) *kernels_ = kKernels;
        }
        std::this_thread::sleep_for(std::chrono::microseconds(simulated::control().pause_us));
        return simulated_launch(stream, mean, this) == 0 && simulated_launch(stream, add_shift, this) == 0;
    }

#ifdef TRT_MAJOR_RTX
    bool isStreamCapturable(cudaStream_t) const noexcept override { return simulated::control().capturable; }
#endif

private:
    [[nodiscard]] const Tensor &tensor(const char *name) const {
        for (const auto &found : tensors_) {
            if (found.name == name) return found;
        }
        std::abort();
    }

    // Two kernels. The first leaves its result in the scratch memory, which contexts that run concurrently would
    // destroy.
    static void mean(void *self) {
        auto &context = *static_cast<ExecutionContext *>(self);
        ++simulated::counts().kernels;
        for (const auto &each : context.tensors_) {
            const std::size_t size = each.type == "uint8" ? 1 : 4;
            if (!simulated_access(context.addresses_.at(each.name), each.elements() * size, 256)) return;
        }
        if (!simulated_access(context.scratch_, context.scratch_bytes_, 256)) return;
        const auto &x = context.tensor("x"), &y = context.tensor("y");
        const auto *from_x = context.addresses_.at("x"), *from_y = context.addresses_.at("y");
        for (std::size_t i = 0; i < context.tensor("fused").elements(); ++i) {
            const int left = from_x[x.shape.d[3] == 3 ? i : i / 3], right = from_y[y.shape.d[3] == 3 ? i : i / 3];
            context.scratch_[i] = static_cast<unsigned char>((left + right) / 2);
        }
    }

    static void add_shift(void *self) {
        auto &context = *static_cast<ExecutionContext *>(self);
        const auto &fused = context.tensor("fused"), &shift = context.tensor("prompt_shift");
        const auto side = [](const Tensor &of, int i) { return static_cast<std::size_t>(of.shape.d[i]); };
        const auto width = side(fused, 2), height = side(fused, 1), columns = side(shift, 2), rows = side(shift, 1);
        const auto *shifts = reinterpret_cast<const float *>(context.addresses_.at("prompt_shift"));
        auto *out = context.addresses_.at("fused");
        for (std::size_t i = 0; i < fused.elements(); ++i) {
            const std::size_t row = i / 3 / width, column = i / 3 % width;
            const float value = static_cast<float>(context.scratch_[i]) +
                                100 * shifts[row * rows / height * columns + column * columns / width];
            out[i] = static_cast<unsigned char>(value < 0 ? 0 : value > 255 ? 255 : value);
            context.scratch_[i] = 0;
        }
        if (context.addresses_.count("prompt") == 0) return;
        const float scale = *reinterpret_cast<const float *>(context.addresses_.at("prompt_scale"));
        auto *prompt = reinterpret_cast<float *>(context.addresses_.at("prompt"));
        for (std::size_t i = 0; i < context.tensor("prompt").elements(); ++i) prompt[i] = scale * static_cast<float>(i);
    }

    std::vector<Tensor> tensors_;
    std::size_t scratch_bytes_;
    Kernels *kernels_;
    unsigned char *scratch_ = nullptr;
    unsigned long long compiled_ = 0;
    std::map<std::string, unsigned char *> addresses_;
};

#ifdef TRT_MAJOR_RTX
class RuntimeCache final : public IRuntimeCache, Object {
public:
    IHostMemory *serialize() const noexcept override { return new HostMemory(kernels_); }
    bool deserialize(void const *blob, std::size_t size) noexcept override {
        const std::string text(static_cast<const char *>(blob), size);
        if (in_use_ || text != kKernels) return false;
        kernels_ = text;
        return true;
    }
    Kernels *use() const {
        in_use_ = true;
        return &kernels_;
    }

private:
    mutable Kernels kernels_;
    mutable bool in_use_ = false;
};

class RuntimeConfig final : public IRuntimeConfig, Object {
public:
    void setExecutionContextAllocationStrategy(ExecutionContextAllocationStrategy strategy) noexcept override {
        user_managed = strategy == ExecutionContextAllocationStrategy::kUSER_MANAGED;
    }
    IRuntimeCache *createRuntimeCache() const noexcept override {
        return refused("cache") ? nullptr : new RuntimeCache;
    }
    bool setRuntimeCache(IRuntimeCache const &cache) noexcept override {
        if (refused("set cache")) return false;
        kernels = static_cast<const RuntimeCache &>(cache).use();
        return true;
    }
    bool user_managed = false;
    Kernels *kernels = nullptr;
};
#endif

class CudaEngine final : public ICudaEngine, Object {
public:
    CudaEngine(std::vector<Tensor> tensors, std::size_t scratch) : tensors_(std::move(tensors)), scratch_(scratch) {}

#ifdef TRT_MAJOR_RTX
    IRuntimeConfig *createRuntimeConfig() noexcept override {
        return refused("configure") ? nullptr : new RuntimeConfig;
    }
    IExecutionContext *createExecutionContext(IRuntimeConfig *config) noexcept override {
        const auto &given = *static_cast<RuntimeConfig *>(config);
        if (!given.user_managed) simulated_record_misuse("a context that allocates its own memory");
        return refused("context") ? nullptr : new ExecutionContext(tensors_, scratch_, given.kernels);
    }
#endif
    IExecutionContext *createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override {
        if (strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED) {
            simulated_record_misuse("a context that allocates its own memory");
        }
        return refused("context") ? nullptr : new ExecutionContext(tensors_, scratch_, nullptr);
    }
#ifdef TCMOA_SIMULATED_OLD_MEMORY_FUNCTIONS
    std::size_t getDeviceMemorySize() const noexcept override { return scratch_; }
#else
    std::int64_t getDeviceMemorySizeV2() const noexcept override { return static_cast<std::int64_t>(scratch_); }
#endif
    std::int32_t getNbIOTensors() const noexcept override { return static_cast<std::int32_t>(tensors_.size()); }
    char const *getIOTensorName(std::int32_t index) const noexcept override {
        return tensors_[static_cast<std::size_t>(index)].name.c_str();
    }
    DataType getTensorDataType(char const *name) const noexcept override {
        const auto &type = tensor(name).type;
        return type == "uint8" ? DataType::kUINT8 : type == "float32" ? DataType::kFLOAT : DataType::kHALF;
    }
    Dims getTensorShape(char const *name) const noexcept override { return tensor(name).shape; }
    TensorIOMode getTensorIOMode(char const *name) const noexcept override {
        return tensor(name).input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    TensorLocation getTensorLocation(char const *name) const noexcept override { return tensor(name).location; }
    TensorFormat getTensorFormat(char const *name) const noexcept override { return tensor(name).format; }

private:
    [[nodiscard]] const Tensor &tensor(const char *name) const {
        for (const auto &found : tensors_) {
            if (found.name == name) return found;
        }
        std::abort();
    }
    std::vector<Tensor> tensors_;
    std::size_t scratch_;
};

class Runtime final : public IRuntime, Object {
public:
    ICudaEngine *deserializeCudaEngine(void const *blob, std::size_t size) noexcept override {
        if (refused("load")) return nullptr;
        if (simulated_context_fault() != 0) {
            log("an error of CUDA");
            return nullptr;
        }
        std::istringstream text(std::string(static_cast<const char *>(blob), size));
        std::string line, word;
        std::getline(text, line);
        if (line != "toy engine") {
            log("not a toy engine");
            return nullptr;
        }
        std::vector<Tensor> tensors;
        std::size_t scratch = 0;
        while (std::getline(text, line)) {
            std::istringstream words(line);
            words >> word;
            if (word == "scratch") {
                words >> scratch;
                continue;
            }
            Tensor tensor;
            tensor.input = word == "input";
            words >> tensor.name >> tensor.type;
            while (words >> word) {
                if (word == "host") {
                    tensor.location = TensorLocation::kHOST;
                } else if (word == "chw2") {
                    tensor.format = TensorFormat::kCHW2;
                } else {
                    tensor.shape.d[tensor.shape.nbDims++] = std::stoll(word);
                }
            }
            tensors.push_back(std::move(tensor));
        }
        return new CudaEngine(std::move(tensors), scratch);
    }
};

}  // namespace

#define TCMOA_EXPORT __attribute__((visibility("default")))
extern "C" {
TCMOA_EXPORT void *createInferRuntime_INTERNAL(void *given, std::int32_t version) {
    // The real libraries accept any version number. A program for other virtual tables then crashes.
#ifdef TRT_MAJOR_RTX
    const bool runs = version / 100 == NV_TENSORRT_VERSION / 100;
#else
    const bool runs = version / 10000 == NV_TENSORRT_MAJOR && version <= NV_TENSORRT_VERSION;
#endif
    if (!runs) {
        simulated_record_misuse("virtual functions of another version");
        return nullptr;
    }
    if (logger == nullptr) logger = static_cast<ILogger *>(given);
    return refused("start") ? nullptr : new Runtime;
}
TCMOA_EXPORT std::int32_t getInferLibMajorVersion() { return NV_TENSORRT_MAJOR; }
TCMOA_EXPORT std::int32_t getInferLibMinorVersion() { return NV_TENSORRT_MINOR; }
TCMOA_EXPORT std::int32_t getInferLibPatchVersion() { return NV_TENSORRT_PATCH; }
TCMOA_EXPORT std::int32_t getInferLibBuildVersion() { return NV_TENSORRT_BUILD; }
}
