// The choice of a backend for a bundle.
#pragma once

#include <memory>

#include "backend.hpp"
#include "bundle.hpp"

namespace tcmoa {

// Load the backend of a bundle. "auto" is tensorrt if the bundle has an engine that runs on this machine, else
// openvino. Throws Error.
std::unique_ptr<Backend> load_backend(const Bundle &bundle, const BackendOptions &options);

}  // namespace tcmoa
