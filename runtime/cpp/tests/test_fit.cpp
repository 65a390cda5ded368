// Frames of another size than the bundle's: sizes, tiles, prompts and tickets, on a backend with simple arithmetic.
// tests/tcmoa_runtime/test_c_fit.py compares real bundles with the Python runtime.
#include <catch2/catch.hpp>

#include "fake_backend.hpp"
#include "fit.hpp"
#include "fixtures.hpp"
#include "handle.hpp"

using namespace tcmoa;
using namespace tcmoa::testing;
using Catch::Matchers::Contains;

namespace {

constexpr std::int64_t kSide = 112, kToken = 16;

struct Image {
    Bytes bytes;
    tcmoa_frame frame{};

    Image(int width, int height, int factor) : bytes(tcmoa_frame_bytes(TCMOA_RGB8, width, height)) {
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            bytes[i] = static_cast<std::uint8_t>(i * static_cast<std::size_t>(factor) % 251);
        }
        tcmoa_frame_init(&frame, TCMOA_RGB8, width, height, bytes.data());
    }
    Image(const Image &) = delete;
    Image &operator=(const Image &) = delete;
};

// A handle of a test bundle for 112x112 on the fake backend, whose results depend on each pixel alone: tiles join to
// the same values.
struct Handle {
    std::shared_ptr<Script> script = std::make_shared<Script>();
    tcmoa_fuser *fuser = nullptr;

    explicit Handle(tcmoa_fit fit, const std::string &name = "vif-small", int slots = 2) {
        auto bundle = std::make_unique<const Bundle>(Bundle::open(bundle_folder(name)));
        const auto contract = bundle->contract;
        tcmoa_options options;
        tcmoa_options_default(&options);
        options.slots = slots;
        options.fit = fit;
        fuser = new tcmoa_fuser(std::move(bundle), std::make_unique<FakeBackend>(contract, script), options);
    }
    ~Handle() { tcmoa_close(&fuser); }
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;

    int fuse(const Image &x, const Image &y, const Image &fused) {
        return tcmoa_fuse(fuser, &x.frame, &y.frame, &fused.frame);
    }
    [[nodiscard]] std::string error() const { return error_of(fuser); }
};

bool is_mean(const Image &fused, const Image &x, const Image &y) {
    for (std::size_t i = 0; i < fused.bytes.size(); ++i) {
        if (fused.bytes[i] != (x.bytes[i] + y.bytes[i]) / 2) return false;
    }
    return true;
}

}  // namespace

TEST_CASE("tiles cover a frame, and equal tiles join to the frame") {
    const auto height = GENERATE(1, 75, 112, 113, 250), width = GENERATE(1, 111, 112, 200, 400);
    const Image image(width, height, 7);
    const auto window = GENERATE(kToken, 2 * kToken);
    const TilePlan plan({height, width}, {kSide, kSide}, kToken, window, {7, 7});
    const ImageView view{image.bytes.data(), static_cast<std::size_t>(width) * 3, {height, width}, 3};
    TileBlender blender;
    blender.start(plan, 0);
    Bytes tile(kSide * kSide * 3);
    for (std::size_t i = 0; i < plan.count(); ++i) {
        plan.cut(view, i, tile.data());
        blender.add(tile.data(), nullptr);
    }
    REQUIRE(blender.is_complete());
    CHECK(std::equal(image.bytes.begin(), image.bytes.end(), blender.joined()));
    CHECK(plan.grid() == FrameSize{(height + 15) / 16, (width + 15) / 16});
}

TEST_CASE("frames of any size are fused in tiles, also in batches, over a source, and in two parts") {
    Handle handle(TCMOA_FIT_TILE, GENERATE("vif-small", "vif-batch"));
    handle.script->accepts_external_buffers = GENERATE(false, true);
    const auto [width, height] = GENERATE(table<int, int>({{30, 20}, {112, 112}, {113, 300}, {301, 250}}));
    const Image x(width, height, 3), y(width, height, 5);
    Image fused(width, height, 0), second(width, height, 0);
    REQUIRE(handle.fuse(x, y, fused) == TCMOA_OK);
    CHECK(is_mean(fused, x, y));
    std::uint64_t ticket = 0;
    REQUIRE(tcmoa_submit(handle.fuser, &x.frame, &y.frame, &ticket) == TCMOA_OK);
    REQUIRE(tcmoa_wait(handle.fuser, ticket, &second.frame, -1) == TCMOA_OK);
    CHECK(second.bytes == fused.bytes);
    REQUIRE(handle.fuse(x, y, x) == TCMOA_OK);
    CHECK(x.bytes == fused.bytes);
    tcmoa_stats stats;
    REQUIRE(tcmoa_get_stats(handle.fuser, &stats) == TCMOA_OK);
    CHECK(stats.frames == 3);
}

TEST_CASE("a frame in tiles is polled, refused and discarded by its ticket") {
    Handle handle(TCMOA_FIT_AUTO, "vif-small", 1);
    Image x(300, 200, 3), y(300, 200, 5), fused(300, 200, 0), wrong(112, 112, 0);
    const Bytes before = x.bytes;
    std::uint64_t ticket = 0;
    handle.script->hold(true);
    REQUIRE(tcmoa_submit(handle.fuser, &x.frame, &y.frame, &ticket) == TCMOA_OK);
    std::fill(x.bytes.begin(), x.bytes.end(), std::uint8_t{0});  // the library has a copy
    CHECK(tcmoa_wait(handle.fuser, ticket, &fused.frame, 0) == TCMOA_ERROR_TIMEOUT);
    CHECK(tcmoa_wait(handle.fuser, ticket, &fused.frame, 3) == TCMOA_ERROR_TIMEOUT);
    handle.script->hold(false);
    CHECK(tcmoa_wait(handle.fuser, ticket, &wrong.frame, -1) == TCMOA_ERROR_INPUT);
    CHECK(handle.error() == "fused: 112x112; expected 300x200, the size of x");
    int polls = 0;
    while (tcmoa_wait(handle.fuser, ticket, &fused.frame, 0) == TCMOA_ERROR_TIMEOUT) ++polls;
    x.bytes = before;
    CHECK(is_mean(fused, x, y));

    REQUIRE(tcmoa_submit(handle.fuser, &x.frame, &y.frame, &ticket) == TCMOA_OK);
    REQUIRE(tcmoa_discard(handle.fuser, ticket) == TCMOA_OK);
    handle.script->fail_runs = 1;
    CHECK(handle.fuse(x, y, fused) == TCMOA_ERROR_INTERNAL);
    REQUIRE(handle.fuse(x, y, fused) == TCMOA_OK);
    CHECK(is_mean(fused, x, y));
    REQUIRE(tcmoa_submit(handle.fuser, &x.frame, &y.frame, &ticket) == TCMOA_OK);  // tcmoa_close() waits for it
}

TEST_CASE("prompt maps belong to a size, and one value to all sizes") {
    Handle handle(TCMOA_FIT_TILE);
    const Image x(200, 120, 0), y(200, 120, 0), small(112, 112, 0);
    Image fused(200, 120, 0);
    std::int32_t width = 0, height = 0;
    REQUIRE(tcmoa_get_grid(handle.fuser, 200, 120, &width, &height) == TCMOA_OK);
    CHECK(width == 13);
    CHECK(height == 8);
    std::vector<float> shift(104, 0.0F), read(104);
    shift[13 * 7 + 12] = 1.0F;  // the last token: columns 192 to 199, rows 112 to 119
    const auto set = [&](const float *scale, const float *beta, std::size_t count) {
        return tcmoa_set_prompt_maps_for_size(handle.fuser, 200, 120, scale, beta, count);
    };
    REQUIRE(set(nullptr, shift.data(), 104) == TCMOA_OK);
    REQUIRE(tcmoa_get_prompt_maps(handle.fuser, nullptr, read.data(), 104) == TCMOA_OK);
    CHECK(read == shift);
    REQUIRE(handle.fuse(x, y, fused) == TCMOA_OK);
    for (std::size_t row = 0; row < 120; ++row) {
        for (std::size_t column = 0; column < 200; ++column) {
            REQUIRE(fused.bytes[3 * (200 * row + column)] == (row >= 112 && column >= 192 ? 100 : 0));
        }
    }
    CHECK(handle.fuse(small, small, small) == TCMOA_ERROR_INPUT);
    CHECK(handle.error() ==
          "prompt maps: 13x8 tokens; expected 7x7, the tokens of this frame. Set maps for its size with "
          "tcmoa_set_prompt_maps_for_size(), or one value with tcmoa_set_prompt().");
    const std::vector<float> ones(49, 1.0F);
    CHECK(tcmoa_set_prompt_maps(handle.fuser, ones.data(), nullptr, 49) == TCMOA_ERROR_INPUT);
    CHECK(handle.error() == "shift: NULL keeps a map of 13x8 tokens; expected a map of 7x7. Pass both maps.");
    CHECK(set(nullptr, shift.data(), 49) == TCMOA_ERROR_INPUT);
    CHECK(handle.error() == "count: 49; expected 104, the 13x8 tokens of the frame");
    REQUIRE(tcmoa_set_prompt(handle.fuser, 1, 0.5F) == TCMOA_OK);
    REQUIRE(handle.fuse(small, small, small) == TCMOA_OK);
    CHECK(small.bytes == Bytes(small.bytes.size(), 50));
    REQUIRE(handle.fuse(x, y, fused) == TCMOA_OK);
    CHECK(fused.bytes == Bytes(fused.bytes.size(), 50));
}

TEST_CASE("sizes that a fit excludes are refused") {
    const Image own(112, 112, 3), small(64, 50, 3), large(113, 50, 3);
    Handle exact(TCMOA_FIT_EXACT), pad(TCMOA_FIT_PAD), resize(TCMOA_FIT_RESIZE);
    std::int32_t width = 0, height = 0;
    CHECK(exact.fuse(small, small, small) == TCMOA_ERROR_INPUT);
    CHECK(exact.fuse(own, small, own) == TCMOA_ERROR_INPUT);
    CHECK_THAT(exact.error(), Contains("y: 64x50; expected 112x112, the bundle's frame size"));
    CHECK(tcmoa_get_grid(exact.fuser, 64, 50, &width, &height) == TCMOA_ERROR_INPUT);
    CHECK_THAT(exact.error(), Contains("frame: 64x50; expected 112x112"));
    CHECK(tcmoa_get_grid(exact.fuser, 0, 50, &width, &height) == TCMOA_ERROR_INPUT);
    CHECK(exact.error() == "tcmoa_get_grid: 0x50; expected sides from 1 to 65536");
    CHECK(tcmoa_get_grid(exact.fuser, 112, 112, nullptr, &height) == TCMOA_ERROR_INPUT);
    REQUIRE(pad.fuse(small, small, small) == TCMOA_OK);
    CHECK(pad.fuse(large, large, large) == TCMOA_ERROR_INPUT);
    CHECK_THAT(pad.error(), Contains("x: 113x50; expected at most 112x112"));
    REQUIRE(resize.fuse(large, small, large) == TCMOA_OK);
    REQUIRE(tcmoa_get_grid(resize.fuser, 113, 50, &width, &height) == TCMOA_OK);
    CHECK(width == 7);
    tcmoa_frame none = own.frame;
    none.height = 70000;
    CHECK(tcmoa_fuse(resize.fuser, &none, &own.frame, &own.frame) == TCMOA_ERROR_INPUT);
    CHECK(resize.error() == "x: 112x70000; expected sides from 1 to 65536");
}
