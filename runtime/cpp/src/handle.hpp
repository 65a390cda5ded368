// The type behind the opaque handle of tcmoa.h.
#pragma once

#include <unistd.h>

#include <utility>

#include "fuser.hpp"
#include "last_error.hpp"

struct tcmoa_fuser {
    template <typename... Arguments>
    explicit tcmoa_fuser(Arguments &&...arguments) : fuser(std::forward<Arguments>(arguments)...) {}

    // Whether this process opened the handle. In a child of fork(), the backend's threads do not exist and locks may be
    // held for ever.
    [[nodiscard]] bool is_of_this_process() const noexcept { return process == getpid(); }

    tcmoa::Fuser fuser;
    tcmoa::LastError error;
    const pid_t process = getpid();
};
