// Which engines may be loaded: those that this user built, by the record that `tcmoa build` keeps in the user's data
// folder, and those that the caller says to trust. See tcmoa_runtime/engine_trust.py.
#pragma once

#include "engine.hpp"
#include "error.hpp"

namespace tcmoa {

// Whether this user built the engine.
bool is_built_here(const Engine &engine);

// The error for an engine that must not be loaded.
class UntrustedError : public Error {
public:
    explicit UntrustedError(const Engine &engine);
};

}  // namespace tcmoa
