// A simulated NvInfer.h of TensorRT and TensorRT-RTX, written from their public documentation: the few classes that
// tensorrt_runtime.cpp uses, with the signatures that it compiles against. The layout of the classes is not the real
// one: code that is compiled with this header runs only with nvinfer.cpp.
//
// With it the backend is compiled and its logic is tested on machines without TensorRT and without a GPU. It does not
// prove that the real libraries behave in the same way.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda_runtime_api.h"

// TensorRT 10.1 added functions that take and return the size of device memory as a signed number. Some later versions
// have no others.
#if NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR == 0
#define TCMOA_SIMULATED_OLD_MEMORY_FUNCTIONS
#endif

#define NV_TENSORRT_VERSION (NV_TENSORRT_MAJOR * 10000L + NV_TENSORRT_MINOR * 100L + NV_TENSORRT_PATCH)

namespace nvinfer1 {

using AsciiChar = char;

struct Dims64 {
    static constexpr std::int32_t MAX_DIMS{8};
    std::int32_t nbDims;
    std::int64_t d[MAX_DIMS];
};
using Dims = Dims64;

enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kBOOL = 4, kUINT8 = 5 };
enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class TensorLocation : std::int32_t { kDEVICE = 0, kHOST = 1 };
enum class TensorFormat : std::int32_t { kLINEAR = 0, kCHW2 = 1 };
enum class ExecutionContextAllocationStrategy : std::int32_t { kSTATIC = 0, kON_PROFILE_CHANGE = 1, kUSER_MANAGED = 2 };

class ILogger {
public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
    virtual void log(Severity severity, AsciiChar const *msg) noexcept = 0;
    ILogger() = default;
    virtual ~ILogger() = default;

protected:
    ILogger(ILogger const &) = default;
    ILogger &operator=(ILogger const &) = default;
};

class INoCopy {
protected:
    INoCopy() = default;
    virtual ~INoCopy() = default;
    INoCopy(INoCopy const &) = delete;
    INoCopy &operator=(INoCopy const &) = delete;
};

class IHostMemory : public INoCopy {
public:
    virtual ~IHostMemory() noexcept = default;
    virtual void *data() const noexcept = 0;
    virtual std::size_t size() const noexcept = 0;
};

class IExecutionContext : public INoCopy {
public:
    virtual ~IExecutionContext() noexcept = default;
#ifdef TCMOA_SIMULATED_OLD_MEMORY_FUNCTIONS
    virtual void setDeviceMemory(void *memory) noexcept = 0;
#else
    virtual void setDeviceMemoryV2(void *memory, std::int64_t size) noexcept = 0;
#endif
    virtual bool setTensorAddress(char const *tensorName, void *data) noexcept = 0;
    virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
#ifdef TRT_MAJOR_RTX
    virtual bool isStreamCapturable(cudaStream_t stream) const noexcept = 0;
#endif
};

#ifdef TRT_MAJOR_RTX
class IRuntimeCache : public INoCopy {
public:
    virtual ~IRuntimeCache() noexcept = default;
    virtual IHostMemory *serialize() const noexcept = 0;
    virtual bool deserialize(void const *blob, std::size_t size) noexcept = 0;
};

class IRuntimeConfig : public INoCopy {
public:
    virtual ~IRuntimeConfig() noexcept = default;
    virtual void setExecutionContextAllocationStrategy(ExecutionContextAllocationStrategy strategy) noexcept = 0;
    virtual IRuntimeCache *createRuntimeCache() const noexcept = 0;
    virtual bool setRuntimeCache(IRuntimeCache const &cache) noexcept = 0;
};
#endif

class ICudaEngine : public INoCopy {
public:
    virtual ~ICudaEngine() noexcept = default;
#ifdef TRT_MAJOR_RTX
    virtual IRuntimeConfig *createRuntimeConfig() noexcept = 0;
    virtual IExecutionContext *createExecutionContext(IRuntimeConfig *runtimeConfig) noexcept = 0;
#endif
    virtual IExecutionContext *createExecutionContext(
        ExecutionContextAllocationStrategy strategy = ExecutionContextAllocationStrategy::kSTATIC) noexcept = 0;
#ifdef TCMOA_SIMULATED_OLD_MEMORY_FUNCTIONS
    virtual std::size_t getDeviceMemorySize() const noexcept = 0;
#else
    virtual std::int64_t getDeviceMemorySizeV2() const noexcept = 0;
#endif
    virtual std::int32_t getNbIOTensors() const noexcept = 0;
    virtual char const *getIOTensorName(std::int32_t index) const noexcept = 0;
    virtual DataType getTensorDataType(char const *tensorName) const noexcept = 0;
    virtual Dims getTensorShape(char const *tensorName) const noexcept = 0;
    virtual TensorIOMode getTensorIOMode(char const *tensorName) const noexcept = 0;
    virtual TensorLocation getTensorLocation(char const *tensorName) const noexcept = 0;
    virtual TensorFormat getTensorFormat(char const *tensorName) const noexcept = 0;
};

class IRuntime : public INoCopy {
public:
    virtual ~IRuntime() noexcept = default;
    virtual ICudaEngine *deserializeCudaEngine(void const *blob, std::size_t size) noexcept = 0;
};

}  // namespace nvinfer1
