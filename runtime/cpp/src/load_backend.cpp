#include "load_backend.hpp"

#include "engine_trust.hpp"
#include "error.hpp"
#include "openvino.hpp"
#include "tensorrt.hpp"

namespace tcmoa {

#ifdef TCMOA_NO_OPENVINO
std::unique_ptr<Backend> load_openvino(const Bundle &, const BackendOptions &options) {
    fail_missing("backend " + options.name, "this libtcmoa was built without OpenVINO",
                 "build it with OpenVINO's headers, see runtime/cpp/CMakeLists.txt");
}
#endif

std::unique_ptr<Backend> load_backend(const Bundle &bundle, const BackendOptions &options) {
    BackendOptions chosen = options;
    if (options.name == "tensorrt" || options.name == "auto") {
        std::unique_ptr<Error> reason;
        if (auto backend = load_tensorrt(bundle, options, reason)) return backend;
        if (options.name == "tensorrt") throw Error(*reason);
        chosen.name = "openvino";
        if (dynamic_cast<const UntrustedError *>(reason.get()) != nullptr) chosen.note = ", as an engine is not trusted";
    }
    return load_openvino(bundle, chosen);
}

}  // namespace tcmoa
