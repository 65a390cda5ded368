#include "openvino_library.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

namespace tcmoa {
namespace {

// Where CMake found it, if it did; the names that installations give it follow.
#ifndef TCMOA_OPENVINO_LIBRARY_HINT
#define TCMOA_OPENVINO_LIBRARY_HINT ""
#endif
#ifndef TCMOA_OPENVINO_SONAME
#define TCMOA_OPENVINO_SONAME ""
#endif

constexpr const char *kInstall =
    "install OpenVINO 2025 or newer, then set TCMOA_OPENVINO_LIBRARY to its libopenvino_c.so or have the system's "
    "loader find it";

void *open_library() {
    std::vector<std::string> names;
    const char *asked = secure_getenv("TCMOA_OPENVINO_LIBRARY");
    if (asked != nullptr && *asked != '\0') {
        names = {asked};
    } else {
        for (const char *name : {TCMOA_OPENVINO_LIBRARY_HINT, TCMOA_OPENVINO_SONAME, "libopenvino_c.so"}) {
            if (*name != '\0') names.emplace_back(name);
        }
    }
    std::string reason;
    for (const auto &name : names) {
        if (void *library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
        if (reason.empty()) reason = first_line(dlerror());
    }
    fail_missing("the backend openvino needs libopenvino_c (" + reason + "); " + kInstall);
}

OpenVino load() {
    OpenVino functions;
    void *library = open_library();
#define TCMOA_LOAD(name)                                                                                   \
    functions.name = reinterpret_cast<decltype(functions.name)>(dlsym(library, #name));                    \
    if (functions.name == nullptr) {                                                                       \
        fail_missing("the libopenvino_c that was found has no function " #name ": it is too old; " + std::string(kInstall)); \
    }
    TCMOA_OPENVINO_FUNCTIONS(TCMOA_LOAD)
#undef TCMOA_LOAD
    return functions;  // never unloaded: its threads may outlive the last handle
}

}  // namespace

const OpenVino &OpenVino::get() {
    static const OpenVino functions = load();  // tried again at the next call where it throws
    return functions;
}

std::string OpenVino::version() const {
    ov_version_t version{};
    if (ov_get_openvino_version(&version) != OK) return "of unknown version";
    std::string text = version.buildNumber == nullptr ? "" : version.buildNumber;
    ov_version_free(&version);
    return text.substr(0, text.find('-'));
}

std::string OpenVino::reason(ov_status_e status) const {
    const char *message = ov_get_last_err_msg();
    if (message != nullptr && *message != '\0') {
        const auto line = first_line(message);
        ov_free(message);
        return line;
    }
    return first_line(ov_get_error_info(status));
}

}  // namespace tcmoa
