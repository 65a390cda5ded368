// The memory layout of a tcmoa_frame, and the checks before a pixel of it is accessed.
#pragma once

#include <cstdint>
#include <string>

#include "tcmoa.h"

namespace tcmoa {

// Largest width and height of a frame.
inline constexpr int kMaxSide = 65536;

// Throw Error (TCMOA_ERROR_INPUT) for a NULL frame, or one with a side out of range. `name` is for the message.
void check_size(const tcmoa_frame *frame, const char *name);

// Throw Error (TCMOA_ERROR_INPUT) unless all fields of a frame whose size is checked describe a complete image.
void check_layout(const tcmoa_frame &frame, const char *name);

// "WIDTHxHEIGHT".
std::string size_text(std::int64_t width, std::int64_t height);

}  // namespace tcmoa
