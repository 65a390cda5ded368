// The exception of the library, and text that is safe to print in one line.
#pragma once

#include <exception>
#include <string>
#include <string_view>

#include "tcmoa.h"

namespace tcmoa {

// A failure with its status and a message of one line:
//
//     x: 640x480; expected 320x240, the bundle's frame size. Scale the frame, or export a bundle for 640x480.
class Error : public std::exception {
public:
    // subject: what the error is about, e.g. a path, a frame or an option; may be empty.
    // problem: what arrived and, after "; expected", what was expected.
    // remedy: what to do, as an imperative phrase, e.g. "export it again"; may be empty. It becomes a sentence.
    Error(tcmoa_status status, std::string_view subject, std::string_view problem, std::string_view remedy = {});

    [[nodiscard]] tcmoa_status status() const noexcept { return status_; }
    [[nodiscard]] const char *what() const noexcept override { return message_.c_str(); }

private:
    tcmoa_status status_;
    std::string message_;
};

[[noreturn]] void fail_input(std::string_view subject, std::string_view problem, std::string_view remedy = {});
[[noreturn]] void fail_bundle(std::string_view subject, std::string_view problem, std::string_view remedy = {});
[[noreturn]] void fail_missing(std::string_view subject, std::string_view problem, std::string_view remedy = {});
[[noreturn]] void fail_internal(std::string_view subject, std::string_view problem, std::string_view remedy = {});

// First line of a library's message that is not blank, at most 200 bytes.
std::string first_line(const char *text);

// The line of a library's nested exceptions that says what happened, at most 200 bytes: the last that is neither blank
// nor only names a place in a source file, as "Exception from core.cpp:105:" and "Check 'x' failed at y.cpp:1:" do.
std::string last_reason(const char *text);

// `text` with control characters replaced by spaces, cut at `max_bytes` but not within a UTF-8 character.
std::string printable(std::string_view text, std::size_t max_bytes = 120);

}  // namespace tcmoa
