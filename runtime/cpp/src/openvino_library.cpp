#include "openvino_library.hpp"

#include "error.hpp"
#include "shared_library.hpp"

namespace tcmoa {
namespace {

// Its path in the build environment; empty if CMake did not find it.
#ifndef TCMOA_OPENVINO_LIBRARY_HINT
#define TCMOA_OPENVINO_LIBRARY_HINT ""
#endif
#ifndef TCMOA_OPENVINO_SONAME
#define TCMOA_OPENVINO_SONAME ""
#endif

OpenVinoLibrary load() {
    const SharedLibrary library(
        "TCMOA_OPENVINO_LIBRARY", {TCMOA_OPENVINO_LIBRARY_HINT, TCMOA_OPENVINO_SONAME, "libopenvino_c.so"},
        "install OpenVINO 2025 or newer, then set TCMOA_OPENVINO_LIBRARY to the path of its libopenvino_c.so, or add "
        "its folder to the system's loader");
    OpenVinoLibrary functions;
#define TCMOA_LOAD(name) functions.name = library.function<decltype(functions.name)>(#name);
    TCMOA_OPENVINO_FUNCTIONS(TCMOA_LOAD)
#undef TCMOA_LOAD
    return functions;
}

}  // namespace

const OpenVinoLibrary &OpenVinoLibrary::get() {
    static const OpenVinoLibrary functions = load();  // the next call tries again if it throws
    return functions;
}

std::string OpenVinoLibrary::version() const {
    ov_version_t version{};
    if (ov_get_openvino_version(&version) != OK) return "(unknown version)";
    std::string text = version.buildNumber == nullptr ? "" : version.buildNumber;
    ov_version_free(&version);
    return text.substr(0, text.find('-'));
}

ov_core_t *OpenVinoLibrary::core() const {
    static ov_core_t *const core = [this] {  // the next call tries again if it throws
        ov_core_t *created = nullptr;
        if (const auto status = ov_core_create(&created); status != OK) {
            fail_missing("OpenVINO " + version(), "failed to start (" + reason(status) + ")", "install it again");
        }
        return created;
    }();
    return core;
}

std::string OpenVinoLibrary::reason(ov_status_e status) const {
    const char *message = ov_get_last_err_msg();
    if (message != nullptr && *message != '\0') {
        const auto line = last_reason(message);
        ov_free(message);
        return line;
    }
    return first_line(ov_get_error_info(status));
}

void OpenVinoLibrary::check(const char *action, ov_status_e status) const {
    if (status == OK) return;
    fail_internal("OpenVINO " + version(), std::string("failed to ") + action + " (" + reason(status) + ")");
}

}  // namespace tcmoa
