// A build without NVIDIA's headers: engines are checked, and refused with a remedy.
#include <catch2/catch.hpp>

#include "simulated/toy_bundle.hpp"
#include "tensorrt.hpp"

using namespace tcmoa;
using namespace tcmoa::testing;

TEST_CASE("a build without TensorRT says so, and still refuses damaged engines") {
    const ToyBundle toy;
    std::unique_ptr<Error> reason;
    CHECK_FALSE(load_tensorrt(toy.open(), {}, reason));
    CHECK(has(reason->what(), "has no engine"));
    toy.add_engine(as_rtx);
    CHECK_FALSE(load_tensorrt(toy.open(), {}, reason));
    CHECK(reason->status() == TCMOA_ERROR_MISSING);
    CHECK(has(reason->what(), "was built without TensorRT-RTX. Build it where the headers"));
    const auto path = toy.add_engine();
    CHECK_FALSE(load_tensorrt(toy.open(), {}, reason));
    CHECK(has(reason->what(), "was built without TensorRT. Build it"));
    fs::remove(fs::path(path).replace_extension(".json"));
    CHECK(has(refusal([&] { (void)load_tensorrt(toy.open(), {}, reason); }), "beside it; expected one that describes the engine"));
}
