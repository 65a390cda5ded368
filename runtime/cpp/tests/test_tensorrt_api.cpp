// The C interface with the TensorRT backend on the simulated GPU; never on a real one.
#include <catch2/catch.hpp>

#include <cstdlib>

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

TEST_CASE("the example with frames in GPU memory fuses them in its own stream") {
    const ToyBundle toy;
    toy.add_engine();
    const auto folder = toy.folder.parent_path();
    std::string x, y, fused;
    for (int seed = 0; seed < 3; ++seed) {
        const Frame pair(seed);
        x.append(pair.x.begin(), pair.x.end());
        y.append(pair.y.begin(), pair.y.end());
        auto expected = pair.fused;
        // The example leaves the bundle's prompt, scale 1 and shift 0.
        for (std::size_t i = 0; i < expected.size(); ++i) {
            expected[i] = static_cast<std::uint8_t>((pair.x[i] + pair.y[i / 3]) / 2);
        }
        fused.append(expected.begin(), expected.end());
    }
    const auto run = [&](const std::string &x_bytes, const std::string &arguments) {
        write_text(folder / "x.raw", x_bytes);
        write_text(folder / "y.raw", y);
        const auto command = "cd " + folder.string() + " && SIMULATED_MISUSE_FAILS=1 " SIMULATED_FUSE_ON_GPU " toy " +
                             arguments + " > printed 2>&1";
        return WEXITSTATUS(std::system(command.c_str()));
    };
    CHECK(run(x, "x.raw y.raw out.raw") == 0);
    CHECK(read_text(folder / "printed") ==
          "3 frames of 24x16 with tensorrt (tensorrt 10.99.0.7, Simulated GPU 0, fp16)\n");
    CHECK(read_text(folder / "out.raw") == fused);
    CHECK(run(x, "x.raw y.raw out.raw 1") == 0);
    CHECK(has(read_text(folder / "printed"), "Simulated GPU 1"));
    CHECK(read_text(folder / "out.raw") == fused);
    CHECK(run(x.substr(0, x.size() - 5), "x.raw y.raw out.raw") == 1);
    CHECK(read_text(folder / "printed") == "fuse_on_gpu: the last frame has 1147 bytes; expected 1152\n");
    CHECK(run(x, "x.raw y.raw out.raw 2") == 1);
    CHECK(has(read_text(folder / "printed"), "fuse_on_gpu: options.cuda_device: 2; expected 0 to 1"));
    CHECK(run(x, "none.raw y.raw out.raw") == 1);
    CHECK(read_text(folder / "printed") == "fuse_on_gpu: none.raw: cannot be read; expected raw frames\n");
    CHECK(run(x, "") == 2);
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
