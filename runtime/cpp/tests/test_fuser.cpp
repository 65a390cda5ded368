// Slots, tickets, prompts and memory, on a backend with simple arithmetic.
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <new>
#include <thread>

#include "error.hpp"
#include "fake_backend.hpp"
#include "fixtures.hpp"
#include "handle.hpp"

using namespace tcmoa;
using namespace tcmoa::testing;
using Catch::Matchers::Contains;

// Counts every allocation of this program, by any thread and also in C. Not with sanitizers, which replace malloc.
#ifdef TCMOA_SANITIZED
constexpr bool kCountsAllocations = false;
static std::uint64_t allocations() { return 0; }
#else
constexpr bool kCountsAllocations = true;
static std::atomic<std::uint64_t> counted = 0;
static std::uint64_t allocations() { return counted; }

extern "C" {
void *__libc_malloc(std::size_t);
void *__libc_calloc(std::size_t, std::size_t);
void *__libc_realloc(void *, std::size_t);
void *malloc(std::size_t bytes) {
    ++counted;
    return __libc_malloc(bytes);
}
void *calloc(std::size_t count, std::size_t bytes) {
    ++counted;
    return __libc_calloc(count, bytes);
}
void *realloc(void *memory, std::size_t bytes) {
    ++counted;
    return __libc_realloc(memory, bytes);
}
}
#endif

namespace {

// A handle on the fake backend with the contract of a test bundle.
struct Handle {
    std::shared_ptr<Script> script = std::make_shared<Script>();
    tcmoa_fuser *fuser = nullptr;
    Bytes x, y, out;
    tcmoa_frame frame_x{}, frame_y{}, frame_out{};

    explicit Handle(int slots = 2, const std::string &name = "vif-small") {
        auto bundle = std::make_unique<const Bundle>(Bundle::open(bundle_folder(name)));
        const auto contract = bundle->contract;
        tcmoa_options options;
        tcmoa_options_default(&options);
        options.slots = slots;
        fuser = new tcmoa_fuser(std::move(bundle), std::make_unique<FakeBackend>(contract, script), options);
        x.assign(112 * 112 * 3, 100);
        y.assign(112 * 112 * 3, 50);
        out.assign(112 * 112 * 3, 0);
        tcmoa_frame_init(&frame_x, TCMOA_RGB8, 112, 112, x.data());
        tcmoa_frame_init(&frame_y, TCMOA_RGB8, 112, 112, y.data());
        tcmoa_frame_init(&frame_out, TCMOA_RGB8, 112, 112, out.data());
    }
    ~Handle() { tcmoa_close(&fuser); }
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;

    int fuse() { return tcmoa_fuse(fuser, &frame_x, &frame_y, &frame_out); }
    int submit(std::uint64_t &ticket) { return tcmoa_submit(fuser, &frame_x, &frame_y, &ticket); }
    int wait(std::uint64_t ticket, std::int64_t ms = -1) { return tcmoa_wait(fuser, ticket, &frame_out, ms); }
    [[nodiscard]] std::string error() const { return error_of(fuser); }
    [[nodiscard]] tcmoa_stats stats() const {
        tcmoa_stats stats;
        REQUIRE(tcmoa_get_stats(fuser, &stats) == TCMOA_OK);
        return stats;
    }
};

}  // namespace

TEST_CASE("a pair is fused, and prompts change the frames that start later") {
    Handle handle;
    REQUIRE(handle.fuse() == TCMOA_OK);
    CHECK(handle.out == Bytes(handle.out.size(), 75));
    REQUIRE(tcmoa_set_prompt(handle.fuser, 1.0F, 0.5F) == TCMOA_OK);
    REQUIRE(handle.fuse() == TCMOA_OK);
    CHECK(handle.out == Bytes(handle.out.size(), 125));

    std::vector<float> shift(49, 0.0F), scale(49, 2.0F), read_scale(49), read_shift(49);
    shift[1] = 1.0F;  // second token of the first row: columns 16 to 31, rows 0 to 15
    REQUIRE(tcmoa_set_prompt_maps(handle.fuser, nullptr, shift.data(), 49) == TCMOA_OK);
    REQUIRE(handle.fuse() == TCMOA_OK);
    for (std::size_t row = 0; row < 112; ++row) {
        for (std::size_t column = 0; column < 112; ++column) {
            const bool inside = row < 16 && column >= 16 && column < 32;
            REQUIRE(handle.out[3 * (112 * row + column)] == (inside ? 175 : 75));
        }
    }
    REQUIRE(tcmoa_set_prompt_maps(handle.fuser, scale.data(), nullptr, 49) == TCMOA_OK);
    REQUIRE(tcmoa_get_prompt_maps(handle.fuser, read_scale.data(), read_shift.data(), 49) == TCMOA_OK);
    CHECK(read_scale == scale);
    CHECK(read_shift == shift);
    REQUIRE(tcmoa_get_prompt_maps(handle.fuser, nullptr, nullptr, 49) == TCMOA_OK);
}

TEST_CASE("the result may be written over a source") {
    Handle handle;
    handle.script->accepts_external_buffers = GENERATE(false, true);
    REQUIRE(tcmoa_fuse(handle.fuser, &handle.frame_x, &handle.frame_y, &handle.frame_x) == TCMOA_OK);
    CHECK(handle.x == Bytes(handle.x.size(), 75));
}

TEST_CASE("packed host frames are used without a copy, other frames and submitted frames are copied") {
    Handle handle(1);
    handle.script->accepts_external_buffers = true;
    REQUIRE(handle.fuse() == TCMOA_OK);
    CHECK(handle.out == Bytes(handle.out.size(), 75));

    // A source that changes while the network runs shows whether it was copied.
    const auto fuse_changed = [&](Bytes &source, auto &&call) {
        handle.script->hold(true);
        std::thread other(call);
        while (handle.script->running == 0) std::this_thread::yield();
        std::fill(source.begin(), source.end(), std::uint8_t{200});
        handle.script->hold(false);
        other.join();
        std::fill(source.begin(), source.end(), std::uint8_t{50});
        return int{handle.out[0]};
    };
    const auto fuse = [&] { CHECK(handle.fuse() == TCMOA_OK); };
    CHECK(fuse_changed(handle.y, fuse) == 150);
    CHECK(fuse_changed(handle.y, [&] {
              std::uint64_t ticket = 0;
              CHECK(handle.submit(ticket) == TCMOA_OK);
              CHECK(handle.wait(ticket) == TCMOA_OK);
          }) == 75);
    handle.frame_y.format = TCMOA_BGR8;
    CHECK(fuse_changed(handle.y, fuse) == 75);
    Bytes wide(112 * 340, 50);
    handle.frame_y.format = TCMOA_RGB8;
    handle.frame_y.planes[0] = wide.data();
    handle.frame_y.strides[0] = 340;
    CHECK(fuse_changed(wide, fuse) == 75);
    CHECK(handle.out == Bytes(handle.out.size(), 75));
}

TEST_CASE("a result that partly overlaps a source is not written before the source was read") {
    Handle handle;
    handle.script->accepts_external_buffers = true;
    Bytes both(2 * handle.x.size(), 100);  // x, and the result one row below
    handle.frame_x.planes[0] = both.data();
    handle.frame_out.planes[0] = both.data() + 336;
    REQUIRE(handle.fuse() == TCMOA_OK);
    CHECK(both[335] == 100);
    CHECK(Bytes(both.begin() + 336, both.begin() + 336 + 112 * 336) == Bytes(112 * 336, 75));
    CHECK(both[113 * 336] == 100);
}

TEST_CASE("prompts are returned by a bundle with a prompt output") {
    Handle handle;
    std::vector<float> prompt(2 * 2 * 49);
    const auto fuse = [&](float *data, std::size_t count) {
        return tcmoa_fuse_with_prompt(handle.fuser, &handle.frame_x, &handle.frame_y, &handle.frame_out, data, count);
    };
    REQUIRE(fuse(prompt.data(), prompt.size()) == TCMOA_OK);
    CHECK(prompt[195] == 195.0F);
    CHECK(fuse(prompt.data(), 195) == TCMOA_ERROR_INPUT);
    CHECK(handle.error() == "count: 195; expected 196 floats, 2x2x7x7");
    CHECK(fuse(nullptr, 196) == TCMOA_ERROR_INPUT);
    CHECK_THAT(handle.error(), Contains("prompt is NULL"));
    Handle gray(1, "vif-gray");
    CHECK(tcmoa_fuse_with_prompt(gray.fuser, &gray.frame_x, &gray.frame_y, &gray.frame_out, prompt.data(), 196) ==
          TCMOA_ERROR_INPUT);
    CHECK_THAT(gray.error(), Contains("has no prompt output; expected a bundle that was exported with it. Export it with `tcmoa export --with-prompt`"));
}

TEST_CASE("frames are submitted, waited for and discarded by ticket") {
    Handle handle;
    std::uint64_t first = 0, second = 0, third = 0;
    handle.script->hold(true);
    REQUIRE(handle.submit(first) == TCMOA_OK);
    std::fill(handle.x.begin(), handle.x.end(), std::uint8_t{200});  // after the copy of the first frame
    REQUIRE(handle.submit(second) == TCMOA_OK);
    CHECK(first != second);
    CHECK(handle.submit(third) == TCMOA_ERROR_BUSY);
    CHECK(handle.error() == "slots: all 2 are in use; expected a free one. Take a frame with tcmoa_wait() first, or load the bundle with more slots.");
    CHECK(handle.fuse() == TCMOA_ERROR_BUSY);
    CHECK_THAT(handle.error(), Contains("slots: all 2 hold submitted frames"));
    CHECK(handle.wait(first, 0) == TCMOA_ERROR_TIMEOUT);
    CHECK(handle.error() == "the frame is not ready yet. Call tcmoa_wait() again.");
    CHECK(handle.wait(first, 5) == TCMOA_ERROR_TIMEOUT);
    handle.script->hold(false);

    tcmoa_frame small = handle.frame_out;
    small.width = 64;
    CHECK(tcmoa_wait(handle.fuser, first, &small, -1) == TCMOA_ERROR_INPUT);  // the ticket stays valid
    REQUIRE(handle.wait(first, 1000) == TCMOA_OK);
    CHECK(handle.out[0] == 75);
    CHECK(handle.wait(first) == TCMOA_ERROR_INPUT);
    CHECK_THAT(handle.error(), Contains("has no frame; expected a ticket of tcmoa_submit() that was not taken yet"));
    REQUIRE(tcmoa_discard(handle.fuser, second) == TCMOA_OK);
    CHECK(tcmoa_discard(handle.fuser, second) == TCMOA_ERROR_INPUT);
    CHECK(handle.wait(0) == TCMOA_ERROR_INPUT);
    REQUIRE(handle.submit(third) == TCMOA_OK);
    REQUIRE(handle.wait(third) == TCMOA_OK);
    CHECK(handle.out[0] == 125);
    CHECK(handle.stats().frames == 2);
    CHECK(handle.stats().discarded == 1);
    REQUIRE(handle.submit(third) == TCMOA_OK);  // tcmoa_close() waits for it
}

TEST_CASE("a ticket for which one thread waits is refused to other threads") {
    Handle handle;
    std::uint64_t ticket = 0;
    handle.script->hold(true);
    REQUIRE(handle.submit(ticket) == TCMOA_OK);
    std::atomic<int> status = 1;
    // The main thread has the ticket for moments; then this thread is refused.
    std::thread waiting([&] {
        do status = handle.wait(ticket);
        while (status == TCMOA_ERROR_INPUT);
    });
    const auto refused = [&] {
        return tcmoa_discard(handle.fuser, ticket) == TCMOA_ERROR_INPUT;
    };
    // Poll until the thread has taken the ticket; a timeout leaves the ticket valid.
    tcmoa_frame frame = handle.frame_out;
    Bytes other(handle.out.size());
    frame.planes[0] = other.data();
    while (tcmoa_wait(handle.fuser, ticket, &frame, 0) == TCMOA_ERROR_TIMEOUT) std::this_thread::yield();
    CHECK(refused());
    CHECK_THAT(handle.error(), Contains("another thread waits for it"));
    handle.script->hold(false);
    waiting.join();
    CHECK(status == TCMOA_OK);
}

TEST_CASE("the slot of a frame that fails becomes free") {
    Handle handle(1);
    handle.script->fail_starts = 1;
    CHECK(handle.fuse() == TCMOA_ERROR_INTERNAL);
    CHECK(handle.error() == "fake backend: failed to start");
    handle.script->fail_runs = 1;
    CHECK(handle.fuse() == TCMOA_ERROR_INTERNAL);
    std::uint64_t ticket = 0;
    handle.script->fail_starts = 1;
    CHECK(handle.submit(ticket) == TCMOA_ERROR_INTERNAL);
    CHECK(ticket == 0);
    handle.script->fail_runs = 1;
    REQUIRE(handle.submit(ticket) == TCMOA_OK);
    CHECK(handle.wait(ticket) == TCMOA_ERROR_INTERNAL);
    REQUIRE(handle.submit(ticket) == TCMOA_OK);
    handle.script->fail_runs = 1;
    CHECK(tcmoa_discard(handle.fuser, ticket) == TCMOA_OK);
    REQUIRE(handle.fuse() == TCMOA_OK);
    CHECK(handle.out[0] == 75);
    CHECK(handle.stats().frames == 1);
    CHECK(handle.stats().failed == 4);
}

TEST_CASE("frames allocate nothing after warm-up") {
    Handle handle;
    handle.script->accepts_external_buffers = GENERATE(false, true);
    Bytes wide(2 * 112 * 112, 7);
    tcmoa_frame gray16;
    tcmoa_frame_init(&gray16, TCMOA_GRAY16, 112, 112, wide.data());
    const auto run = [&] {
        std::uint64_t ticket = 0;
        bool good = handle.fuse() == TCMOA_OK;
        good = good && tcmoa_fuse(handle.fuser, &gray16, &handle.frame_y, &handle.frame_out) == TCMOA_OK;
        good = good && handle.submit(ticket) == TCMOA_OK && handle.wait(ticket) == TCMOA_OK;
        return good && tcmoa_set_prompt(handle.fuser, 1.0F, 0.25F) == TCMOA_OK;
    };
    REQUIRE(run());
    const auto before = allocations();
    bool good = true;
    for (int i = 0; i < 100; ++i) good = run() && good;
    const auto after = allocations();
    CHECK(good);
    CHECK(after == before);
    if (kCountsAllocations) {
        const Bytes counted_bytes(10);
        CHECK(allocations() > after);
    }
}

TEST_CASE("threads use a handle concurrently up to its slots and wait beyond") {
    Handle handle(2);
    std::atomic<int> failures = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 6; ++t) {
        threads.emplace_back([&, t] {
            const auto level = static_cast<std::uint8_t>(10 * t);
            Bytes x(112 * 112 * 3, level), y(112 * 112 * 3, level), out(112 * 112 * 3);
            tcmoa_frame fx, fy, fo;
            tcmoa_frame_init(&fx, TCMOA_BGR8, 112, 112, x.data());
            tcmoa_frame_init(&fy, TCMOA_RGB8, 112, 112, y.data());
            tcmoa_frame_init(&fo, TCMOA_RGB8, 112, 112, out.data());
            for (int i = 0; i < 40; ++i) {
                if (i % 8 == 0) tcmoa_set_prompt(handle.fuser, 1.0F + static_cast<float>(t), 0.0F);
                if (i % 5 == 0) {  // an invalid call concurrently with valid ones
                    tcmoa_frame wrong = fx;
                    wrong.width = 1;
                    failures += tcmoa_fuse(handle.fuser, &wrong, &fy, &fo) != TCMOA_ERROR_INPUT;
                    char text[64];
                    failures += tcmoa_error(handle.fuser, text, sizeof text) == 0;
                }
                failures += tcmoa_fuse(handle.fuser, &fx, &fy, &fo) != TCMOA_OK || out != Bytes(out.size(), level);
            }
        });
    }
    for (auto &thread : threads) thread.join();
    CHECK(failures == 0);
    CHECK(handle.script->max_running <= 2);
    CHECK(handle.stats().frames == 240);
}

TEST_CASE("a thread that waits for a slot gets an error when all slots hold submitted frames") {
    Handle handle(1);
    handle.script->hold(true);
    std::uint64_t ticket = 0;
    REQUIRE(handle.submit(ticket) == TCMOA_OK);
    // A thread that polls the ticket uses the slot for moments; tcmoa_fuse() must not wait forever for it.
    std::atomic<bool> stop = false;
    std::thread polling([&] {
        tcmoa_frame frame = handle.frame_out;
        while (!stop) tcmoa_wait(handle.fuser, ticket, &frame, 1);
    });
    Bytes out(handle.out.size());
    tcmoa_frame frame = handle.frame_out;
    frame.planes[0] = out.data();
    for (int i = 0; i < 50; ++i) {
        REQUIRE(tcmoa_fuse(handle.fuser, &handle.frame_x, &handle.frame_y, &frame) == TCMOA_ERROR_BUSY);
    }
    stop = true;
    polling.join();
    handle.script->hold(false);
}
