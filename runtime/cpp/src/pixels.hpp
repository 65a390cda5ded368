// Frames of any format into the graph's packed uint8 tensors, and back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tcmoa.h"

namespace tcmoa {

// Throws Error (TCMOA_ERROR_INPUT) unless `frame` is a complete image of width x height; `name` is for the message.
void check_frame(const tcmoa_frame *frame, const char *name, std::int64_t width, std::int64_t height);

// Memory that the conversion of one GRAY16 frame works in; made once.
struct StretchScratch {
    std::vector<std::uint32_t> histogram = std::vector<std::uint32_t>(1 << 16);
};

// A checked host frame as packed uint8 [H, W, channels], with three channels in RGB order, or BGR where `bgr`.
// low and high: percentiles of a GRAY16 frame that become black and white, as numpy.percentile has them.
void frame_to_tensor(const tcmoa_frame &frame, std::span<std::uint8_t> tensor, int channels, bool bgr, double low,
                     double high, StretchScratch &scratch);

// Packed uint8 [H, W, 3] in RGB order, or BGR where `bgr`, into a checked host frame.
void tensor_to_frame(std::span<const std::uint8_t> tensor, bool bgr, const tcmoa_frame &frame);

}  // namespace tcmoa
