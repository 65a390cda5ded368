// Conversions of pixels against slow and simple implementations.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>

#include "error.hpp"
#include "fixtures.hpp"
#include "pixels.hpp"

using namespace tcmoa;
using namespace tcmoa::testing;

namespace {

Bytes noise(std::size_t count, unsigned seed) {
    std::mt19937 random(seed);
    Bytes bytes(count);
    for (auto &byte : bytes) byte = static_cast<std::uint8_t>(random());
    return bytes;
}

// An image with gaps of `gap` bytes between rows; seed 0: filled with 0xAA.
struct Image {
    Bytes bytes;
    tcmoa_frame frame{};

    Image(int format, int width, int height, std::size_t gap, unsigned seed) {
        tcmoa_frame_init(&frame, format, width, height, nullptr);
        std::size_t sizes[3] = {}, total = 0;
        for (int i = 0; i < 3; ++i) {
            if (frame.strides[i] == 0) continue;
            const auto rows = static_cast<std::size_t>(i == 0 ? height : (height + 1) / 2);
            const auto row = frame.strides[i];
            frame.strides[i] += gap;
            sizes[i] = frame.strides[i] * (rows - 1) + row;
            total += sizes[i];
        }
        bytes = seed == 0 ? Bytes(total, 0xAA) : noise(total, seed);
        auto *next = bytes.data();
        for (int i = 0; i < 3; ++i) {
            if (sizes[i] == 0) continue;
            frame.planes[i] = next;
            next += sizes[i];
        }
    }
    [[nodiscard]] int at(int plane, int row, std::size_t byte) const {
        return static_cast<const std::uint8_t *>(frame.planes[plane])[static_cast<std::size_t>(row) * frame.strides[plane] + byte];
    }
};

struct Yuv {
    double kr, kb;
    bool limited;
};
constexpr Yuv kYuv[] = {{0.299, 0.114, true}, {0.2126, 0.0722, true}, {0.299, 0.114, false}, {0.2126, 0.0722, false}};

// The equations of BT.601 and BT.709.
std::array<double, 3> yuv_to_rgb(const Yuv &m, double y, double u, double v) {
    const double kg = 1 - m.kr - m.kb;
    y = m.limited ? (y - 16) / 219 : y / 255;
    u = (u - 128) / (m.limited ? 224 : 255);
    v = (v - 128) / (m.limited ? 224 : 255);
    const double r = y + 2 * (1 - m.kr) * v, b = y + 2 * (1 - m.kb) * u;
    const double g = (y - m.kr * r - m.kb * b) / kg;
    return {255 * r, 255 * g, 255 * b};
}
std::array<double, 3> rgb_to_yuv(const Yuv &m, double r, double g, double b) {
    const double kg = 1 - m.kr - m.kb, y = (m.kr * r + kg * g + m.kb * b) / 255;
    const double u = (b / 255 - y) / 2 / (1 - m.kb), v = (r / 255 - y) / 2 / (1 - m.kr);
    return {m.limited ? 16 + 219 * y : 255 * y, 128 + (m.limited ? 224 : 255) * u, 128 + (m.limited ? 224 : 255) * v};
}
double clip(double value) { return std::clamp(value, 0.0, 255.0); }

}  // namespace

TEST_CASE("packed formats are converted to the channel order of the tensor and back") {
    const int format = GENERATE(TCMOA_RGB8, TCMOA_BGR8, TCMOA_RGBA8, TCMOA_BGRA8);
    const bool bgr = GENERATE(false, true);
    const auto gap = GENERATE(std::size_t{0}, std::size_t{5});
    const int width = 13, height = 7;
    const std::size_t step = format < TCMOA_RGBA8 ? 3 : 4;
    const bool frame_bgr = format == TCMOA_BGR8 || format == TCMOA_BGRA8;
    const Image in(format, width, height, gap, 3);
    Bytes tensor(3 * width * height);
    StretchScratch scratch;
    frame_to_tensor(in.frame, tensor, 3, bgr, {1, 99}, scratch);
    for (int y = 0; y < height; ++y) {
        for (std::size_t x = 0; x < width; ++x) {
            for (std::size_t c = 0; c < 3; ++c) {
                const std::size_t channel = frame_bgr == bgr ? c : 2 - c;
                REQUIRE(tensor[(static_cast<std::size_t>(y) * width + x) * 3 + c] == in.at(0, y, x * step + channel));
            }
        }
    }
    Image out(format, width, height, gap, 0);
    tensor_to_frame(tensor, bgr, out.frame);
    for (int y = 0; y < height; ++y) {
        for (std::size_t x = 0; x < width; ++x) {
            for (std::size_t c = 0; c < 3; ++c) REQUIRE(out.at(0, y, x * step + c) == in.at(0, y, x * step + c));
            if (step == 4) REQUIRE(out.at(0, y, x * step + 3) == 255);
        }
        for (std::size_t i = 0; i < gap && y + 1 < height; ++i) REQUIRE(out.at(0, y, width * step + i) == 0xAA);
    }
}

TEST_CASE("color becomes BT.601 luma for a source with one channel") {
    const int format = GENERATE(TCMOA_RGB8, TCMOA_BGRA8);
    const Image in(format, 9, 5, 2, 4);
    const std::size_t step = format == TCMOA_RGB8 ? 3 : 4, red = format == TCMOA_RGB8 ? 0 : 2;
    Bytes tensor(45);
    StretchScratch scratch;
    frame_to_tensor(in.frame, tensor, 1, true, {1, 99}, scratch);
    for (int y = 0; y < 5; ++y) {
        for (std::size_t x = 0; x < 9; ++x) {
            const double expected = 0.299 * in.at(0, y, x * step + red) + 0.587 * in.at(0, y, x * step + 1) +
                                0.114 * in.at(0, y, x * step + 2 - red);
            REQUIRE(std::abs(tensor[static_cast<std::size_t>(y) * 9 + x] - expected) <= 0.501);
        }
    }
}

TEST_CASE("gray is repeated in all channels, and results become luma") {
    const Image in(TCMOA_GRAY8, 9, 5, 3, 5);
    Bytes tensor(135), one(45);
    StretchScratch scratch;
    frame_to_tensor(in.frame, tensor, 3, false, {1, 99}, scratch);
    frame_to_tensor(in.frame, one, 1, false, {1, 99}, scratch);
    for (std::size_t i = 0; i < tensor.size(); ++i) REQUIRE(tensor[i] == one[i / 3]);
    Image out(TCMOA_GRAY8, 9, 5, 3, 0), wide(TCMOA_GRAY16, 9, 5, 4, 0);
    tensor_to_frame(tensor, false, out.frame);
    tensor_to_frame(tensor, true, wide.frame);
    for (int y = 0; y < 5; ++y) {
        for (std::size_t x = 0; x < 9; ++x) {
            REQUIRE(out.at(0, y, x) == in.at(0, y, x));  // gray stays gray
            REQUIRE(wide.at(0, y, 2 * x) == in.at(0, y, x));
            REQUIRE(wide.at(0, y, 2 * x + 1) == in.at(0, y, x));
        }
    }
}

TEST_CASE("percentiles of 16-bit frames become black and white, interpolated linearly between sorted values") {
    const int width = 23, height = 11;
    std::mt19937 random(GENERATE(1U, 2U, 3U));
    const int spread = GENERATE(1, 3, 5000, 65536);
    std::vector<std::uint16_t> values(width * height);
    for (auto &value : values) value = static_cast<std::uint16_t>(20000 % spread + static_cast<int>(random()) % spread);
    for (auto &value : values) value = static_cast<std::uint16_t>(value & 0xFFFF);
    const double low = GENERATE(0.0, 1.0, 33.3), high = GENERATE(50.0, 99.0, 100.0);
    auto sorted = values;
    std::sort(sorted.begin(), sorted.end());
    const auto percentile = [&](double percent) {
        const double at = percent / 100 * static_cast<double>(sorted.size() - 1);
        const auto i = static_cast<std::size_t>(at);
        const double next = sorted[std::min(i + 1, sorted.size() - 1)];
        return sorted[i] + (at - std::floor(at)) * (next - sorted[i]);
    };
    double black = percentile(low), white = percentile(high);
    if (white - black <= 0) black = sorted.front(), white = std::max<double>(sorted.back(), black + 1);
    tcmoa_frame frame;
    tcmoa_frame_init(&frame, TCMOA_GRAY16, width, height, values.data());
    Bytes tensor(3 * values.size());
    StretchScratch scratch;
    frame_to_tensor(frame, tensor, 3, false, {low, high}, scratch);
    for (std::size_t i = 0; i < values.size(); ++i) {
        const double expected = clip((values[i] - black) * 255 / (white - black));
        REQUIRE(std::abs(tensor[3 * i] - expected) <= 0.51);
        REQUIRE(tensor[3 * i + 2] == tensor[3 * i]);
    }
}

TEST_CASE("NV12 and I420 follow BT.601 and BT.709 in limited and full range") {
    const int format = GENERATE(TCMOA_NV12, TCMOA_I420);
    const int matrix = GENERATE(0, 1, 2, 3);
    const bool bgr = GENERATE(false, true);
    const int width = GENERATE(8, 9), height = GENERATE(4, 5);
    Image in(format, width, height, 3, 7);
    in.frame.matrix = matrix;
    const auto &m = kYuv[matrix];
    Bytes tensor(static_cast<std::size_t>(3 * width * height)), gray(tensor.size() / 3);
    StretchScratch scratch;
    frame_to_tensor(in.frame, tensor, 3, bgr, {1, 99}, scratch);
    frame_to_tensor(in.frame, gray, 1, bgr, {1, 99}, scratch);
    Image out(format, width, height, 3, 0);
    out.frame.matrix = matrix;
    tensor_to_frame(tensor, bgr, out.frame);
    const auto chroma = [&](const Image &image, int y, int x) {
        const auto half = static_cast<std::size_t>(x / 2);
        return format == TCMOA_NV12 ? std::pair(image.at(1, y / 2, 2 * half), image.at(1, y / 2, 2 * half + 1))
                                    : std::pair(image.at(1, y / 2, half), image.at(2, y / 2, half));
    };
    const auto pixel = [&](int y, int x) { return tensor.data() + 3 * (y * width + x); };
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
            const int luma = in.at(0, y, static_cast<std::size_t>(x));
            const auto [u, v] = chroma(in, y, x);
            const auto expected = yuv_to_rgb(m, luma, u, v);
            for (std::size_t c = 0; c < 3; ++c) REQUIRE(std::abs(pixel(y, x)[bgr ? 2 - c : c] - clip(expected[c])) <= 0.51);
            REQUIRE(std::abs(gray[static_cast<std::size_t>(y * width + x)] - clip(yuv_to_rgb(m, luma, 128, 128)[1])) <= 0.51);
            const auto *p = pixel(y, x);
            const auto back = rgb_to_yuv(m, p[bgr ? 2 : 0], p[1], p[bgr ? 0 : 2]);
            REQUIRE(std::abs(out.at(0, y, static_cast<std::size_t>(x)) - back[0]) <= 0.52);
        }
    }
    for (int y = 0; y < height; y += 2) {
        for (int x = 0; x < width; x += 2) {
            double r = 0, g = 0, b = 0;
            for (int dy = 0; dy < 2; ++dy) {
                for (int dx = 0; dx < 2; ++dx) {
                    const auto *p = pixel(std::min(y + dy, height - 1), std::min(x + dx, width - 1));
                    r += p[bgr ? 2 : 0] / 4.0, g += p[1] / 4.0, b += p[bgr ? 0 : 2] / 4.0;
                }
            }
            const auto expected = rgb_to_yuv(m, r, g, b);
            const auto [u, v] = chroma(out, y, x);
            REQUIRE(std::abs(u - clip(expected[1])) <= 0.55);
            REQUIRE(std::abs(v - clip(expected[2])) <= 0.55);
        }
    }
}

TEST_CASE("black, white and gray are unchanged by NV12") {
    const int matrix = GENERATE(0, 1, 2, 3);
    for (int level = 0; level < 256; ++level) {
        Bytes tensor(12, static_cast<std::uint8_t>(level)), result(12);
        Image image(TCMOA_NV12, 2, 2, 0, 0);
        image.frame.matrix = matrix;
        tensor_to_frame(tensor, false, image.frame);
        REQUIRE(image.at(1, 0, 0) == 128);
        REQUIRE(image.at(1, 0, 1) == 128);
        StretchScratch scratch;
        frame_to_tensor(image.frame, result, 3, false, {1, 99}, scratch);
        REQUIRE(std::abs(result[0] - level) <= (matrix < 2 ? 1 : 0));
        if (level == 0 || level == 255) REQUIRE(result[0] == level);
    }
}

TEST_CASE("the size of a frame in bytes") {
    CHECK(tcmoa_frame_bytes(TCMOA_RGB8, 640, 480) == 921600);
    CHECK(tcmoa_frame_bytes(TCMOA_NV12, 641, 481) == 641 * 481 + 2 * 321 * 241);
    CHECK(tcmoa_frame_bytes(TCMOA_I420, 3, 3) == 9 + 2 * 4);
    CHECK(tcmoa_frame_bytes(8, 640, 480) == 0);
    CHECK(tcmoa_frame_bytes(TCMOA_RGB8, 0, 480) == 0);
    CHECK(tcmoa_frame_bytes(TCMOA_RGB8, 640, 65537) == 0);
    tcmoa_frame_init(nullptr, TCMOA_RGB8, 1, 1, nullptr);  // does nothing
}
