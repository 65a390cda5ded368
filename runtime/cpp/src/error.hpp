// What can go wrong, as one type. Messages are one line: what arrived, what was expected, what to do.
#pragma once

#include <exception>
#include <string>
#include <string_view>

#include "tcmoa.h"

namespace tcmoa {

// A control character in a path or a name would break the line: it becomes a space.
class Error : public std::exception {
public:
    Error(tcmoa_status status, std::string_view text);

    [[nodiscard]] tcmoa_status status() const noexcept { return status_; }
    [[nodiscard]] const char *what() const noexcept override { return text_.c_str(); }

private:
    tcmoa_status status_;
    std::string text_;
};

[[noreturn]] inline void fail_input(std::string_view text) { throw Error(TCMOA_ERROR_INPUT, text); }
[[noreturn]] inline void fail_bundle(std::string_view text) { throw Error(TCMOA_ERROR_BUNDLE, text); }
[[noreturn]] inline void fail_missing(std::string_view text) { throw Error(TCMOA_ERROR_MISSING, text); }
[[noreturn]] inline void fail_internal(std::string_view text) { throw Error(TCMOA_ERROR_INTERNAL, text); }

// The first line of a library's message that says something, at most 200 bytes.
std::string first_line(const char *text);

// Text of others in a message of ours: control characters, which would break the line, become spaces; cut at `most`
// bytes, not within a character.
std::string shown(std::string_view text, std::size_t most = 120);

}  // namespace tcmoa
