// Shapes of a node's outputs from those of its inputs, for every operator in graph_rules.json; see
// tcmoa_runtime/graph/shapes.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tcmoa {

using Shape = std::vector<std::int64_t>;

// Largest side of a tensor, and largest size that an attribute or input may state.
inline constexpr std::int64_t kMaxSide = 2147483647;

// A node's inputs and attributes that do not fit its operator.
struct ShapeError {};
// An input that sets a shape, but is computed by the graph.
struct ComputedError {};

// Value of an attribute; only the member of its kind is set.
struct AttributeValue {
    std::int64_t integer = 0;
    std::string_view text;
    std::vector<std::int64_t> integers;
};

// What a shape depends on.
struct Operands {
    std::vector<const Shape *> shapes;  // of the inputs; null for an input that is left out
    std::map<std::string, const AttributeValue *, std::less<>> attributes;
    std::function<std::vector<std::int64_t>(std::size_t)> integers;  // values of a constant input by its index
    std::function<std::vector<float>(std::size_t)> floats;
    std::size_t num_outputs = 1;
};

// Shapes of the outputs, and how many multiplications or other steps the node takes.
struct ShapeResult {
    std::vector<Shape> shapes;
    std::int64_t steps = 0;
};

// Apply the rule of a name in graph_rules.json. Throws ShapeError or ComputedError.
ShapeResult infer_shapes(const std::string &rule, const Operands &node);

// How many elements a tensor has; the largest number where that is larger.
std::int64_t num_elements(const Shape &shape);

}  // namespace tcmoa
