// The C interface with the TensorRT backend on the simulated GPU; never on a real one.
#include <catch2/catch.hpp>

#include "simulated/gpu_fixture.hpp"
#include "tcmoa.h"

using namespace tcmoa;
using namespace tcmoa::testing;

namespace {

struct Handle {
    tcmoa_fuser *fuser = nullptr;

    explicit Handle(const ToyBundle &toy, const char *backend = "tensorrt") {
        tcmoa_options options;
        tcmoa_options_default(&options);
        options.backend = backend;
        if (tcmoa_open(toy.folder.c_str(), &options, &fuser) != TCMOA_OK) FAIL(error_of(nullptr));
    }
    ~Handle() { tcmoa_close(&fuser); }
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;
};

tcmoa_frame frame_of(int format, void *data, void *stream = nullptr, bool cuda = false) {
    tcmoa_frame frame;
    tcmoa_frame_init(&frame, format, 24, 16, data);
    frame.memory = cuda ? TCMOA_CUDA : TCMOA_HOST;
    frame.cuda_stream = stream;
    return frame;
}

}  // namespace

TEST_CASE("the C interface fuses frames in host and GPU memory") {
    const LeakCheck leak_check;
    const ToyBundle toy;
    toy.add_engine();
    const cuda::Device device(0);
    {
        const Handle handle(toy, "auto");
        tcmoa_info info;
        REQUIRE(tcmoa_get_info(handle.fuser, &info) == TCMOA_OK);
        CHECK(std::string(info.backend) == "tensorrt (tensorrt 10.99.0.7, Simulated GPU 0, fp16)");
        GpuCaller caller(device);
        for (int seed = 0; seed < 4; ++seed) {
            Frame pair(seed);
            REQUIRE(tcmoa_set_prompt_maps(handle.fuser, pair.scale.data(), pair.shift.data(), pair.scale.size()) ==
                    TCMOA_OK);
            Bytes result(pair.fused.size());
            auto x = frame_of(TCMOA_RGB8, pair.x.data()), y = frame_of(TCMOA_GRAY8, pair.y.data());
            auto fused = frame_of(TCMOA_RGB8, result.data());
            CHECK(tcmoa_fuse(handle.fuser, &x, &y, &fused) == TCMOA_OK);
            CHECK(result == pair.fused);

            x = frame_of(TCMOA_RGB8, caller.write(0, pair.x), caller.stream(), true);
            y = frame_of(TCMOA_GRAY8, caller.write(1, pair.y), caller.stream(), true);
            fused = frame_of(TCMOA_RGB8, caller.memory(2), caller.stream(), true);
            std::vector<float> prompt(pair.prompt.size());
            CHECK(tcmoa_fuse(handle.fuser, &x, &y, &fused) == TCMOA_OK);
            CHECK(caller.read(2, pair.fused.size()) == pair.fused);
            CHECK(tcmoa_fuse_with_prompt(handle.fuser, &x, &y, &fused, prompt.data(), prompt.size()) == TCMOA_OK);
            CHECK(prompt == pair.prompt);

            std::uint64_t ticket = 0;
            CHECK(tcmoa_submit(handle.fuser, &x, &y, &ticket) == TCMOA_OK);
            auto wrong = fused;
            wrong.planes[0] = result.data();  // host memory
            CHECK(tcmoa_wait(handle.fuser, ticket, &wrong, -1) == TCMOA_ERROR_INPUT);
            CHECK(has(error_of(handle.fuser), "not in GPU memory"));
            (void)tcmoa_discard(handle.fuser, ticket);
            CHECK(tcmoa_submit(handle.fuser, &x, &y, &ticket) == TCMOA_OK);
            fused = frame_of(TCMOA_RGB8, result.data());
            CHECK(tcmoa_wait(handle.fuser, ticket, &fused, -1) == TCMOA_OK);
            CHECK(result == pair.fused);
            CHECK(tcmoa_submit(handle.fuser, &x, &y, &ticket) == TCMOA_OK);
            CHECK(tcmoa_discard(handle.fuser, ticket) == TCMOA_OK);
        }
    }
}

TEST_CASE("the C interface reports why tensorrt cannot be loaded") {
    const LeakCheck leak_check;
    const ToyBundle toy;
    tcmoa_options options;
    tcmoa_options_default(&options);
    options.backend = "tensorrt";
    tcmoa_fuser *fuser = nullptr;
    CHECK(tcmoa_open(toy.folder.c_str(), &options, &fuser) == TCMOA_ERROR_BUNDLE);
    CHECK(has(error_of(nullptr), "has no engine"));
    toy.add_engine();
    simulated::control().devices = 0;
    CHECK(tcmoa_open(toy.folder.c_str(), &options, &fuser) == TCMOA_ERROR_MISSING);
    CHECK(has(error_of(nullptr), "no GPU found"));
}
