// Conversion of frames of any format to the graph's packed uint8 tensors, and back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tcmoa.h"

namespace tcmoa {

// Percentiles of a GRAY16 frame that become black and white, 0 <= low < high <= 100; numpy.percentile's default method.
struct StretchPercentiles {
    double low, high;
};

// Memory for the conversion of a GRAY16 frame; allocated once per slot.
struct StretchScratch {
    std::vector<std::uint32_t> histogram = std::vector<std::uint32_t>(1 << 16);
};

// Convert a checked host frame to packed uint8 [H, W, channels] with 1 or 3 channels, in BGR order if `bgr`, else
// RGB.
void frame_to_tensor(const tcmoa_frame &frame, std::span<std::uint8_t> tensor, int channels, bool bgr,
                     StretchPercentiles percentiles, StretchScratch &scratch);

// Convert packed uint8 [H, W, 3], in BGR order if `bgr`, else RGB, to a checked host frame.
void tensor_to_frame(std::span<const std::uint8_t> tensor, bool bgr, const tcmoa_frame &frame);

}  // namespace tcmoa
