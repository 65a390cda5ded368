// The TensorRT backend on the simulated GPU; never on a real one.
#include <catch2/catch.hpp>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>

#include "cuda.hpp"
#include "simulated/gpu_fixture.hpp"

using namespace tcmoa;
using namespace tcmoa::testing;

namespace {
thread_local bool count_allocations = false;
thread_local int allocations = 0;
}  // namespace

#ifndef TCMOA_SANITIZED  // sanitizers replace these operators themselves
// Counts allocations of the tests and the library. The simulated libraries use malloc while work is enqueued.
void *operator new(std::size_t bytes) {
    if (count_allocations) ++allocations;
    if (void *pointer = std::malloc(bytes)) return pointer;
    throw std::bad_alloc();
}
void *operator new(std::size_t bytes, const std::nothrow_t &) noexcept {
    if (count_allocations) ++allocations;
    return std::malloc(bytes);
}
void operator delete(void *pointer, const std::nothrow_t &) noexcept { std::free(pointer); }
void operator delete(void *pointer) noexcept { std::free(pointer); }
void operator delete(void *pointer, std::size_t) noexcept { std::free(pointer); }
#endif

TEST_CASE("host frames are fused, with and without a CUDA graph, however late the GPU runs") {
    for (const bool graph : {true, false}) {
        for (const bool eager : {true, false}) {
            for (const bool rtx : {true, false}) {
                INFO("graph " << graph << ", eager " << eager << ", rtx " << rtx);
                GpuFixture gpu(rtx ? as_rtx : ToyBundle::Change{}, graph);
                simulated::control().eager = eager;
                const std::string kind = rtx ? "rtx 1.99.2.16" : "tensorrt 10.99.0.7";
                CHECK(gpu.backend->name() == "tensorrt (" + kind + ", Simulated GPU 0, fp16)");
                CHECK(gpu.backend->accepts_cuda());
                const auto slot = gpu.backend->new_slot();
                const int enqueued = simulated::counts().enqueued;
                for (int seed = 0; seed < 5; ++seed) {
                    const Frame frame(seed);
                    frame.put(*slot);
                    slot->start({}, {});
                    CHECK(slot->wait_for(std::chrono::milliseconds(-1)));
                    slot->collect();
                    frame.check(*slot);
                }
                CHECK(simulated::counts().enqueued == enqueued + (graph ? 0 : 5));
                CHECK(simulated::counts().launches == (graph ? 5 : 0));
            }
        }
    }
}

TEST_CASE("frames in flight are collected in any order, and each is uploaded in one copy") {
    GpuFixture gpu;
    std::vector<std::unique_ptr<Slot>> slots;
    for (int i = 0; i < 4; ++i) slots.push_back(gpu.backend->new_slot());
    const int before = simulated::counts().copies_in;
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 4; ++i) {
            Frame(round * 4 + i).put(*slots[static_cast<std::size_t>(i)]);
            slots[static_cast<std::size_t>(i)]->start({}, {});
        }
        for (const int i : {2, 0, 3, 1}) {
            auto &slot = *slots[static_cast<std::size_t>(i)];
            CHECK(slot.wait_for(std::chrono::milliseconds(-1)));
            slot.collect();
            Frame(round * 4 + i).check(slot);
        }
    }
    CHECK(simulated::counts().copies_in == before + 12);
}

TEST_CASE("waiting has a timeout, and a timeout of 0 does not wait") {
    GpuFixture gpu;
    const auto slot = gpu.backend->new_slot();
    const Frame frame(1);
    frame.put(*slot);
    slot->start({}, {});
    simulated::control().stalled = true;
    CHECK_FALSE(slot->wait_for(std::chrono::milliseconds(0)));
    const auto start = std::chrono::steady_clock::now();
    CHECK_FALSE(slot->wait_for(std::chrono::milliseconds(20)));
    CHECK(std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(20));
    simulated::control().stalled = false;
    CHECK(slot->wait_for(std::chrono::milliseconds(10000)));
    slot->collect();
    frame.check(*slot);
}

TEST_CASE("frames on the GPU are copied in the caller's stream, which may overwrite them right after the start") {
    for (const bool eager : {true, false}) {
        for (const auto stream : kCallerStreams) {
            for (const int which : {0, 1, 2, 3}) {  // bit 0: x, bit 1: y
                INFO("eager " << eager << ", stream " << static_cast<int>(stream) << ", on the GPU " << which);
                GpuFixture gpu;
                simulated::control().eager = eager;
                const auto slot = gpu.backend->new_slot();
                GpuCaller caller(*gpu.device, stream);
                for (int seed = 0; seed < 3; ++seed) {
                    const Frame frame(seed);
                    frame.put(*slot);
                    DeviceFrame x, y;
                    if ((which & 1) != 0) x = {caller.write(0, frame.x), caller.stream()};
                    if ((which & 2) != 0) y = {caller.write(1, frame.y), caller.stream()};
                    slot->start(x, y);
                    caller.overwrite();  // in the same stream: after the copy
                    CHECK(slot->wait_for(std::chrono::milliseconds(-1)));
                    slot->collect();
                    frame.check(*slot);
                }
            }
        }
    }
}

TEST_CASE("results are copied to the GPU in the caller's stream") {
    for (const bool eager : {true, false}) {
        for (const auto stream : kCallerStreams) {
            GpuFixture gpu;
            simulated::control().eager = eager;
            const auto slot = gpu.backend->new_slot();
            GpuCaller caller(*gpu.device, stream);
            for (int seed = 0; seed < 3; ++seed) {
                const Frame frame(seed);
                frame.put(*slot);
                slot->start({}, {});
                caller.overwrite();  // earlier work on the memory of the result
                CHECK(slot->wait_for(std::chrono::milliseconds(-1)));
                slot->collect_to(caller.memory(2), caller.stream());
                CHECK(caller.read(2, frame.fused.size()) == frame.fused);
                slot->collect();  // the prompts, and the result on the host
                frame.check(*slot);
            }
        }
    }
}

TEST_CASE("results that stay on the GPU are not copied to the host") {
    GpuFixture gpu;
    const auto slot = gpu.backend->new_slot();
    GpuCaller caller(*gpu.device);
    for (int seed = 0; seed < 4; ++seed) {
        Frame(seed).put(*slot);
        slot->start({}, {});
        CHECK(slot->wait_for(std::chrono::milliseconds(-1)));
        slot->collect_to(caller.memory(2), caller.stream());
    }
    CHECK(simulated::counts().copies_out == 1);  // of the first frame: the backend does not know yet where results are collected
}

TEST_CASE("memory and streams of another GPU or context are refused, and the slot remains usable") {
    GpuFixture gpu;
    const auto slot = gpu.backend->new_slot();
    GpuCaller caller(*gpu.device);
    std::vector<std::uint8_t> host(4096);
    void *other_gpu = simulated_foreign_memory(4096, 1, 1), *other_context = simulated_foreign_memory(4096, 0, 0);
    const std::vector<std::pair<DeviceFrame, std::string>> cases = {
        {{host.data(), nullptr}, "not in GPU memory"},
        {{slot->tensors().x.data(), nullptr}, "not in GPU memory"},
        {{other_gpu, nullptr}, "on GPU 1; expected GPU 0"},
        {{other_context, nullptr}, "a CUDA context other than the GPU's primary one"},
        {{caller.memory(0), simulated_foreign_stream()}, "cuda_stream is not of"},
    };
    for (const auto &one : cases) {
        // Not a structured binding, which lambdas of clang before version 16 cannot capture.
        const auto &frame = one.first;
        const auto &words = one.second;
        const auto as_x = refusal([&] { slot->start(frame, {}); }, TCMOA_ERROR_INPUT);
        CHECK(has(as_x, "x: "));
        CHECK(has(as_x, words));
        CHECK(has(refusal([&] { slot->start({}, frame); }, TCMOA_ERROR_INPUT), "y: "));
        const Frame good(3);
        good.put(*slot);
        slot->start({}, {});
        CHECK(slot->wait_for(std::chrono::milliseconds(-1)));
        CHECK(has(refusal([&] { slot->collect_to(frame.pointer, frame.stream); }, TCMOA_ERROR_INPUT), "fused: "));
        slot->collect();
        good.check(*slot);
    }
    simulated_free_foreign(other_gpu);
    simulated_free_foreign(other_context);
}

TEST_CASE("a frame allocates nothing after its slot has run once") {
    GpuFixture gpu;
    const auto slot = gpu.backend->new_slot();
    GpuCaller caller(*gpu.device);
    const Frame frame(2);
    for (int round = 0; round < 3; ++round) {
        frame.put(*slot);
        void *x = caller.write(0, frame.x);
        allocations = 0;
        count_allocations = true;
        slot->start({x, caller.stream()}, {});
        while (!slot->wait_for(std::chrono::milliseconds(0))) {
        }
        slot->collect_to(caller.memory(2), caller.stream());
        slot->collect();
        count_allocations = false;
        CHECK(allocations == 0);
        frame.check(*slot);
    }
}

TEST_CASE("several threads fuse at the same time, each with its slot, while other slots are created and destroyed") {
    GpuFixture gpu;
    simulated::control().pause_us = 500;  // so that frames of other threads interleave if nothing prevents it
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int lives = 0; lives < (t < 2 ? 5 : 60); ++lives) {
                const auto slot = gpu.backend->new_slot();
                for (int i = 0; i < (t < 2 ? 60 : 3); ++i) {
                    const Frame frame(t * 1000 + i);
                    frame.put(*slot);
                    slot->start({}, {});
                    while (!slot->wait_for(std::chrono::milliseconds(i % 2 == 0 ? -1 : 1))) {
                    }
                    slot->collect();
                    if (!frame.matches(*slot)) ++wrong;
                }
            }
            if (simulated_context_depth() != 0) ++wrong;
        });
    }
    for (auto &thread : threads) thread.join();
    CHECK(wrong == 0);
    CHECK(gpu.backend->name().find("without") == std::string::npos);  // no capture was invalidated
}

TEST_CASE("if a capture fails, frames are fused without a CUDA graph, and the name says so") {
    const std::vector<std::function<void()>> causes = {
        [] { simulated::control().capturable = false; },
        [] { simulated::control().fail_function = "cuStreamBeginCapture"; },
        [] { simulated::control().fail_function = "cuStreamEndCapture"; },
        [] { simulated::control().fail_function = "cuGraphInstantiate"; },
        [] {
            simulated::control().refuse = "enqueue";
            simulated::control().refuse_after = 1;
        },
    };
    for (const auto &cause : causes) {
        GpuFixture gpu(as_rtx);
        cause();
        const auto slot = gpu.backend->new_slot();
        CHECK(has(gpu.backend->name(), "fp16, without a CUDA graph)"));
        const Frame frame(7);
        frame.put(*slot);
        slot->start({}, {});
        CHECK(slot->wait_for(std::chrono::milliseconds(-1)));
        slot->collect();
        frame.check(*slot);
    }
}

TEST_CASE("a slot that is destroyed with a frame in flight waits for it") {
    GpuFixture gpu;
    auto slot = gpu.backend->new_slot();
    Frame(1).put(*slot);
    slot->start({}, {});
    slot.reset();
}
