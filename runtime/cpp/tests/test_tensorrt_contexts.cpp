// Contexts, streams and errors as CUDA's documentation describes them, on the simulated GPU; never on a real one.
#include <catch2/catch.hpp>

#include <thread>

#include "simulated/gpu_fixture.hpp"
#include "tcmoa.h"

using namespace tcmoa;
using namespace tcmoa::testing;

namespace {

constexpr std::chrono::milliseconds kForever(-1);

void fuse(Slot &slot, int seed) {
    const Frame frame(seed);
    frame.put(slot);
    slot.start({}, {});
    CHECK(slot.wait_for(kForever));
    slot.collect();
    frame.check(slot);
}

}  // namespace

TEST_CASE("the simulated GPU treats events, streams and contexts like CUDA") {
    const LeakCheck leak_check;
    const cuda::Device first(0), second(1);
    const auto &driver = cuda::Driver::get();
    cuda::Stream stream, other_stream;
    cuda::Event event;
    cuda::DeviceMemory memory, other_memory;
    {
        const cuda::CurrentDevice current(second);
        other_stream = cuda::new_stream();
        other_memory = cuda::new_device_memory(16);
    }
    const cuda::CurrentDevice current(first);
    stream = cuda::new_stream();
    event = cuda::new_event();
    memory = cuda::new_device_memory(16);
    CHECK(driver.cuEventRecord(event.get(), other_stream.get()) == 400);  // CUDA_ERROR_INVALID_HANDLE
    CHECK(driver.cuEventRecord(event.get(), stream.get()) == 0);
    CHECK(driver.cuStreamWaitEvent(other_stream.get(), event.get(), 0) == 0);
    CHECK(driver.cuMemcpyDtoDAsync_v2(memory.get(), other_memory.get(), 16, other_stream.get()) == 0);
    CHECK(simulated_launch(other_stream.get(), [](void *) {}, nullptr) == 400);
    CHECK(driver.cuStreamBeginCapture_v2(cuda::kLegacyStream, cuda::kCaptureThreadLocal) == 900);
    cuda::Handle context = nullptr;
    for (const auto each : {cuda::kLegacyStream, cuda::kPerThreadStream}) {
        CHECK(driver.cuStreamGetCtx(each, &context) == 0);
        CHECK(context == first.context());
    }
    CHECK(driver.cuStreamSynchronize(other_stream.get()) == 0);
    stream.reset();
    event.reset();
    memory.reset();
    const cuda::CurrentDevice freed(second);
    other_stream.reset();
    other_memory.reset();
}

TEST_CASE("the simulated legacy stream waits for blocking streams and they for it, non-blocking streams do not") {
    for (const bool blocking : {true, false}) {
        const LeakCheck leak_check;
        const cuda::Device device(0);
        const cuda::CurrentDevice current(device);
        const auto &driver = cuda::Driver::get();
        cuda::Handle handle = nullptr;
        REQUIRE(driver.cuStreamCreate(&handle, blocking ? 0 : cuda::kStreamNonBlocking) == 0);
        const cuda::Stream stream(handle);
        static std::string order;
        order.clear();
        simulated_launch(stream.get(), [](void *) { order += "a"; }, nullptr);
        simulated_launch(nullptr, [](void *) { order += "b"; }, nullptr);
        simulated_launch(stream.get(), [](void *) { order += "c"; }, nullptr);
        simulated_launch(cuda::kPerThreadStream, [](void *) { order += "d"; }, nullptr);
        CHECK(driver.cuStreamSynchronize(cuda::kPerThreadStream) == 0);
        CHECK(order == (blocking ? "abd" : "bd"));
        CHECK(driver.cuStreamSynchronize(stream.get()) == 0);
        CHECK(order == (blocking ? "abdc" : "bdac"));
    }
}

TEST_CASE("a handle on the second GPU makes no context on the first") {
    const GpuFixture gpu({}, true, 1);
    CHECK(gpu.backend->name() == "tensorrt (tensorrt 10.99.0.7, Simulated GPU 1, fp16)");
    {
        const auto slot = gpu.backend->new_slot();
        fuse(*slot, 1);
        GpuCaller caller(*gpu.device);
        const Frame frame(2);
        frame.put(*slot);
        slot->start({caller.write(0, frame.x), caller.stream()}, {});
        CHECK(slot->wait_for(kForever));
        slot->collect_to(caller.memory(2), caller.stream());
        CHECK(caller.read(2, frame.fused.size()) == frame.fused);
        slot->collect();
    }
    CHECK(simulated_context_references(0) == 0);
    CHECK(simulated_context_references(1) == 2);  // of the fixture and of the handle
    CHECK(simulated_context_depth() == 0);
}

TEST_CASE("the calling thread may work on another GPU, and keeps its context") {
    GpuFixture gpu({}, true, 1);
    const cuda::Device other(0);
    const cuda::CurrentDevice current(other);
    const auto slot = gpu.backend->new_slot();
    GpuCaller caller(*gpu.device), foreign(other);
    const Frame frame(3);
    frame.put(*slot);
    CHECK(has(refusal([&] { slot->start({foreign.memory(0), foreign.stream()}, {}); }, TCMOA_ERROR_INPUT),
              "x: pixels are on GPU 0; expected GPU 1"));
    CHECK(has(refusal([&] { slot->start({caller.memory(0), foreign.stream()}, {}); }, TCMOA_ERROR_INPUT),
              "x: cuda_stream is not of"));
    slot->start({caller.write(0, frame.x), caller.stream()}, {});
    CHECK(slot->wait_for(kForever));
    slot->collect();
    frame.check(*slot);
    CHECK(simulated_current_context() == other.context());
    CHECK(simulated_context_depth() == 1);
}

TEST_CASE("a handle may be used and closed in another thread than it was opened in") {
    GpuFixture gpu;
    auto slot = gpu.backend->new_slot();
    Frame(4).put(*slot);
    slot->start({}, {});
    std::thread([&] {
        CHECK(slot->wait_for(kForever));
        slot->collect();
        Frame(4).check(*slot);
        slot.reset();
        gpu.backend.reset();
        CHECK(simulated_context_depth() == 0);
    }).join();
    CHECK(simulated_context_references(0) == 1);
}

TEST_CASE("frames in GPU memory need no alignment") {
    GpuFixture gpu;
    const auto slot = gpu.backend->new_slot();
    GpuCaller caller(*gpu.device);
    const Frame frame(5);
    frame.put(*slot);
    Bytes shifted(1);
    shifted.insert(shifted.end(), frame.x.begin(), frame.x.end());
    auto *x = static_cast<std::uint8_t *>(caller.write(0, shifted)) + 1;
    slot->start({x, caller.stream()}, {});
    CHECK(slot->wait_for(kForever));
    slot->collect_to(static_cast<std::uint8_t *>(caller.memory(2)) + 3, caller.stream());
    const auto fused = caller.read(2, 3 + frame.fused.size());
    CHECK(Bytes(fused.begin() + 3, fused.end()) == frame.fused);
}

TEST_CASE("after an error that ends the context every call fails in one line, and nothing waits") {
    for (const int result : {700, 719}) {  // CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_LAUNCH_FAILED
        for (const bool graph : {true, false}) {
            for (const bool eager : {true, false}) {
                INFO("result " << result << ", graph " << graph << ", eager " << eager);
                GpuFixture gpu({}, graph);
                simulated::control().eager = eager;
                const auto slot = gpu.backend->new_slot(), other = gpu.backend->new_slot();
                GpuCaller caller(*gpu.device);
                fuse(*slot, 1);
                simulated::control().fault = result;
                const auto fails = [](auto call) {
                    const auto text = refusal(call, TCMOA_ERROR_INTERNAL);
                    CHECK(has(text, "Restart the program, since CUDA works no more in this process."));
                };
                Frame(2).put(*slot);
                fails([&] {
                    slot->start({}, {});
                    (void)slot->wait_for(kForever);
                });
                fails([&] { (void)slot->wait_for(std::chrono::milliseconds(10000)); });
                for (int attempt = 0; attempt < 2; ++attempt) {
                    fails([&] { slot->start({caller.memory(0), caller.stream()}, {}); });
                    fails([&] { other->start({}, {}); });
                    fails([&] { slot->collect_to(caller.memory(2), caller.stream()); });
                    fails([&] { (void)gpu.backend->new_slot(); });
                    fails([&] {
                        std::unique_ptr<Error> reason;
                        (void)load_tensorrt(gpu.toy.open(), {}, reason);
                    });
                }
                CHECK(simulated_context_depth() == 0);
            }
        }
    }
}

TEST_CASE("the C interface reports an error that ends the context with every frame, and closes") {
    const LeakCheck leak_check;
    const ToyBundle toy;
    toy.add_engine();
    tcmoa_options options;
    tcmoa_options_default(&options);
    options.backend = "tensorrt";
    tcmoa_fuser *fuser = nullptr;
    REQUIRE(tcmoa_open(toy.folder.c_str(), &options, &fuser) == TCMOA_OK);
    Frame pair(1);
    Bytes result(pair.fused.size());
    tcmoa_frame x, y, fused;
    tcmoa_frame_init(&x, TCMOA_RGB8, 24, 16, pair.x.data());
    tcmoa_frame_init(&y, TCMOA_GRAY8, 24, 16, pair.y.data());
    tcmoa_frame_init(&fused, TCMOA_RGB8, 24, 16, result.data());
    REQUIRE(tcmoa_fuse(fuser, &x, &y, &fused) == TCMOA_OK);
    std::uint64_t ticket = 0;
    REQUIRE(tcmoa_submit(fuser, &x, &y, &ticket) == TCMOA_OK);
    simulated::control().fault = 700;
    CHECK(tcmoa_wait(fuser, ticket, &fused, -1) == TCMOA_ERROR_INTERNAL);
    CHECK(has(error_of(fuser), "CUDA: cuEventSynchronize failed: "));
    CHECK(has(error_of(fuser), "Restart the program"));
    for (int attempt = 0; attempt < 5; ++attempt) {
        CHECK(tcmoa_fuse(fuser, &x, &y, &fused) == TCMOA_ERROR_INTERNAL);
        CHECK(has(error_of(fuser), "Restart the program"));
    }
    tcmoa_close(&fuser);
}
