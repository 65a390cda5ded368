// What a tcmoa_frame must be before a pixel of it is touched.
#include <cstdlib>
#include <string>

#include "error.hpp"
#include "pixels.hpp"

namespace tcmoa {
namespace {

constexpr int kLargestSide = 65536;

struct Plane {
    std::size_t row_bytes, rows;
};

// Planes of a format; 0 for an unknown one.
int planes_of(int format, std::size_t width, std::size_t height, Plane (&planes)[3]) {
    const std::size_t half_w = (width + 1) / 2, half_h = (height + 1) / 2;
    switch (format) {
        case TCMOA_RGB8:
        case TCMOA_BGR8:
            planes[0] = {3 * width, height};
            return 1;
        case TCMOA_RGBA8:
        case TCMOA_BGRA8:
            planes[0] = {4 * width, height};
            return 1;
        case TCMOA_GRAY8:
            planes[0] = {width, height};
            return 1;
        case TCMOA_GRAY16:
            planes[0] = {2 * width, height};
            return 1;
        case TCMOA_NV12:
            planes[0] = {width, height};
            planes[1] = {2 * half_w, half_h};
            return 2;
        case TCMOA_I420:
            planes[0] = {width, height};
            planes[1] = planes[2] = {half_w, half_h};
            return 3;
        default:
            return 0;
    }
}

bool is_side(int side) { return side >= 1 && side <= kLargestSide; }

}  // namespace

void check_frame(const tcmoa_frame *frame, const char *name, std::int64_t width, std::int64_t height) {
    const std::string who = name;
    if (frame == nullptr) fail_input(who + " is NULL: expected a tcmoa_frame, see tcmoa_frame_init()");
    if (frame->width != width || frame->height != height) {
        fail_input(who + " is " + std::to_string(frame->width) + "x" + std::to_string(frame->height) +
                   ", this bundle fuses " + std::to_string(width) + "x" + std::to_string(height) +
                   ": scale it first, or export a bundle for its size");
    }
    Plane planes[3] = {};
    const int count = planes_of(frame->format, static_cast<std::size_t>(width), static_cast<std::size_t>(height), planes);
    if (count == 0) {
        fail_input(who + " has format " + std::to_string(frame->format) + ": expected a tcmoa_format, 0 to 7");
    }
    if (frame->memory != TCMOA_HOST && frame->memory != TCMOA_CUDA) {
        fail_input(who + " has memory " + std::to_string(frame->memory) + ": expected TCMOA_HOST (0) or TCMOA_CUDA (1)");
    }
    if (frame->matrix < TCMOA_BT601_LIMITED || frame->matrix > TCMOA_BT709_FULL) {
        fail_input(who + " has matrix " + std::to_string(frame->matrix) + ": expected a tcmoa_matrix, 0 to 3");
    }
    bool zero = frame->zero == 0;
    for (auto word : frame->reserved) zero = zero && word == 0;
    if (!zero) {
        fail_input(who + " has reserved fields that are not 0: fill it with tcmoa_frame_init() before setting fields");
    }
    for (int i = 0; i < count; ++i) {
        if (frame->planes[i] == nullptr) {
            fail_input(who + " has no plane " + std::to_string(i) + ": expected its first byte, it is NULL");
        }
        if (frame->strides[i] < planes[i].row_bytes) {
            fail_input(who + " has a stride of " + std::to_string(frame->strides[i]) + " bytes in plane " +
                       std::to_string(i) + ": expected " + std::to_string(planes[i].row_bytes) + " or more");
        }
        if (frame->strides[i] > static_cast<std::size_t>(PTRDIFF_MAX) / planes[i].rows) {
            fail_input(who + " has a stride of " + std::to_string(frame->strides[i]) + " bytes in plane " +
                       std::to_string(i) + ": its rows do not fit into memory");
        }
    }
    if (frame->format == TCMOA_GRAY16 && frame->memory == TCMOA_HOST &&
        (reinterpret_cast<std::uintptr_t>(frame->planes[0]) % 2 != 0 || frame->strides[0] % 2 != 0)) {
        fail_input(who + " is GRAY16 at an odd address or with an odd stride: expected multiples of 2 bytes");
    }
}

}  // namespace tcmoa

extern "C" size_t tcmoa_frame_bytes(int format, int width, int height) {
    if (!tcmoa::is_side(width) || !tcmoa::is_side(height)) return 0;
    tcmoa::Plane planes[3] = {};
    std::size_t bytes = 0;
    const int count =
        tcmoa::planes_of(format, static_cast<std::size_t>(width), static_cast<std::size_t>(height), planes);
    for (int i = 0; i < count; ++i) bytes += planes[i].row_bytes * planes[i].rows;
    return bytes;
}

extern "C" void tcmoa_frame_init(tcmoa_frame *frame, int format, int width, int height, void *data) {
    if (frame == nullptr) return;
    *frame = tcmoa_frame{};
    frame->format = format;
    frame->width = width;
    frame->height = height;
    if (!tcmoa::is_side(width) || !tcmoa::is_side(height)) return;
    tcmoa::Plane planes[3] = {};
    const int count =
        tcmoa::planes_of(format, static_cast<std::size_t>(width), static_cast<std::size_t>(height), planes);
    auto *next = static_cast<std::uint8_t *>(data);
    for (int i = 0; i < count && data != nullptr; ++i) {
        frame->planes[i] = next;
        next += planes[i].row_bytes * planes[i].rows;
    }
    for (int i = 0; i < count; ++i) frame->strides[i] = planes[i].row_bytes;
}
