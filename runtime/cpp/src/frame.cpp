#include "frame.hpp"

#include <array>
#include <string>

#include "error.hpp"

namespace tcmoa {
namespace {

// Size of a plane without gaps between rows.
struct Plane {
    std::size_t row_bytes, num_rows;
};

struct Layout {
    int num_planes = 0;  // 0: unknown format
    std::array<Plane, 3> planes{};
};

Layout layout_of(int format, std::size_t width, std::size_t height) {
    const std::size_t half_width = (width + 1) / 2, half_height = (height + 1) / 2;
    switch (format) {
        case TCMOA_RGB8:
        case TCMOA_BGR8:
            return {1, {{{3 * width, height}}}};
        case TCMOA_RGBA8:
        case TCMOA_BGRA8:
            return {1, {{{4 * width, height}}}};
        case TCMOA_GRAY8:
            return {1, {{{width, height}}}};
        case TCMOA_GRAY16:
            return {1, {{{2 * width, height}}}};
        case TCMOA_NV12:
            return {2, {{{width, height}, {2 * half_width, half_height}}}};
        case TCMOA_I420:
            return {3, {{{width, height}, {half_width, half_height}, {half_width, half_height}}}};
        default:
            return {};
    }
}

// The layout for sides that a caller passed; no planes if a side is out of range.
Layout checked_layout(int format, int width, int height) {
    const auto is_side = [](int side) { return side >= 1 && side <= kMaxSide; };
    if (!is_side(width) || !is_side(height)) return {};
    return layout_of(format, static_cast<std::size_t>(width), static_cast<std::size_t>(height));
}

void check_fields(const tcmoa_frame &frame, const char *name) {
    if (frame.memory != TCMOA_HOST && frame.memory != TCMOA_CUDA) {
        fail_input(name, "memory is " + std::to_string(frame.memory) + "; expected TCMOA_HOST (0) or TCMOA_CUDA (1)");
    }
    if (frame.matrix < TCMOA_BT601_LIMITED || frame.matrix > TCMOA_BT709_FULL) {
        fail_input(name, "matrix is " + std::to_string(frame.matrix) + "; expected a tcmoa_matrix, 0 to 3");
    }
    bool zero = frame.reserved0 == 0;
    for (auto word : frame.reserved) zero = zero && word == 0;
    if (!zero) {
        fail_input(name, "reserved fields are not 0; expected 0",
                   "fill the frame with tcmoa_frame_init() before setting fields");
    }
}

void check_plane(const tcmoa_frame &frame, const char *name, int index, const Plane &plane) {
    const auto fail = [&](const std::string &problem) {
        fail_input(name, "plane " + std::to_string(index) + " " + problem);
    };
    if (frame.planes[index] == nullptr) fail("is NULL; expected the address of its first byte");
    const auto stride = frame.strides[index];
    if (stride < plane.row_bytes) {
        fail("has a stride of " + std::to_string(stride) + " bytes; expected " + std::to_string(plane.row_bytes) +
             " or more");
    }
    const auto max_stride = static_cast<std::size_t>(PTRDIFF_MAX) / plane.num_rows;
    if (stride > max_stride) {
        fail("has a stride of " + std::to_string(stride) + " bytes; expected at most " + std::to_string(max_stride) +
             ", so that all rows fit into memory");
    }
}

}  // namespace

std::string size_text(std::int64_t width, std::int64_t height) {
    return std::to_string(width) + "x" + std::to_string(height);
}

void check_size(const tcmoa_frame *frame, const char *name) {
    if (frame == nullptr) fail_input(name, "NULL; expected a tcmoa_frame, see tcmoa_frame_init()");
    const auto is_side = [](int side) { return side >= 1 && side <= kMaxSide; };
    if (is_side(frame->width) && is_side(frame->height)) return;
    fail_input(name, size_text(frame->width, frame->height) + "; expected sides from 1 to " + std::to_string(kMaxSide));
}

void check_layout(const tcmoa_frame &frame, const char *name) {
    const auto layout = checked_layout(frame.format, frame.width, frame.height);
    if (layout.num_planes == 0) {
        fail_input(name, "format is " + std::to_string(frame.format) + "; expected a tcmoa_format, 0 to 7");
    }
    check_fields(frame, name);
    for (int i = 0; i < layout.num_planes; ++i) {
        check_plane(frame, name, i, layout.planes[static_cast<std::size_t>(i)]);
    }
    if (frame.format == TCMOA_GRAY16 && frame.memory == TCMOA_HOST &&
        (reinterpret_cast<std::uintptr_t>(frame.planes[0]) % 2 != 0 || frame.strides[0] % 2 != 0)) {
        fail_input(name, "GRAY16 at an odd address or with an odd stride; expected multiples of 2 bytes");
    }
}

}  // namespace tcmoa

extern "C" size_t tcmoa_frame_bytes(int format, int width, int height) {
    const auto layout = tcmoa::checked_layout(format, width, height);
    std::size_t bytes = 0;
    for (const auto &plane : layout.planes) bytes += plane.row_bytes * plane.num_rows;
    return bytes;
}

extern "C" void tcmoa_frame_init(tcmoa_frame *frame, int format, int width, int height, void *data) {
    if (frame == nullptr) return;
    *frame = tcmoa_frame{};
    frame->format = format;
    frame->width = width;
    frame->height = height;
    const auto layout = tcmoa::checked_layout(format, width, height);
    auto *next = static_cast<std::uint8_t *>(data);
    for (int i = 0; i < layout.num_planes; ++i) {
        const auto &plane = layout.planes[static_cast<std::size_t>(i)];
        frame->strides[i] = plane.row_bytes;
        if (data == nullptr) continue;
        frame->planes[i] = next;
        next += plane.row_bytes * plane.num_rows;
    }
}
