#include "error.hpp"

#include <string_view>

namespace tcmoa {

Error::Error(tcmoa_status status, std::string_view text) : status_(status), text_(shown(text, std::string::npos)) {}

std::string shown(std::string_view text, std::size_t most) {
    std::string line;
    for (char c : text) line += (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) ? ' ' : c;
    if (line.size() > most) {
        while (most > 0 && (static_cast<unsigned char>(line[most]) & 0xc0) == 0x80) --most;
        line.resize(most);
        line += "…";
    }
    return line;
}

std::string first_line(const char *text) {
    std::string_view rest = text == nullptr ? "" : text;
    while (!rest.empty()) {
        const auto end = rest.find('\n');
        const auto line = rest.substr(0, end);
        if (line.find_first_not_of(" \t\r") != std::string_view::npos) return shown(line, 200);
        rest = end == std::string_view::npos ? "" : rest.substr(end + 1);
    }
    return "no reason was given";
}

}  // namespace tcmoa
