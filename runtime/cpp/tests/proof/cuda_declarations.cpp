// runtime/cpp/tests/proof/cuda_declarations.cpp: the declarations in src/cuda_driver.hpp against NVIDIA's cuda.h.
//
// Compiling this file is the check; it needs nothing but cuda.h:
//
//     g++ -std=c++20 -fsyntax-only -I FOLDER_OF_CUDA_H -I runtime/cpp/src runtime/cpp/tests/proof/cuda_declarations.cpp
#include <cuda.h>

#include <algorithm>
#include <iterator>
#include <string_view>
#include <type_traits>

#include "cuda_driver.hpp"

namespace {

using tcmoa::cuda::Driver;

// Whether a parameter or result that is declared as `Ours` has the representation and the constness of `Official`.
// Handles, which are pointers to structs that cuda.h does not define, are void * here, and enumerations are int.
template <typename Ours, typename Official>
struct Matches : std::is_same<Ours, Official> {};

template <typename Ours, typename Official>
    requires std::is_enum_v<Official>
struct Matches<Ours, Official> : std::bool_constant<std::is_same_v<Ours, int> && sizeof(Ours) == sizeof(Official)> {};

template <typename Ours, typename Official>
struct Matches<Ours *, Official *>
    : std::bool_constant<std::is_const_v<Ours> == std::is_const_v<Official> &&
                         ((std::is_void_v<Ours> && std::is_class_v<Official>) ||
                          Matches<std::remove_const_t<Ours>, std::remove_const_t<Official>>::value)> {};

template <typename Ours, typename Official>
struct SameFunction : std::false_type {};

template <typename Result, typename... Ours, typename OfficialResult, typename... Official>
    requires(sizeof...(Ours) == sizeof...(Official))
struct SameFunction<Result (*)(Ours...), OfficialResult (*)(Official...)>
    : std::bool_constant<Matches<Result, OfficialResult>::value && (Matches<Ours, Official>::value && ...)> {};

// The check itself: what it must tell apart.
struct Opaque;
enum Choice { kChoice };
static_assert(SameFunction<int (*)(void *, int, void **), Choice (*)(Opaque *, Choice, Opaque **)>::value);
static_assert(!SameFunction<int (*)(int), Choice (*)(unsigned int)>::value);
static_assert(!SameFunction<int (*)(int), Choice (*)(long long)>::value);
static_assert(!SameFunction<int (*)(int), Choice (*)(int, int)>::value);
static_assert(!SameFunction<int (*)(void *), Choice (*)(const void *)>::value);
static_assert(!SameFunction<int (*)(void *), Choice (*)(Opaque **)>::value);
static_assert(!SameFunction<int (*)(void *), Choice (*)(unsigned long long)>::value);
static_assert(!SameFunction<int (*)(unsigned long long *), Choice (*)(std::size_t **)>::value);

// cuda.h maps names to versions of a function, e.g. cuMemAlloc to cuMemAlloc_v2. The library is asked for the first
// argument of the list, so the prototype must be of that very name.
#define TCMOA_STRINGIZE_ARGUMENT(name) #name
#define TCMOA_STRINGIZE(name) TCMOA_STRINGIZE_ARGUMENT(name)
#define TCMOA_COMPARE(name, parameters)                                                                    \
    static_assert(std::string_view(#name) == TCMOA_STRINGIZE(name), #name " is mapped to another version"); \
    static_assert(SameFunction<decltype(Driver::name), decltype(&::name)>::value, #name " is declared otherwise");
TCMOA_CUDA_FUNCTIONS(TCMOA_COMPARE)

static_assert(std::is_same_v<tcmoa::cuda::Address, CUdeviceptr>);
static_assert(std::is_same_v<int, CUdevice>);

static_assert(tcmoa::cuda::kSuccess == CUDA_SUCCESS);
static_assert(tcmoa::cuda::kInvalidValue == CUDA_ERROR_INVALID_VALUE);
static_assert(tcmoa::cuda::kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY);
static_assert(tcmoa::cuda::kInvalidContext == CUDA_ERROR_INVALID_CONTEXT);
static_assert(tcmoa::cuda::kInvalidHandle == CUDA_ERROR_INVALID_HANDLE);
static_assert(tcmoa::cuda::kNotReady == CUDA_ERROR_NOT_READY);
constexpr int kOfficialFatal[] = {
    CUDA_ERROR_ILLEGAL_ADDRESS,
    CUDA_ERROR_LAUNCH_TIMEOUT,
    CUDA_ERROR_ASSERT,
    CUDA_ERROR_HARDWARE_STACK_ERROR,
    CUDA_ERROR_ILLEGAL_INSTRUCTION,
    CUDA_ERROR_MISALIGNED_ADDRESS,
    CUDA_ERROR_INVALID_ADDRESS_SPACE,
    CUDA_ERROR_INVALID_PC,
    CUDA_ERROR_LAUNCH_FAILED,
    CUDA_ERROR_MPS_CLIENT_TERMINATED,
#if CUDA_VERSION >= 13000
    CUDA_ERROR_CONTAINED,
    CUDA_ERROR_TENSOR_MEMORY_LEAK,
    CUDA_ERROR_EXTERNAL_DEVICE,
#endif
};
static_assert(std::all_of(std::begin(kOfficialFatal), std::end(kOfficialFatal), [](int result) {
    return std::find(std::begin(tcmoa::cuda::kFatal), std::end(tcmoa::cuda::kFatal), result) != std::end(tcmoa::cuda::kFatal);
}));
static_assert(tcmoa::cuda::kCapabilityMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
static_assert(tcmoa::cuda::kCapabilityMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
static_assert(tcmoa::cuda::kPointerContext == CU_POINTER_ATTRIBUTE_CONTEXT);
static_assert(tcmoa::cuda::kPointerMemoryType == CU_POINTER_ATTRIBUTE_MEMORY_TYPE);
static_assert(tcmoa::cuda::kPointerDevice == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
static_assert(tcmoa::cuda::kMemoryTypeDevice == CU_MEMORYTYPE_DEVICE);
static_assert(tcmoa::cuda::kStreamNonBlocking == CU_STREAM_NON_BLOCKING);
static_assert(tcmoa::cuda::kEventDisableTiming == CU_EVENT_DISABLE_TIMING);
static_assert(tcmoa::cuda::kCaptureThreadLocal == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);

// kLegacyStream and kPerThreadStream. Pointers with these values are no constant expressions.
static_assert(std::string_view(TCMOA_STRINGIZE(CU_STREAM_LEGACY)) == "((CUstream)0x1)");
static_assert(std::string_view(TCMOA_STRINGIZE(CU_STREAM_PER_THREAD)) == "((CUstream)0x2)");

}  // namespace
