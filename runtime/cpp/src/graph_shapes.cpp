#include "graph_shapes.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <unordered_map>

#include "graph_rules.hpp"

namespace tcmoa {
namespace {

using Integers = std::vector<std::int64_t>;

constexpr std::int64_t kMaxBlock = 32768;
constexpr float kMaxScale = 65536;

[[noreturn]] void misfit() { throw ShapeError(); }

const Shape &shape_of(const Operands &node, std::size_t index) {
    if (index >= node.shapes.size() || node.shapes[index] == nullptr) misfit();
    return *node.shapes[index];
}

bool has(const Operands &node, std::size_t index) { return index < node.shapes.size() && node.shapes[index] != nullptr; }

const AttributeValue *attribute(const Operands &node, std::string_view name) {
    const auto found = node.attributes.find(name);
    return found == node.attributes.end() ? nullptr : found->second;
}

std::int64_t integer(const Operands &node, std::string_view name, std::int64_t standard) {
    const auto *value = attribute(node, name);
    return value == nullptr ? standard : value->integer;
}

// An attribute with as many values as `standard`, each from `low` to kMaxSide.
Integers sizes(const Operands &node, std::string_view name, const Integers &standard, std::int64_t low = 0) {
    const auto *value = attribute(node, name);
    if (value == nullptr) return standard;
    if (value->integers.size() != standard.size()) misfit();
    for (auto size : value->integers) {
        if (size < low || size > kMaxSide) misfit();
    }
    return value->integers;
}

// The axes that are stated by an input or, in older opsets, an attribute.
std::optional<Integers> stated_axes(const Operands &node, std::size_t index) {
    if (has(node, index)) return node.integers(index);
    const auto *value = attribute(node, "axes");
    return value == nullptr ? std::nullopt : std::optional(value->integers);
}

std::size_t axis_of(std::int64_t axis, std::size_t rank) {
    const auto sides = static_cast<std::int64_t>(rank);
    if (axis < -sides || axis >= sides) misfit();
    return static_cast<std::size_t>(axis < 0 ? axis + sides : axis);
}

std::set<std::size_t> axis_set(const Integers &axes, std::size_t rank) {
    std::set<std::size_t> found;
    for (auto axis : axes) found.insert(axis_of(axis, rank));
    if (found.size() != axes.size()) misfit();
    return found;
}

std::int64_t product(Shape::const_iterator first, Shape::const_iterator last) {
    return std::accumulate(first, last, std::int64_t{1}, saturated_product);
}

ShapeResult one(Shape shape) {
    const auto steps = num_elements(shape);
    return {{std::move(shape)}, steps};
}

ShapeResult one(Shape shape, std::int64_t steps) { return {{std::move(shape)}, steps}; }

Shape broadcast(const Shape &a, const Shape &b) {
    const auto &longer = a.size() >= b.size() ? a : b, &shorter = a.size() >= b.size() ? b : a;
    Shape sides = longer;
    const auto offset = longer.size() - shorter.size();
    for (std::size_t i = 0; i < shorter.size(); ++i) {
        auto &side = sides[offset + i];
        if (side == 1) {
            side = shorter[i];
        } else if (shorter[i] != 1 && shorter[i] != side) {
            misfit();
        }
    }
    return sides;
}

ShapeResult same(const Operands &node) { return one(shape_of(node, 0)); }

ShapeResult broadcast_all(const Operands &node) {
    if (node.shapes.empty()) misfit();
    Shape result = shape_of(node, 0);
    for (std::size_t i = 1; i < node.shapes.size(); ++i) result = broadcast(result, shape_of(node, i));
    return one(std::move(result));
}

ShapeResult matmul(const Operands &node) {
    const auto &a = shape_of(node, 0), &b = shape_of(node, 1);
    if (a.empty() || b.empty()) misfit();
    const auto depth = a.back();
    if (depth != (b.size() > 1 ? b[b.size() - 2] : b[0])) misfit();
    const Shape leading_a(a.begin(), a.end() - std::min<std::ptrdiff_t>(2, std::ssize(a)));
    const Shape leading_b(b.begin(), b.end() - std::min<std::ptrdiff_t>(2, std::ssize(b)));
    Shape shape = broadcast(leading_a, leading_b);
    if (a.size() > 1) shape.push_back(a[a.size() - 2]);
    if (b.size() > 1) shape.push_back(b.back());
    const auto steps = saturated_product(num_elements(shape), depth);
    return one(std::move(shape), steps);
}

ShapeResult gemm(const Operands &node) {
    Shape a = shape_of(node, 0), b = shape_of(node, 1);
    if (a.size() != 2 || b.size() != 2) misfit();
    if (integer(node, "transA", 0) != 0) std::swap(a[0], a[1]);
    if (integer(node, "transB", 0) != 0) std::swap(b[0], b[1]);
    const Shape shape{a[0], b[1]};
    if (a[1] != b[0] || (has(node, 2) && broadcast(shape, shape_of(node, 2)) != shape)) misfit();
    return one(shape, saturated_product(num_elements(shape), a[1]));
}

// Sizes of a sliding window, per spatial axis.
struct Window {
    Integers kernel, strides, dilations, pads;
    bool same = false;

    Window(const Operands &node, Integers sides, std::size_t rank) : kernel(std::move(sides)) {
        const auto *stated = attribute(node, "auto_pad");
        const std::string_view mode = stated == nullptr ? "NOTSET" : stated->text;
        same = mode == "SAME_UPPER" || mode == "SAME_LOWER";
        if ((!same && mode != "NOTSET" && mode != "VALID") || kernel.size() != rank || rank == 0) misfit();
        for (auto side : kernel) {
            if (side < 1 || side > kMaxSide) misfit();
        }
        const Integers ones(rank, 1), zeros(2 * rank, 0);
        pads = sizes(node, "pads", zeros);
        if (mode != "NOTSET") pads = zeros;
        strides = sizes(node, "strides", ones, 1);
        dilations = sizes(node, "dilations", ones, 1);
    }

    [[nodiscard]] std::int64_t extent(std::size_t axis) const { return (kernel[axis] - 1) * dilations[axis] + 1; }

    // Append the spatial sides of the output for those of `x`.
    void append(Shape &shape, const Shape &x, bool ceil) const {
        const auto rank = kernel.size();
        for (std::size_t i = 0; i < rank; ++i) {
            const auto side = x[i + 2], stride = strides[i];
            if (same) {
                shape.push_back((side + stride - 1) / stride);
                continue;
            }
            const auto room = side + pads[i] + pads[i + rank] - extent(i);
            if (room < 0) misfit();
            auto count = (ceil ? (room + stride - 1) / stride : room / stride) + 1;
            if (ceil && (count - 1) * stride >= side + pads[i]) --count;
            shape.push_back(count);
        }
    }
};

ShapeResult conv(const Operands &node) {
    const auto &x = shape_of(node, 0), &weight = shape_of(node, 1);
    const auto group = integer(node, "group", 1);
    if (x.size() < 3 || weight.size() != x.size() || group < 1 || group > kMaxSide) misfit();
    if (x[1] != weight[1] * group || weight[0] % group != 0) misfit();
    const Integers kernel(weight.begin() + 2, weight.end());
    if (sizes(node, "kernel_shape", kernel) != kernel) misfit();
    Shape shape{x[0], weight[0]};
    Window(node, kernel, x.size() - 2).append(shape, x, false);
    const auto steps = saturated_product(num_elements(shape), product(weight.begin() + 1, weight.end()));
    return one(std::move(shape), steps);
}

ShapeResult conv_transpose(const Operands &node) {
    const auto &x = shape_of(node, 0), &weight = shape_of(node, 1);
    const auto group = integer(node, "group", 1);
    if (x.size() < 3 || weight.size() != x.size() || group < 1 || group > kMaxSide) misfit();
    if (x[1] != weight[0] || x[1] % group != 0) misfit();
    const auto rank = x.size() - 2;
    const Integers kernel(weight.begin() + 2, weight.end()), zeros(rank, 0);
    if (sizes(node, "kernel_shape", kernel) != kernel) misfit();
    const Window window(node, kernel, rank);
    const auto extra = sizes(node, "output_padding", zeros), stated = sizes(node, "output_shape", zeros);
    const bool is_stated = std::any_of(stated.begin(), stated.end(), [](auto side) { return side != 0; });
    Shape shape{x[0], weight[1] * group};
    for (std::size_t i = 0; i < rank; ++i) {
        const auto full = window.strides[i] * (x[i + 2] - 1) + window.extent(i) + extra[i];
        const auto side = is_stated     ? stated[i]
                          : window.same ? x[i + 2] * window.strides[i]
                                        : full - window.pads[i] - window.pads[i + rank];
        if (side < 0) misfit();
        shape.push_back(side);
    }
    return one(std::move(shape), saturated_product(num_elements(x), product(weight.begin() + 1, weight.end())));
}

ShapeResult pool(const Operands &node) {
    const auto &x = shape_of(node, 0);
    const auto *kernel = attribute(node, "kernel_shape");
    if (kernel == nullptr || x.size() < 3) misfit();
    Shape shape{x[0], x[1]};
    Window(node, kernel->integers, x.size() - 2).append(shape, x, integer(node, "ceil_mode", 0) != 0);
    const auto steps = saturated_product(num_elements(shape), num_elements(kernel->integers));
    return one(std::move(shape), steps);
}

ShapeResult global_pool(const Operands &node) {
    const auto &x = shape_of(node, 0);
    if (x.size() < 3) misfit();
    Shape shape(x.size(), 1);
    shape[0] = x[0];
    shape[1] = x[1];
    return one(std::move(shape), num_elements(x));
}

Shape without(const Shape &shape, const std::set<std::size_t> &axes, bool keep) {
    Shape result;
    for (std::size_t i = 0; i < shape.size(); ++i) {
        if (!axes.contains(i)) {
            result.push_back(shape[i]);
        } else if (keep) {
            result.push_back(1);
        }
    }
    return result;
}

ShapeResult reduce(const Operands &node) {
    const auto &x = shape_of(node, 0);
    auto axes = stated_axes(node, 1);
    if (!axes || axes->empty()) {
        if (integer(node, "noop_with_empty_axes", 0) != 0) return one(x);
        axes = Integers(x.size());
        std::iota(axes->begin(), axes->end(), 0);
    }
    return one(without(x, axis_set(*axes, x.size()), integer(node, "keepdims", 1) != 0), num_elements(x));
}

ShapeResult arg_reduce(const Operands &node) {
    const auto &x = shape_of(node, 0);
    const auto axis = axis_of(integer(node, "axis", 0), x.size());
    return one(without(x, {axis}, integer(node, "keepdims", 1) != 0), num_elements(x));
}

ShapeResult reshape(const Operands &node) {
    const auto &x = shape_of(node, 0);
    Shape sides = node.integers(1);
    if (integer(node, "allowzero", 0) == 0) {
        for (std::size_t i = 0; i < sides.size(); ++i) {
            if (sides[i] != 0) continue;
            if (i >= x.size()) misfit();
            sides[i] = x[i];
        }
    }
    std::int64_t rest = 1, num_unknown = 0;
    for (auto side : sides) {
        if (side < -1 || side > kMaxSide) misfit();
        if (side == -1) {
            ++num_unknown;
        } else {
            rest = saturated_product(rest, side);
        }
    }
    const auto total = num_elements(x);
    if (num_unknown != 0) {
        if (num_unknown > 1 || rest == 0 || total % rest != 0) misfit();
        *std::find(sides.begin(), sides.end(), -1) = total / rest;
    }
    if (num_elements(sides) != total) misfit();
    return one(std::move(sides));
}

ShapeResult flatten(const Operands &node) {
    const auto &x = shape_of(node, 0);
    const auto rank = std::ssize(x);
    auto axis = integer(node, "axis", 1);
    if (axis < -rank || axis > rank) misfit();
    if (axis < 0) axis += rank;
    return one({product(x.begin(), x.begin() + axis), product(x.begin() + axis, x.end())});
}

ShapeResult transpose(const Operands &node) {
    const auto &x = shape_of(node, 0);
    const auto *stated = attribute(node, "perm");
    if (stated == nullptr) return one(Shape(x.rbegin(), x.rend()));
    if (stated->integers.size() != x.size()) misfit();
    std::set<std::int64_t> seen;
    Shape shape;
    for (auto axis : stated->integers) {
        if (axis < 0 || axis >= std::ssize(x) || !seen.insert(axis).second) misfit();
        shape.push_back(x[static_cast<std::size_t>(axis)]);
    }
    return one(std::move(shape));
}

ShapeResult squeeze(const Operands &node) {
    const auto &x = shape_of(node, 0);
    const auto axes = stated_axes(node, 1);
    std::set<std::size_t> chosen;
    if (axes) {
        chosen = axis_set(*axes, x.size());
    } else {
        for (std::size_t i = 0; i < x.size(); ++i) {
            if (x[i] == 1) chosen.insert(i);
        }
    }
    for (auto axis : chosen) {
        if (x[axis] != 1) misfit();
    }
    return one(without(x, chosen, false));
}

ShapeResult unsqueeze(const Operands &node) {
    const auto &x = shape_of(node, 0);
    const auto axes = stated_axes(node, 1);
    if (!axes) misfit();
    const auto rank = x.size() + axes->size();
    const auto chosen = axis_set(*axes, rank);
    Shape shape;
    for (std::size_t i = 0, next = 0; i < rank; ++i) shape.push_back(chosen.contains(i) ? 1 : x[next++]);
    return one(std::move(shape));
}

ShapeResult concat(const Operands &node) {
    if (node.shapes.empty() || attribute(node, "axis") == nullptr) misfit();
    Shape shape = shape_of(node, 0);
    const auto axis = axis_of(integer(node, "axis", 0), shape.size());
    for (std::size_t i = 1; i < node.shapes.size(); ++i) {
        const auto &next = shape_of(node, i);
        if (next.size() != shape.size()) misfit();
        for (std::size_t side = 0; side < shape.size(); ++side) {
            if (side != axis && next[side] != shape[side]) misfit();
        }
        shape[axis] += next[axis];
    }
    return one(std::move(shape));
}

ShapeResult split(const Operands &node) {
    const auto &x = shape_of(node, 0);
    const auto count = static_cast<std::int64_t>(node.num_outputs);
    const auto axis = axis_of(integer(node, "axis", 0), x.size());
    Integers parts;
    if (has(node, 1)) {
        parts = node.integers(1);
    } else if (const auto *stated = attribute(node, "split"); stated != nullptr) {
        parts = stated->integers;
    } else {
        if (integer(node, "num_outputs", count) != count) misfit();
        const auto part = (x[axis] + count - 1) / count;
        parts.assign(node.num_outputs - 1, part);
        parts.push_back(x[axis] - part * (count - 1));
    }
    if (std::ssize(parts) != count) misfit();
    std::int64_t sum = 0;
    ShapeResult result;
    for (auto part : parts) {
        if (part < 0 || part > kMaxSide) misfit();
        sum += part;
        result.shapes.push_back(x);
        result.shapes.back()[axis] = part;
    }
    if (sum != x[axis]) misfit();
    result.steps = num_elements(x);
    return result;
}

// How many elements Python's slice `start:end:step` takes from `side` ones.
std::int64_t slice_length(std::int64_t start, std::int64_t end, std::int64_t step, std::int64_t side) {
    const std::int64_t low = step < 0 ? -1 : 0, high = step < 0 ? side - 1 : side;
    const auto clamped = [&](std::int64_t value) {
        if (value < 0) return value < -side ? low : std::max(value + side, low);
        return std::min(value, high);
    };
    const auto first = clamped(start), last = clamped(end);
    if (step > 0) return first < last ? (last - first - 1) / step + 1 : 0;
    // The step is negated without overflow: -(step + 1) fits, and so does the quotient.
    return last < first ? static_cast<std::int64_t>(static_cast<std::uint64_t>(first - last - 1) /
                                                    (static_cast<std::uint64_t>(-(step + 1)) + 1)) +
                              1
                        : 0;
}

ShapeResult slice(const Operands &node) {
    const auto &x = shape_of(node, 0);
    const auto starts = node.integers(1), ends = node.integers(2);
    Integers axes, steps;
    if (has(node, 3)) {
        axes = node.integers(3);
    } else {
        axes.resize(starts.size());
        std::iota(axes.begin(), axes.end(), 0);
    }
    if (has(node, 4)) {
        steps = node.integers(4);
    } else {
        steps.assign(starts.size(), 1);
    }
    if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size()) misfit();
    (void)axis_set(axes, x.size());
    Shape shape = x;
    for (std::size_t i = 0; i < starts.size(); ++i) {
        if (steps[i] == 0) misfit();
        auto &side = shape[axis_of(axes[i], x.size())];
        side = slice_length(starts[i], ends[i], steps[i], side);
    }
    return one(std::move(shape));
}

ShapeResult pad(const Operands &node) {
    const auto &x = shape_of(node, 0);
    const auto pads = node.integers(1);
    Integers axes;
    if (has(node, 3)) {
        axes = node.integers(3);
    } else {
        axes.resize(x.size());
        std::iota(axes.begin(), axes.end(), 0);
    }
    if (pads.size() != 2 * axes.size()) misfit();
    (void)axis_set(axes, x.size());
    Shape shape = x;
    for (std::size_t i = 0; i < axes.size(); ++i) {
        const auto before = pads[i], after = pads[i + axes.size()];
        if (before < -kMaxSide || before > kMaxSide || after < -kMaxSide || after > kMaxSide) misfit();
        auto &side = shape[axis_of(axes[i], x.size())];
        side += before + after;
        if (side < 0) misfit();
    }
    return one(std::move(shape));
}

ShapeResult resize(const Operands &node) {
    const auto &x = shape_of(node, 0);
    const auto *mode = attribute(node, "coordinate_transformation_mode");
    const auto *policy = attribute(node, "keep_aspect_ratio_policy");
    if (mode != nullptr && mode->text == "tf_crop_and_resize") misfit();
    if (policy != nullptr && policy->text != "stretch") misfit();
    auto axes = stated_axes(node, 4);
    if (!axes) {
        axes = Integers(x.size());
        std::iota(axes->begin(), axes->end(), 0);
    }
    (void)axis_set(*axes, x.size());
    Shape shape = x;
    if (has(node, 3)) {
        const auto values = node.integers(3);
        if (values.size() != axes->size()) misfit();
        for (std::size_t i = 0; i < values.size(); ++i) {
            if (values[i] < 1 || values[i] > kMaxSide) misfit();
            shape[axis_of((*axes)[i], x.size())] = values[i];
        }
        return one(std::move(shape));
    }
    const auto scales = node.floats(2);
    if (scales.size() != axes->size()) misfit();
    for (std::size_t i = 0; i < scales.size(); ++i) {
        if (!(scales[i] > 0 && scales[i] <= kMaxScale)) misfit();
        auto &side = shape[axis_of((*axes)[i], x.size())];
        side = static_cast<std::int64_t>(static_cast<double>(side) * static_cast<double>(scales[i]));
    }
    return one(std::move(shape));
}

ShapeResult gather(const Operands &node) {
    const auto &x = shape_of(node, 0), &index = shape_of(node, 1);
    const auto axis = static_cast<std::ptrdiff_t>(axis_of(integer(node, "axis", 0), x.size()));
    Shape shape(x.begin(), x.begin() + axis);
    shape.insert(shape.end(), index.begin(), index.end());
    shape.insert(shape.end(), x.begin() + axis + 1, x.end());
    return one(std::move(shape));
}

ShapeResult gather_elements(const Operands &node) {
    const auto &x = shape_of(node, 0), &index = shape_of(node, 1);
    if (x.size() != index.size()) misfit();
    return one(index);
}

Shape stated_sides(const Integers &values) {
    for (auto value : values) {
        if (value < 0 || value > kMaxSide) misfit();
    }
    return values;
}

ShapeResult expand(const Operands &node) { return one(broadcast(shape_of(node, 0), stated_sides(node.integers(1)))); }

ShapeResult tile(const Operands &node) {
    Shape shape = shape_of(node, 0);
    const auto repeats = stated_sides(node.integers(1));
    if (shape.size() != repeats.size()) misfit();
    for (std::size_t i = 0; i < shape.size(); ++i) shape[i] *= repeats[i];
    return one(std::move(shape));
}

std::int64_t block_of(const Operands &node) {
    const auto block = integer(node, "blocksize", 0);
    if (shape_of(node, 0).size() != 4 || block < 1 || block > kMaxBlock) misfit();
    return block;
}

ShapeResult depth_to_space(const Operands &node) {
    const auto block = block_of(node);
    const auto &x = shape_of(node, 0);
    if (x[1] % (block * block) != 0) misfit();
    return one({x[0], x[1] / (block * block), x[2] * block, x[3] * block});
}

ShapeResult space_to_depth(const Operands &node) {
    const auto block = block_of(node);
    const auto &x = shape_of(node, 0);
    if (x[2] % block != 0 || x[3] % block != 0) misfit();
    return one({x[0], x[1] * block * block, x[2] / block, x[3] / block});
}

ShapeResult constant_of_shape(const Operands &node) { return one(stated_sides(node.integers(0))); }

const std::unordered_map<std::string, ShapeResult (*)(const Operands &)> kRules = {
    {"same", same},
    {"broadcast", broadcast_all},
    {"matmul", matmul},
    {"gemm", gemm},
    {"conv", conv},
    {"conv_transpose", conv_transpose},
    {"pool", pool},
    {"global_pool", global_pool},
    {"reduce", reduce},
    {"arg_reduce", arg_reduce},
    {"reshape", reshape},
    {"flatten", flatten},
    {"transpose", transpose},
    {"squeeze", squeeze},
    {"unsqueeze", unsqueeze},
    {"concat", concat},
    {"split", split},
    {"slice", slice},
    {"pad", pad},
    {"resize", resize},
    {"gather", gather},
    {"gather_elements", gather_elements},
    {"expand", expand},
    {"tile", tile},
    {"depth_to_space", depth_to_space},
    {"space_to_depth", space_to_depth},
    {"constant_of_shape", constant_of_shape},
};

}  // namespace

std::int64_t num_elements(const Shape &shape) { return product(shape.begin(), shape.end()); }

ShapeResult infer_shapes(const std::string &rule, const Operands &node) { return kRules.at(rule)(node); }

}  // namespace tcmoa
