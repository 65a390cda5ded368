#include "graph_wire.hpp"

#include <algorithm>

namespace tcmoa {
namespace {

constexpr std::size_t kMaxVarintBytes = 10, kMaxShownBytes = 60;
constexpr const char *kNumber = "a number that is truncated or longer than 64 bits";
constexpr const char *kLength = "a length beyond its message";
constexpr const char *kUnknown = "a field that ONNX does not have";

std::uint8_t byte_at(std::string_view data, std::size_t position) {
    return static_cast<std::uint8_t>(data[position]);
}

}  // namespace

std::string quote_name(std::string_view name) {
    constexpr const char *kDigits = "0123456789abcdef";
    std::string shown = "'";
    for (char c : name.substr(0, kMaxShownBytes)) {
        const auto byte = static_cast<std::uint8_t>(c);
        if (byte >= 0x20 && byte < 0x7f && c != '\\') {
            shown += c;
        } else {
            shown += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
        }
    }
    return shown + (name.size() > kMaxShownBytes ? "…'" : "'");
}

void WireReader::malformed(std::string_view problem, std::size_t position) {
    throw GraphError("not a valid ONNX file (" + std::string(problem) + ", at byte " + std::to_string(position) +
                     "); expected the graph of a bundle");
}

std::uint64_t WireReader::varint(std::size_t &position, std::size_t end) const {
    std::uint64_t value = 0;
    const auto length = std::min(kMaxVarintBytes, end - position);
    for (std::size_t i = 0; i < length; ++i) {
        const auto byte = byte_at(data_, position + i);
        if (i == kMaxVarintBytes - 1 && byte > 1) break;  // more than 64 bits
        value |= static_cast<std::uint64_t>(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            position += i + 1;
            return value;
        }
    }
    malformed(kNumber, position);
}

WireMessage WireReader::message(Span span, const std::string &kind, const std::string &where) {
    const auto &fields = graph_rules().messages.at(kind);
    WireMessage found;
    std::size_t position = span.start;
    while (position < span.end) {
        const auto start = position;
        std::uint64_t tag = byte_at(data_, position++);
        if (tag >= 0x80) {
            if (position == span.end || byte_at(data_, position) == 0 || byte_at(data_, position) >= 0x80) {
                malformed(kUnknown, start);
            }
            tag = (tag & 0x7f) | static_cast<std::uint64_t>(byte_at(data_, position++)) << 7;
        }
        const auto entry = fields.find(tag);
        if (entry == fields.end()) malformed(kUnknown, start);
        const auto &field = entry->second;
        if (--fields_left_ < 0) {
            throw GraphError("more than " + std::to_string(graph_rules().max_fields) + " fields; expected fewer");
        }
        if (!field.refused.empty()) {
            throw GraphError(where + " holds " + field.refused + "; expected operators on tensors only");
        }
        WireValue value;
        const auto wire = static_cast<Wire>(tag & 7);
        if (wire == Wire::varint) {
            value.number = varint(position, span.end);
        } else {
            const auto length = wire == Wire::bytes ? varint(position, span.end) : wire == Wire::fixed32 ? 4U : 8U;
            if (length > span.end - position) malformed(kLength, start);
            value.is_span = true;
            value.span = {position, position + static_cast<std::size_t>(length)};
            position = value.span.end;
        }
        auto &values = found[field.name];
        if (!field.repeated && !values.empty()) {
            throw GraphError(where + " states '" + field.name + "' twice; expected once");
        }
        values.push_back(value);
    }
    return found;
}

const std::vector<WireValue> &WireReader::values(const WireMessage &message, std::string_view name) {
    static const std::vector<WireValue> none;
    const auto found = message.find(name);
    return found == message.end() ? none : found->second;
}

const Span *WireReader::span(const WireMessage &message, std::string_view name) {
    const auto &found = values(message, name);
    return found.empty() || !found[0].is_span ? nullptr : &found[0].span;
}

std::string_view WireReader::text(const WireMessage &message, std::string_view name) const {
    const auto *found = span(message, name);
    return found == nullptr ? std::string_view() : text(*found);
}

std::uint64_t WireReader::number(const WireMessage &message, std::string_view name) {
    const auto &found = values(message, name);
    return found.empty() || found[0].is_span ? 0 : found[0].number;
}

std::vector<std::int64_t> WireReader::numbers(const WireMessage &message, std::string_view name, std::int64_t limit,
                                              const std::string &where) const {
    std::vector<std::int64_t> numbers;
    const auto most = static_cast<std::size_t>(limit);
    for (const auto &value : values(message, name)) {
        if (!value.is_span) {
            numbers.push_back(static_cast<std::int64_t>(value.number));
        } else {
            for (auto position = value.span.start; position < value.span.end && numbers.size() <= most;) {
                numbers.push_back(static_cast<std::int64_t>(varint(position, value.span.end)));
            }
        }
        if (numbers.size() > most) {
            throw GraphError(where + " has more than " + std::to_string(limit) + " numbers in '" + std::string(name) +
                             "'; expected fewer");
        }
    }
    return numbers;
}

std::int64_t WireReader::count(const WireMessage &message, std::string_view name, std::size_t width) const {
    std::int64_t total = 0;
    for (const auto &value : values(message, name)) {
        if (!value.is_span) {
            ++total;
            continue;
        }
        const auto bytes = text(value.span);
        if (width != 0) {
            if (bytes.size() % width != 0) malformed("a list of numbers that is truncated", value.span.start);
            total += static_cast<std::int64_t>(bytes.size() / width);
            continue;
        }
        if (!bytes.empty() && byte_at(bytes, bytes.size() - 1) >= 0x80) malformed(kNumber, value.span.start);
        total += std::count_if(bytes.begin(), bytes.end(), [](char c) { return static_cast<std::uint8_t>(c) < 0x80; });
    }
    return total;
}

}  // namespace tcmoa
