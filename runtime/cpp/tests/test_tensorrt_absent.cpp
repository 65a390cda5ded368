// A build without NVIDIA's headers: engines are checked, and refused with what to do.
#include <catch2/catch.hpp>

#include "backend.hpp"
#include "standin/toy.hpp"

using namespace tcmoa;
using namespace tcmoa::testing;

TEST_CASE("a build without TensorRT says so, and still refuses what is damaged") {
    const ToyBundle toy;
    std::unique_ptr<Error> unfit;
    CHECK_FALSE(load_tensorrt(toy.open(), {}, unfit));
    CHECK(has(unfit->what(), "holds no engine"));
    toy.add_engine(as_rtx);
    CHECK_FALSE(load_tensorrt(toy.open(), {}, unfit));
    CHECK(unfit->status() == TCMOA_ERROR_MISSING);
    CHECK(has(unfit->what(), "was built without TensorRT-RTX; build it where the headers"));
    const auto path = toy.add_engine();
    CHECK_FALSE(load_tensorrt(toy.open(), {}, unfit));
    CHECK(has(unfit->what(), "was built without TensorRT; build it"));
    fs::remove(fs::path(path).replace_extension(".json"));
    CHECK(has(refusal([&] { (void)load_tensorrt(toy.open(), {}, unfit); }), "beside it that tells what it is"));
}
