// Reading protocol buffers without their library: bounded, and stricter than it; see tcmoa_runtime/graph/wire.py.
//
// Parsers of protocol buffers skip fields that they do not know, and take the last of two values where one is expected.
// Here both are refused, so that every parser sees what was checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "graph_rules.hpp"

namespace tcmoa {

// A graph that a bundle may not hold; the text says what was found and what was expected.
class GraphError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

// A name for messages: in quotes, printable ASCII only, and not too long.
std::string quote_name(std::string_view name);

// Where the bytes of a field are.
struct Span {
    std::size_t start = 0, end = 0;
    [[nodiscard]] std::size_t size() const { return end - start; }
};

// One value of a field: a number, or a span where `is_span`.
struct WireValue {
    bool is_span = false;
    std::uint64_t number = 0;
    Span span;
};

// Fields by name; a field that is not repeated has one value.
using WireMessage = std::map<std::string, std::vector<WireValue>, std::less<>>;

class WireReader {
public:
    explicit WireReader(std::string_view data) : data_(data), fields_left_(graph_rules().max_fields) {}

    [[nodiscard]] std::string_view data() const { return data_; }
    [[nodiscard]] std::string_view text(Span span) const { return data_.substr(span.start, span.size()); }

    // Read the fields of a message of a kind in graph_rules.json; messages inside it are returned as spans. `where`
    // says what the message is, for errors. Throws GraphError.
    WireMessage message(Span span, const std::string &kind, const std::string &where);

    // The bytes of a field, empty if it is absent; its number, 0 if it is absent; its spans.
    [[nodiscard]] std::string_view text(const WireMessage &message, std::string_view name) const;
    [[nodiscard]] static std::uint64_t number(const WireMessage &message, std::string_view name);
    [[nodiscard]] static const std::vector<WireValue> &values(const WireMessage &message, std::string_view name);
    [[nodiscard]] static const Span *span(const WireMessage &message, std::string_view name);

    // The numbers of a repeated field of int64. Throws GraphError if they are more than `limit`.
    std::vector<std::int64_t> numbers(const WireMessage &message, std::string_view name, std::int64_t limit,
                                      const std::string &where) const;

    // How many numbers a repeated field has: `width` bytes each, or of varying width if that is 0.
    [[nodiscard]] std::int64_t count(const WireMessage &message, std::string_view name, std::size_t width) const;

private:
    std::string_view data_;
    std::int64_t fields_left_;

    // Read a number at `position` and move behind it.
    std::uint64_t varint(std::size_t &position, std::size_t end) const;
    [[noreturn]] static void malformed(std::string_view problem, std::size_t position);
};

}  // namespace tcmoa
