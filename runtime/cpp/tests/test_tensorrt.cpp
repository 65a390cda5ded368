// The TensorRT backend on the simulated GPU of standin/: none of this ever ran on a real one.
#include <catch2/catch.hpp>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>

#include "cuda.hpp"
#include "standin/rig.hpp"

using namespace tcmoa;
using namespace tcmoa::testing;

namespace {
thread_local bool count_allocations = false;
thread_local int allocations = 0;
}  // namespace

#ifndef TCMOA_SANITIZED  // sanitizers have operators of their own
// Of the tests and the library, not of the stand-ins, which use malloc while work is queued.
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

TEST_CASE("host frames are fused, with and without a graph, whatever runs when") {
    for (const bool graph : {true, false}) {
        for (const bool eager : {true, false}) {
            for (const bool rtx : {true, false}) {
                INFO("graph " << graph << ", eager " << eager << ", rtx " << rtx);
                Rig rig(rtx ? as_rtx : ToyBundle::Change{}, graph);
                standin::control().eager = eager;
                const std::string kind = rtx ? "rtx 1.99.2.16" : "tensorrt 10.99.0.7";
                CHECK(rig.backend->name() == "tensorrt (" + kind + ", Simulated GPU 0, fp16)");
                CHECK(rig.backend->takes_cuda());
                const auto slot = rig.backend->new_slot();
                const int queued = standin::counts().queued;
                for (int seed = 0; seed < 5; ++seed) {
                    const Frame frame(seed);
                    frame.put(*slot);
                    slot->start({}, {});
                    CHECK(slot->ready(std::chrono::milliseconds(-1)));
                    slot->collect();
                    frame.check(*slot);
                }
                CHECK(standin::counts().queued == queued + (graph ? 0 : 5));
                CHECK(standin::counts().launches == (graph ? 5 : 0));
            }
        }
    }
}

TEST_CASE("frames in flight come back in any order, and each goes up in one copy") {
    Rig rig;
    std::vector<std::unique_ptr<Slot>> slots;
    for (int i = 0; i < 4; ++i) slots.push_back(rig.backend->new_slot());
    const int before = standin::counts().copies_in;
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 4; ++i) {
            Frame(round * 4 + i).put(*slots[static_cast<std::size_t>(i)]);
            slots[static_cast<std::size_t>(i)]->start({}, {});
        }
        for (const int i : {2, 0, 3, 1}) {
            auto &slot = *slots[static_cast<std::size_t>(i)];
            CHECK(slot.ready(std::chrono::milliseconds(-1)));
            slot.collect();
            Frame(round * 4 + i).check(slot);
        }
    }
    CHECK(standin::counts().copies_in == before + 12);
}

TEST_CASE("waiting has a limit, and asking does not wait") {
    Rig rig;
    const auto slot = rig.backend->new_slot();
    const Frame frame(1);
    frame.put(*slot);
    slot->start({}, {});
    standin::control().stalled = true;
    CHECK_FALSE(slot->ready(std::chrono::milliseconds(0)));
    const auto start = std::chrono::steady_clock::now();
    CHECK_FALSE(slot->ready(std::chrono::milliseconds(20)));
    CHECK(std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(20));
    standin::control().stalled = false;
    CHECK(slot->ready(std::chrono::milliseconds(10000)));
    slot->collect();
    frame.check(*slot);
}

TEST_CASE("frames on the GPU are gathered in their owner's stream, which may write on at once") {
    for (const bool eager : {true, false}) {
        for (const int which : {0, 1, 2, 3}) {  // bit 0: x, bit 1: y
            INFO("eager " << eager << ", on the GPU " << which);
            Rig rig;
            standin::control().eager = eager;
            const auto slot = rig.backend->new_slot();
            Owner owner(*rig.device);
            for (int seed = 0; seed < 3; ++seed) {
                const Frame frame(seed);
                frame.put(*slot);
                DeviceFrame x, y;
                if ((which & 1) != 0) x = {owner.write(0, frame.x), owner.stream()};
                if ((which & 2) != 0) y = {owner.write(1, frame.y), owner.stream()};
                slot->start(x, y);
                owner.scribble();  // in the same stream: after the frame was gathered
                CHECK(slot->ready(std::chrono::milliseconds(-1)));
                slot->collect();
                frame.check(*slot);
            }
        }
    }
}

TEST_CASE("results go to the GPU in their reader's stream") {
    for (const bool eager : {true, false}) {
        for (const bool legacy : {true, false}) {
            Rig rig;
            standin::control().eager = eager;
            const auto slot = rig.backend->new_slot();
            Owner owner(*rig.device, legacy);
            for (int seed = 0; seed < 3; ++seed) {
                const Frame frame(seed);
                frame.put(*slot);
                slot->start({}, {});
                owner.scribble();  // earlier work on the memory that the result goes to
                CHECK(slot->ready(std::chrono::milliseconds(-1)));
                slot->collect_to(owner.memory(2), owner.stream());
                CHECK(owner.now(2, frame.fused.size()) == frame.fused);
                slot->collect();  // for the prompts, and the host's copy
                frame.check(*slot);
            }
        }
    }
}

TEST_CASE("results that stay on the GPU are not copied to the host") {
    Rig rig;
    const auto slot = rig.backend->new_slot();
    Owner owner(*rig.device);
    for (int seed = 0; seed < 4; ++seed) {
        Frame(seed).put(*slot);
        slot->start({}, {});
        CHECK(slot->ready(std::chrono::milliseconds(-1)));
        slot->collect_to(owner.memory(2), owner.stream());
    }
    CHECK(standin::counts().copies_out == 1);  // of the first, when that was not known yet
}

TEST_CASE("memory and streams of others are refused, and the slot goes on") {
    Rig rig;
    const auto slot = rig.backend->new_slot();
    Owner owner(*rig.device);
    std::vector<std::uint8_t> host(4096);
    void *other_gpu = standin_foreign_memory(4096, 1, 1), *other_context = standin_foreign_memory(4096, 0, 0);
    const std::vector<std::pair<DeviceFrame, std::string>> cases = {
        {{host.data(), nullptr}, "not in memory of a GPU"},
        {{slot->tensors().x.data(), nullptr}, "not in memory of a GPU"},
        {{other_gpu, nullptr}, "on GPU 1, expected GPU 0"},
        {{other_context, nullptr}, "another CUDA context"},
        {{owner.memory(0), standin_foreign_stream()}, "its cuda_stream is not of"},
    };
    for (const auto &one : cases) {
        // No structured binding: clang before 16 cannot capture one.
        const auto &frame = one.first;
        const auto &words = one.second;
        const auto as_x = refusal([&] { slot->start(frame, {}); }, TCMOA_ERROR_INPUT);
        CHECK(has(as_x, "x: "));
        CHECK(has(as_x, words));
        CHECK(has(refusal([&] { slot->start({}, frame); }, TCMOA_ERROR_INPUT), "y: "));
        const Frame good(3);
        good.put(*slot);
        slot->start({}, {});
        CHECK(slot->ready(std::chrono::milliseconds(-1)));
        CHECK(has(refusal([&] { slot->collect_to(frame.pointer, frame.stream); }, TCMOA_ERROR_INPUT), "fused: "));
        slot->collect();
        good.check(*slot);
    }
    standin_free_foreign(other_gpu);
    standin_free_foreign(other_context);
}

TEST_CASE("a frame allocates nothing once its slot has run") {
    Rig rig;
    const auto slot = rig.backend->new_slot();
    Owner owner(*rig.device);
    const Frame frame(2);
    for (int round = 0; round < 3; ++round) {
        frame.put(*slot);
        void *x = owner.write(0, frame.x);
        allocations = 0;
        count_allocations = true;
        slot->start({x, owner.stream()}, {});
        while (!slot->ready(std::chrono::milliseconds(0))) {
        }
        slot->collect_to(owner.memory(2), owner.stream());
        slot->collect();
        count_allocations = false;
        CHECK(allocations == 0);
        frame.check(*slot);
    }
}

TEST_CASE("several threads fuse at a time, each in its slot, and others come and go") {
    Rig rig;
    standin::control().pause_us = 500;  // so that frames of others come between, where they can
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int lives = 0; lives < (t < 2 ? 5 : 60); ++lives) {
                const auto slot = rig.backend->new_slot();
                for (int i = 0; i < (t < 2 ? 60 : 3); ++i) {
                    const Frame frame(t * 1000 + i);
                    frame.put(*slot);
                    slot->start({}, {});
                    while (!slot->ready(std::chrono::milliseconds(i % 2 == 0 ? -1 : 1))) {
                    }
                    slot->collect();
                    if (!frame.matches(*slot)) ++wrong;
                }
            }
            if (standin_depth() != 0) ++wrong;
        });
    }
    for (auto &thread : threads) thread.join();
    CHECK(wrong == 0);
    CHECK(rig.backend->name().find("without") == std::string::npos);  // no capture was disturbed
}

TEST_CASE("where a capture fails frames are right without a graph, and the name says so") {
    const std::vector<std::function<void()>> causes = {
        [] { standin::control().capturable = false; },
        [] { standin::control().fail_function = "cuStreamBeginCapture"; },
        [] { standin::control().fail_function = "cuStreamEndCapture"; },
        [] { standin::control().fail_function = "cuGraphInstantiate"; },
        [] {
            standin::control().refuse = "queue";
            standin::control().refuse_after = 1;
        },
    };
    for (const auto &cause : causes) {
        Rig rig(as_rtx);
        cause();
        const auto slot = rig.backend->new_slot();
        CHECK(has(rig.backend->name(), "fp16, without a CUDA graph)"));
        const Frame frame(7);
        frame.put(*slot);
        slot->start({}, {});
        CHECK(slot->ready(std::chrono::milliseconds(-1)));
        slot->collect();
        frame.check(*slot);
    }
}

TEST_CASE("a slot that is dropped with a frame in flight waits for it") {
    Rig rig;
    auto slot = rig.backend->new_slot();
    Frame(1).put(*slot);
    slot->start({}, {});
    slot.reset();
}
