// Resizing of images with the arithmetic of OpenCV 5 for 8 bits on x86-64 (cv2.resize, INTER_AREA and INTER_LINEAR),
// which tcmoa_runtime/images.py uses: the same bytes without OpenCV.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tcmoa {

// Height and width in pixels or tokens.
struct FrameSize {
    std::int64_t height = 0, width = 0;
    bool operator==(const FrameSize &) const = default;
};

// A packed image uint8 [H, W, channels] with `pitch` bytes from one row to the next. Does not own the pixels.
struct ImageView {
    const std::uint8_t *pixels = nullptr;
    std::size_t pitch = 0;
    FrameSize size;
    int channels = 3;

    [[nodiscard]] const std::uint8_t *row(std::int64_t y) const { return pixels + static_cast<std::size_t>(y) * pitch; }
};

// Memory of `resize_image`; grows to what the largest image needs.
struct ResizeScratch {
    // A source pixel with its weight in a result pixel.
    struct Weight {
        std::int64_t source;
        float value;
    };
    // Two neighboring source pixels with their weights in units of 1/2048.
    struct Blend {
        std::int64_t first, second;
        int first_weight, second_weight;
    };
    std::vector<Blend> blend_rows, blend_columns;
    std::vector<Weight> row_weights, column_weights;
    std::vector<std::size_t> row_ends, column_ends;  // end of the weights of each result row and column
    std::vector<std::int32_t> fixed_rows[2];         // two rows, resized horizontally
    std::vector<float> float_row, float_sum;
};

// Resize to `size`, at `out` without gaps between rows: by area if it shrinks in both directions, else bilinear, with
// INTER_AREA's positions if it shrinks in one. An image of that size is copied.
void resize_image(const ImageView &image, FrameSize size, std::uint8_t *out, ResizeScratch &scratch);

}  // namespace tcmoa
