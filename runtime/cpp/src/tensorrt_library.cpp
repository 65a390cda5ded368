// Which flavours this build has.
#include "error.hpp"
#include "tensorrt_runtime.hpp"

namespace tcmoa {

TensorRt &tensorrt_library(Flavour flavour) {
    if (flavour == Flavour::rtx) {
#ifdef TCMOA_HAS_TENSORRT_RTX
        return open_tensorrt_rtx();
#endif
    } else {
#ifdef TCMOA_HAS_TENSORRT
        return open_tensorrt();
#endif
    }
    const std::string title = flavour == Flavour::rtx ? "TensorRT-RTX" : "TensorRT";
    fail_missing("this libtcmoa was built without " + title + "; build it where the headers of " + title +
                 " are (see runtime/cpp/cmake/TensorRT.cmake), or use the backend openvino");
}

}  // namespace tcmoa
