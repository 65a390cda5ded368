// What can go wrong, as one type. Messages are one line: what arrived, what was expected, what to do.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "tcmoa.h"

namespace tcmoa {

class Error : public std::exception {
public:
    Error(tcmoa_status status, std::string text) : status_(status), text_(std::move(text)) {}

    [[nodiscard]] tcmoa_status status() const noexcept { return status_; }
    [[nodiscard]] const char *what() const noexcept override { return text_.c_str(); }

private:
    tcmoa_status status_;
    std::string text_;
};

[[noreturn]] inline void fail_input(std::string text) { throw Error(TCMOA_ERROR_INPUT, std::move(text)); }
[[noreturn]] inline void fail_bundle(std::string text) { throw Error(TCMOA_ERROR_BUNDLE, std::move(text)); }
[[noreturn]] inline void fail_missing(std::string text) { throw Error(TCMOA_ERROR_MISSING, std::move(text)); }
[[noreturn]] inline void fail_internal(std::string text) { throw Error(TCMOA_ERROR_INTERNAL, std::move(text)); }

// The first line of a library's message that says something, at most 200 bytes.
std::string first_line(const char *text);

// Text of others in a message of ours: control characters, which would break the line, become spaces; cut at `most`
// bytes, not within a character.
std::string shown(std::string_view text, std::size_t most = 120);

}  // namespace tcmoa
