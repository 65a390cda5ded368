// The type behind the opaque handle of tcmoa.h.
#pragma once

#include <utility>

#include "fuser.hpp"
#include "last_error.hpp"

struct tcmoa_fuser {
    template <typename... Arguments>
    explicit tcmoa_fuser(Arguments &&...arguments) : fuser(std::forward<Arguments>(arguments)...) {}

    tcmoa::Fuser fuser;
    tcmoa::LastError error;
};
