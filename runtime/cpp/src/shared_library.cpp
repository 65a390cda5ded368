#include "shared_library.hpp"

#include <dlfcn.h>

#include <cstdlib>

#include "error.hpp"

namespace tcmoa {

SharedLibrary::SharedLibrary(const char *variable, const std::vector<std::string> &names, std::string remedy)
    : name_(names.back()), remedy_(std::move(remedy)) {
    // Not read in programs with more rights than their user: it names code to run.
    const char *path = variable == nullptr ? nullptr : secure_getenv(variable);
    const auto candidates = path != nullptr && *path != '\0' ? std::vector<std::string>{path} : names;
    std::string reason;
    for (const auto &candidate : candidates) {
        if (candidate.empty()) continue;
        library_ = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library_ != nullptr) return;
        if (reason.empty()) reason = first_line(dlerror());
    }
    fail("cannot be loaded (" + reason + ")");
}

void SharedLibrary::fail(const std::string &problem) const { fail_missing(name_, problem, remedy_); }

void *SharedLibrary::symbol(const std::string &name) const {
    void *found = dlsym(library_, name.c_str());
    if (found == nullptr) fail("has no function " + name + "; expected a newer version");
    return found;
}

}  // namespace tcmoa
