// TensorRT and TensorRT-RTX: frames on the GPU, several in flight; see tcmoa_runtime/backends/tensorrt/.
#pragma once

#include <memory>

#include "backend.hpp"
#include "bundle.hpp"
#include "error.hpp"

namespace tcmoa {

// Load the preferred engine of the bundle that runs here: tensorrt before rtx, then fp16, bf16, fp32.
//
// Returns nullptr and sets `reason` if the bundle has no engine, none of its engines runs here, or TensorRT, the
// driver or a GPU is missing. Throws Error if an engine is damaged or there is no GPU `options.cuda_device`.
std::unique_ptr<Backend> load_tensorrt(const Bundle &bundle, const BackendOptions &options,
                                       std::unique_ptr<Error> &reason);

}  // namespace tcmoa
