// What stands behind the opaque handle of tcmoa.h.
#pragma once

#include <utility>

#include "fuser.hpp"
#include "tcmoa.h"

struct tcmoa_fuser {
    template <typename... Arguments>
    explicit tcmoa_fuser(Arguments &&...arguments) : fuser(std::forward<Arguments>(arguments)...) {}

    tcmoa::Fuser fuser;
};
