#include "error.hpp"

namespace tcmoa {
namespace {

std::string compose(std::string_view subject, std::string_view problem, std::string_view remedy) {
    std::string line(subject);
    if (!line.empty()) line += ": ";
    line += problem;
    if (!remedy.empty()) {
        std::string sentence(remedy);
        if (sentence[0] >= 'a' && sentence[0] <= 'z') sentence[0] = static_cast<char>(sentence[0] - 'a' + 'A');
        line += ". " + sentence;
        // A command in backticks ends the line, so that it can be copied with its quotes.
        if (std::string_view(".!?`").find(sentence.back()) == std::string_view::npos) line += '.';
    }
    // A control character in a path or a name must not break the line.
    return printable(line, std::string::npos);
}

}  // namespace

Error::Error(tcmoa_status status, std::string_view subject, std::string_view problem, std::string_view remedy)
    : status_(status), message_(compose(subject, problem, remedy)) {}

void fail_input(std::string_view subject, std::string_view problem, std::string_view remedy) {
    throw Error(TCMOA_ERROR_INPUT, subject, problem, remedy);
}

void fail_bundle(std::string_view subject, std::string_view problem, std::string_view remedy) {
    throw Error(TCMOA_ERROR_BUNDLE, subject, problem, remedy);
}

void fail_missing(std::string_view subject, std::string_view problem, std::string_view remedy) {
    throw Error(TCMOA_ERROR_MISSING, subject, problem, remedy);
}

void fail_internal(std::string_view subject, std::string_view problem, std::string_view remedy) {
    throw Error(TCMOA_ERROR_INTERNAL, subject, problem, remedy);
}

std::string printable(std::string_view text, std::size_t max_bytes) {
    std::string line;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0U;
        if (byte == 0xc2 && next >= 0x80 && next < 0xa0) {  // U+0080 to U+009F, which terminals obey too
            line += ' ';
            ++i;
        } else {
            line += byte < 0x20 || byte == 0x7f ? ' ' : text[i];
        }
    }
    if (line.size() > max_bytes) {
        while (max_bytes > 0 && (static_cast<unsigned char>(line[max_bytes]) & 0xc0) == 0x80) --max_bytes;
        line.resize(max_bytes);
        line += "…";
    }
    return line;
}

std::string first_line(const char *text) {
    std::string_view rest = text == nullptr ? "" : text;
    while (!rest.empty()) {
        const auto end = rest.find('\n');
        const auto line = rest.substr(0, end);
        if (line.find_first_not_of(" \t\r") != std::string_view::npos) return printable(line, 200);
        rest = end == std::string_view::npos ? "" : rest.substr(end + 1);
    }
    return "no reason given";
}

std::string last_reason(const char *text) {
    std::string_view rest = text == nullptr ? "" : text, reason;
    while (!rest.empty()) {
        const auto end = rest.find('\n');
        auto line = rest.substr(0, end);
        rest = end == std::string_view::npos ? "" : rest.substr(end + 1);
        const auto first = line.find_first_not_of(" \t\r");
        if (first == std::string_view::npos) continue;
        line = line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
        const bool is_place = line.back() == ':' && (line.starts_with("Exception from ") || line.starts_with("Check "));
        if (!is_place) reason = line;
    }
    return reason.empty() ? first_line(text) : printable(reason, 200);
}

}  // namespace tcmoa
