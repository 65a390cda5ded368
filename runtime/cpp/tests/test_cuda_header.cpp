// The declarations in src/cuda_driver.hpp against cuda.h if that is installed: the same number of parameters, of the
// same sizes and kinds.
#include <catch2/catch.hpp>

#if __has_include(<cuda.h>)
#include <cuda.h>
#include <type_traits>

#include "cuda_driver.hpp"

// cuda.h maps most names to versioned ones; this one it declares without a version.
#ifndef cuStreamBeginCapture_v2
#define cuStreamBeginCapture_v2 cuStreamBeginCapture
#endif

namespace {

template <typename Declared, typename Official>
constexpr bool matches = sizeof(Declared) == sizeof(Official) && std::is_pointer_v<Declared> == std::is_pointer_v<Official> &&
                       (std::is_pointer_v<Declared> || std::is_enum_v<Official> ||
                        std::is_unsigned_v<Declared> == std::is_unsigned_v<Official>);

template <typename Declared, typename Official>
struct Same : std::false_type {};

template <typename R, typename... Declared, typename S, typename... Official>
struct Same<R (*)(Declared...), S (*)(Official...)>
    : std::bool_constant<sizeof...(Declared) == sizeof...(Official) && matches<R, S> && (matches<Declared, Official> && ...)> {};

}  // namespace

TEST_CASE("the functions of libcuda are declared as in cuda.h") {
#define TCMOA_COMPARE(name, parameters) \
    STATIC_REQUIRE(Same<decltype(tcmoa::cuda::Driver::name), decltype(&::name)>::value);
    TCMOA_CUDA_FUNCTIONS(TCMOA_COMPARE)
    CHECK(tcmoa::cuda::kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY);
    CHECK(tcmoa::cuda::kInvalidValue == CUDA_ERROR_INVALID_VALUE);
    CHECK(tcmoa::cuda::kNotReady == CUDA_ERROR_NOT_READY);
    CHECK(tcmoa::cuda::kLegacyStream == CU_STREAM_LEGACY);
}
#else
TEST_CASE("the functions of libcuda are declared as in cuda.h", "[!hide]") { WARN("cuda.h is not installed"); }
#endif
