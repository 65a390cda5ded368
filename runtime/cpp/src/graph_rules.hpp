// The rules of tcmoa_runtime/graph/graph_rules.json, which CMake embeds: what the graph of a bundle may hold.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

namespace tcmoa {

enum class Wire : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

// A field of a message: its name, how it is encoded, and whether it may occur more than once. `refused` describes the
// field's content where a bundle may not hold it.
struct GraphField {
    std::string name, refused;
    Wire wire = Wire::bytes;
    bool repeated = false;
};
using GraphFields = std::unordered_map<std::uint64_t, GraphField>;  // by tag

// A limit that grows with the frames: `per_pixel` for each pixel, at least `floor`, at most `total`.
struct GraphLimit {
    std::int64_t total = 0, per_pixel = 0, floor = 0;
    [[nodiscard]] std::int64_t at(std::int64_t pixels) const;
};

struct GraphElementType {
    std::string name;
    std::int64_t bits = 0;
    std::string field;  // of a tensor that holds its numbers one by one
};

struct GraphOperator {
    std::string shape;                                        // the rule for the output's shape
    std::unordered_map<std::string, std::string> attributes;  // kind by name
};

struct GraphRules {
    std::int64_t min_ir_version = 0, max_ir_version = 0, min_opset = 0, max_opset = 0;
    std::int64_t max_fields = 0, max_nodes = 0, max_tensors = 0, max_node_inputs = 0, max_attribute_values = 0,
                 max_name_bytes = 0, max_rank = 0;
    GraphLimit elements, live_elements, operations;
    std::unordered_map<std::uint64_t, GraphElementType> element_types;
    std::unordered_map<std::string, GraphFields> messages;
    std::unordered_map<std::string, GraphOperator> operators;
};

// The rules, parsed at the first call.
const GraphRules &graph_rules();

// a * b, or the largest number where that is larger. a and b are not negative.
std::int64_t saturated_product(std::int64_t a, std::int64_t b);

}  // namespace tcmoa
