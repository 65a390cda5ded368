// Which flavors this build has.
#include <string>

#include "error.hpp"
#include "tensorrt_runtime.hpp"

namespace tcmoa {

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
