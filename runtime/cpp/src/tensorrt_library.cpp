// Which flavors this build has, and which versions of their libraries it can use.
#include <string>

#include "error.hpp"
#include "tensorrt_runtime.hpp"

namespace tcmoa {

std::string expected_version(Flavor flavor, MinorVersion headers, MinorVersion library) {
    const bool runs = flavor == Flavor::rtx ? library == headers
                                            : library.first == headers.first && library.second >= headers.second;
    if (runs) return "";
    const auto version = "version " + std::to_string(headers.first) + "." + std::to_string(headers.second);
    return flavor == Flavor::rtx ? version : version + " or a newer " + std::to_string(headers.first);
}

TensorRt &tensorrt_library(Flavor flavor) {
    if (flavor == Flavor::rtx) {
#ifdef TCMOA_HAS_TENSORRT_RTX
        return open_tensorrt_rtx();
#endif
    } else {
#ifdef TCMOA_HAS_TENSORRT
        return open_tensorrt();
#endif
    }
    const std::string title = flavor == Flavor::rtx ? "TensorRT-RTX" : "TensorRT";
    fail_missing("backend tensorrt", "this libtcmoa was built without " + title,
                 "build it where the headers of " + title +
                     " are installed (see runtime/cpp/cmake/TensorRT.cmake), or use the backend openvino");
}

}  // namespace tcmoa
