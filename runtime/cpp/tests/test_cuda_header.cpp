// The declarations of libcuda's functions in src/cuda.hpp against CUDA's own header, where that is installed: as many
// parameters, of the same sizes and kinds.
#include <catch2/catch.hpp>

#if __has_include(<cuda.h>)
#include <cuda.h>
#include <type_traits>

#include "cuda.hpp"

// cuda.h declares what its names stand for; these it declares under no other name.
#ifndef cuStreamBeginCapture_v2
#define cuStreamBeginCapture_v2 cuStreamBeginCapture
#endif

namespace {

template <typename Ours, typename Theirs>
constexpr bool alike = sizeof(Ours) == sizeof(Theirs) && std::is_pointer_v<Ours> == std::is_pointer_v<Theirs> &&
                       (std::is_pointer_v<Ours> || std::is_enum_v<Theirs> ||
                        std::is_unsigned_v<Ours> == std::is_unsigned_v<Theirs>);

template <typename Ours, typename Theirs>
struct Same : std::false_type {};

template <typename R, typename... Ours, typename S, typename... Theirs>
struct Same<R (*)(Ours...), S (*)(Theirs...)>
    : std::bool_constant<sizeof...(Ours) == sizeof...(Theirs) && alike<R, S> && (alike<Ours, Theirs> && ...)> {};

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
TEST_CASE("the functions of libcuda are declared as in cuda.h", "[!hide]") { WARN("there is no cuda.h"); }
#endif
