// Libraries that are loaded when they are first needed, so that one build of libtcmoa also works if they are
// missing.
#pragma once

#include <string>
#include <vector>

namespace tcmoa {

// A loaded library. It is never unloaded: its threads may outlive the last handle.
class SharedLibrary {
public:
    // Load the library. If the environment variable `variable` (may be NULL) is set, its value is the only
    // candidate; otherwise the first of `names` that loads. Throws Error (TCMOA_ERROR_MISSING) with `remedy`. Errors
    // name the library by the last of `names`.
    SharedLibrary(const char *variable, const std::vector<std::string> &names, std::string remedy);

    // The address of a function. Throws Error (TCMOA_ERROR_MISSING) if the library has no such function.
    template <typename Function>
    [[nodiscard]] Function function(const std::string &name) const {
        return reinterpret_cast<Function>(symbol(name));
    }

    // Throw Error (TCMOA_ERROR_MISSING) with the library's remedy.
    [[noreturn]] void fail(const std::string &problem) const;

private:
    [[nodiscard]] void *symbol(const std::string &name) const;

    std::string name_, remedy_;
    void *library_ = nullptr;
};

}  // namespace tcmoa
