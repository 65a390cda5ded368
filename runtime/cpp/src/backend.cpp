#include "backend.hpp"

#include "error.hpp"

namespace tcmoa {

#ifdef TCMOA_NO_OPENVINO
std::unique_ptr<Backend> load_openvino(const Bundle &, const BackendOptions &options) {
    fail_missing("this libtcmoa was built without the backend " + options.name +
                 "; build it with OpenVINO's headers, see runtime/cpp");
}
#endif

std::unique_ptr<Backend> load_backend(const Bundle &bundle, const BackendOptions &options) {
    if (bundle.contract.batch != 1) {
        fail_input(bundle.path.string() + ": fuses batches of " + std::to_string(bundle.contract.batch) +
                   ", this library one pair at a time; export a bundle with --batch 1");
    }
    BackendOptions chosen = options;
    std::unique_ptr<Error> unfit;
    if (options.name == "tensorrt" || options.name == "auto") {
        if (auto backend = load_tensorrt(bundle, options, unfit)) return backend;
        if (options.name == "tensorrt") throw Error(unfit ? *unfit : Error(TCMOA_ERROR_INTERNAL, "no reason was given"));
        chosen.name = "openvino";
    }
    return load_openvino(bundle, chosen);
}

}  // namespace tcmoa
