// The memory layout of a tcmoa_frame, and the checks before a pixel of it is accessed.
#pragma once

#include <cstdint>

#include "tcmoa.h"

namespace tcmoa {

// Throw Error (TCMOA_ERROR_INPUT) unless `frame` is a complete image of width x height pixels. `name` is for the
// message.
void check_frame(const tcmoa_frame *frame, const char *name, std::int64_t width, std::int64_t height);

}  // namespace tcmoa
