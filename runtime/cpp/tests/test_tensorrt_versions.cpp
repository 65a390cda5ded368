// Libraries of other versions than the headers, and the headers of TensorRT 10.0; all simulated, nothing ran on a GPU.
#include <catch2/catch.hpp>

#include <cstdlib>

#include "simulated/gpu_fixture.hpp"
#include "tensorrt_runtime.hpp"

using namespace tcmoa;
using namespace tcmoa::testing;

TEST_CASE("TensorRT-RTX needs the minor version of the headers, TensorRT that or a newer one") {
    CHECK(expected_version(Flavor::rtx, {1, 7}, {1, 7}).empty());
    CHECK(expected_version(Flavor::rtx, {1, 7}, {1, 8}) == "version 1.7");
    CHECK(expected_version(Flavor::rtx, {1, 7}, {1, 4}) == "version 1.7");
    CHECK(expected_version(Flavor::rtx, {1, 7}, {2, 7}) == "version 1.7");
    CHECK(expected_version(Flavor::tensorrt, {10, 3}, {10, 3}).empty());
    CHECK(expected_version(Flavor::tensorrt, {10, 3}, {10, 13}).empty());
    CHECK(expected_version(Flavor::tensorrt, {10, 3}, {10, 0}) == "version 10.3 or a newer 10");
    CHECK(expected_version(Flavor::tensorrt, {10, 3}, {11, 4}) == "version 10.3 or a newer 10");
}

TEST_CASE("a TensorRT-RTX of another minor version is refused before any of its objects exists") {
    const LeakCheck leak_check;
    REQUIRE(setenv("TCMOA_TENSORRT_RTX_LIBRARY", SIMULATED_RTX_98, 1) == 0);
    const ToyBundle toy;
    toy.add_engine([](Manifest &engine) {
        as_rtx(engine);
        engine["version"] = "1.98.2.16";
    });
    for (int attempt = 0; attempt < 2; ++attempt) {
        std::unique_ptr<Error> reason;
        CHECK(load_tensorrt(toy.open(), {}, reason) == nullptr);
        REQUIRE(reason);
        CHECK(reason->status() == TCMOA_ERROR_MISSING);
        CHECK(std::string(reason->what()) ==
              "libtensorrt_rtx.so.1: version 1.98.2.16; expected version 1.99, since this libtcmoa was built with the "
              "headers of TensorRT-RTX 1.99. Install TensorRT-RTX 1.99, or build libtcmoa with the headers of the "
              "installed version.");
    }
    CHECK(simulated::counts().misuses == 0);
}

TEST_CASE("the headers of TensorRT 10.0 are enough") {
    REQUIRE(setenv("TCMOA_TENSORRT_LIBRARY", SIMULATED_TENSORRT_10_0, 1) == 0);
    for (const bool graph : {true, false}) {
        GpuFixture gpu([](Manifest &engine) { engine["version"] = "10.0.1.6"; }, graph);
        CHECK(gpu.backend->name() == "tensorrt (tensorrt 10.0.1.6, Simulated GPU 0, fp16)");
        const auto slot = gpu.backend->new_slot();
        for (int seed = 0; seed < 3; ++seed) {
            const Frame frame(seed);
            frame.put(*slot);
            slot->start({}, {});
            CHECK(slot->wait_for(std::chrono::milliseconds(-1)));
            slot->collect();
            frame.check(*slot);
        }
    }
}
