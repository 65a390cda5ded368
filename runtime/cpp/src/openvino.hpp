// OpenVINO on the CPU, in float32, or in bfloat16 if the CPU supports it; see tcmoa_runtime/backends/openvino.py.
#pragma once

#include <memory>

#include "backend.hpp"
#include "bundle.hpp"

namespace tcmoa {

// Throws Error: TCMOA_ERROR_BUNDLE if the graph is not the one that bundle.json describes or OpenVINO refuses it,
// TCMOA_ERROR_MISSING if OpenVINO or bfloat16 arithmetic is missing.
std::unique_ptr<Backend> load_openvino(const Bundle &bundle, const BackendOptions &options);

}  // namespace tcmoa
