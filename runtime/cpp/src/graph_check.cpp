#include "graph_check.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "graph_shapes.hpp"

namespace tcmoa {
namespace {

constexpr std::uint64_t kFloat32 = 1, kInt32 = 6, kInt64 = 7;
constexpr std::int64_t kMaxConstantValues = 4096;
constexpr std::size_t kMaxShownShapes = 80, kHeadBytes = 4096;
constexpr std::int64_t kMaxUnreadBytes = 1 << 20;  // of the weights, behind the last tensor
constexpr std::string_view kMetadataPrefix = "tcmoa.";
constexpr std::array kLists{"float_data", "int32_data", "int64_data", "double_data", "uint64_data"};
constexpr std::array kValues{"f", "i", "s", "t", "floats", "ints"};
constexpr std::array kConstantValues{"value", "value_float", "value_floats", "value_int", "value_ints"};
constexpr std::array kInputs{kX, kY, kScale, kShift};

[[noreturn]] void refuse(const std::string &problem) { throw GraphError(problem); }

std::string text_of(std::int64_t number) { return std::to_string(number); }

std::string text_of(const Shape &shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i != 0 ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

// Kind of an attribute and the field of its value, by the number in its field "type".
struct Kind {
    const char *name = "", *field = "";
};
Kind kind_of(std::uint64_t type) {
    switch (type) {
        case 1: return {"float", "f"};
        case 2: return {"int", "i"};
        case 3: return {"string", "s"};
        case 4: return {"tensor", "t"};
        case 6: return {"floats", "floats"};
        case 7: return {"ints", "ints"};
        default: return {};
    }
}

// A number of bytes in decimal digits without leading zeros.
std::optional<std::int64_t> digits(std::string_view text) {
    if (text.empty() || text.size() > 19 || (text.size() > 1 && text[0] == '0')) return std::nullopt;
    std::int64_t value = 0;
    for (char c : text) {
        if (c < '0' || c > '9') return std::nullopt;
        if (__builtin_mul_overflow(value, std::int64_t{10}, &value) ||
            __builtin_add_overflow(value, std::int64_t{c - '0'}, &value)) {
            return std::numeric_limits<std::int64_t>::max();
        }
    }
    return value;
}

// A tensor that the graph holds.
struct Constant {
    Shape shape;
    std::uint64_t element_type = 0;
    std::optional<WireMessage> message;  // of its numbers; absent where they are in another file or an attribute
    std::optional<std::vector<std::int64_t>> values;
};

struct Attribute {
    std::string name;
    const char *kind = "";
    AttributeValue value;
    std::optional<Span> tensor;
};

struct Node {
    std::string where;
    const GraphOperator *op = nullptr;
    std::vector<std::string> inputs, outputs;
    std::map<std::string, Attribute, std::less<>> attributes;
};

struct ValueInfo {
    std::string name;
    std::uint64_t element_type = 0;
    Shape shape;
};

class GraphCheck {
public:
    GraphCheck(std::string_view data, const Contract &contract, const std::string &data_name,
               std::optional<std::int64_t> data_bytes)
        : reader_(data), contract_(contract), data_name_(data_name), data_bytes_(data_bytes),
          pixels_(saturated_product(saturated_product(contract.batch, contract.height), contract.width)),
          max_elements_(rules_.elements.at(pixels_)) {}

    void run(const std::string &graph_name) {
        const auto size = reader_.data().size();
        if (size > static_cast<std::size_t>(kMaxGraphBytes)) {
            refuse(std::to_string(size) + " bytes; expected at most " + text_of(kMaxGraphBytes));
        }
        check_format();
        const auto model = reader_.message({0, size}, "model", "the model");
        check_versions(model);
        const auto *span = WireReader::span(model, "graph");
        if (span == nullptr) refuse("the model holds no graph; expected one");
        const auto graph = reader_.message(*span, "graph", "the graph");
        const auto inputs = infos(graph, "input"), outputs = infos(graph, "output");
        compare("input", inputs, contract_.inputs());
        compare("output", outputs, contract_.outputs());
        const auto name = reader_.text(graph, "name");
        if (name != graph_name) {
            refuse("the graph of another bundle, named " + quote_name(name) + "; expected " + quote_name(graph_name) +
                   " as in bundle.json");
        }
        for (const auto &spec : contract_.inputs()) define(spec.name, spec.shape, "input '" + spec.name + "'");
        read_initializers(graph);
        check_nodes(read_nodes(graph));
        for (const auto &spec : contract_.outputs()) {
            compare_shape(spec.name, spec.shape, "output '" + spec.name + "'");
        }
        for (const auto &info : WireReader::values(graph, "value_info")) {
            const auto value = value_info(info.span, "value");
            compare_shape(value.name, value.shape, "value " + quote_name(value.name));
        }
    }

private:
    const GraphRules &rules_ = graph_rules();
    WireReader reader_;
    const Contract &contract_;
    const std::string data_name_;
    const std::optional<std::int64_t> data_bytes_;
    const std::int64_t pixels_, max_elements_;
    std::int64_t read_bytes_ = 0;  // up to where initializers read the file with weights
    std::unordered_map<std::string, Shape> shapes_;
    std::unordered_map<std::string, Constant> constants_;

    // Refuse files that are ONNX and another format too: libraries choose by the first bytes. OpenVINO looks for
    // `<net` of its own format, ONNX Runtime and OpenVINO for the identifiers of FlatBuffers.
    void check_format() const {
        const auto head = reader_.data().substr(0, kHeadBytes);
        const auto identifier = head.size() < 8 ? std::string_view() : head.substr(4, 4);
        if (head.find("<net") != std::string_view::npos || identifier == "ORTM" || identifier == "TFL3") {
            refuse("the file can be read as another format than ONNX; expected an ONNX graph only");
        }
    }

    void check_versions(const WireMessage &model) {
        const auto between = [](std::uint64_t version, std::int64_t low, std::int64_t high, const char *what) {
            if (version < static_cast<std::uint64_t>(low) || version > static_cast<std::uint64_t>(high)) {
                refuse(what + std::to_string(version) + "; expected " + text_of(low) + " to " + text_of(high));
            }
        };
        between(WireReader::number(model, "ir_version"), rules_.min_ir_version, rules_.max_ir_version, "IR version ");
        const auto &opsets = WireReader::values(model, "opset_import");
        if (opsets.size() != 1) {
            refuse(std::to_string(opsets.size()) + " operator sets; expected the standard one only");
        }
        const auto opset = reader_.message(opsets[0].span, "opset", "the operator set");
        if (const auto domain = reader_.text(opset, "domain"); !domain.empty()) {
            refuse("operators of the domain " + quote_name(domain) + "; expected the standard one only");
        }
        between(WireReader::number(opset, "version"), rules_.min_opset, rules_.max_opset, "operator set ");
        for (const auto &value : WireReader::values(model, "metadata_props")) {
            const auto entry = reader_.message(value.span, "metadata", "the metadata");
            const auto key = reader_.text(entry, "key");
            if (!key.starts_with(kMetadataPrefix)) {  // libraries read settings from some
                refuse("the metadata " + quote_name(key) + "; expected keys that begin with 'tcmoa.'");
            }
        }
    }

    std::string name_of(std::string_view name, const std::string &where) const {
        if (name.size() > static_cast<std::size_t>(rules_.max_name_bytes)) {
            refuse(where + " has a name of " + std::to_string(name.size()) + " bytes; expected at most " +
                   text_of(rules_.max_name_bytes));
        }
        return std::string(name);
    }

    std::vector<ValueInfo> infos(const WireMessage &graph, const std::string &role) {
        std::vector<ValueInfo> found;
        for (const auto &value : WireReader::values(graph, role)) found.push_back(value_info(value.span, role));
        return found;
    }

    ValueInfo value_info(Span span, const std::string &role) {
        auto info = reader_.message(span, "value_info", role == "value" ? "a value" : "an " + role);
        ValueInfo found{name_of(reader_.text(info, "name"), role), 0, {}};
        if (found.name.empty() && role == "input") refuse("an input without a name; expected a name");
        const auto where = role + " " + quote_name(found.name);
        for (const auto &[part, kind] : {std::pair{"type", "type"}, std::pair{"tensor_type", "tensor_type"}}) {
            const auto *inner = WireReader::span(info, part);
            if (inner == nullptr) refuse(where + " is not a tensor; expected one of fixed shape");
            info = reader_.message(*inner, kind, where);
        }
        found.element_type = WireReader::number(info, "elem_type");
        const auto *shape = WireReader::span(info, "shape");
        if (shape == nullptr) refuse(where + " has no shape; expected a fixed one");
        const auto dims = reader_.message(*shape, "shape", where);
        for (const auto &dim : WireReader::values(dims, "dim")) {
            const auto message = reader_.message(dim.span, "dim", where);
            if (!message.contains("dim_value")) {
                refuse(where + " holds a size that is not fixed; expected operators on tensors only");
            }
            found.shape.push_back(static_cast<std::int64_t>(WireReader::number(message, "dim_value")));
        }
        check_sides(found.shape, where);
        return found;
    }

    void check_sides(const Shape &sides, const std::string &where) const {
        if (std::ssize(sides) > rules_.max_rank) {
            refuse(where + " has " + std::to_string(sides.size()) + " axes; expected at most " +
                   text_of(rules_.max_rank));
        }
        for (auto side : sides) {
            if (side < 0 || side > kMaxSide) {
                refuse(where + " has a side out of range; expected 0 to " + text_of(kMaxSide));
            }
        }
    }

    void define(const std::string &name, const Shape &shape, const std::string &where) {
        if (shapes_.contains(name)) refuse(where + " has the name of another tensor; expected distinct names");
        check_sides(shape, where);
        const auto elements = num_elements(shape);
        if (elements > max_elements_) {
            refuse(where + " has " + text_of(elements) + " elements; expected at most " + text_of(max_elements_) +
                   " for " + text_of(pixels_) + " pixels");
        }
        shapes_.emplace(name, shape);
    }

    void compare_shape(const std::string &name, const Shape &shape, const std::string &where) const {
        const auto found = shapes_.find(name);
        if (found == shapes_.end()) refuse(where + " is not computed; expected a node that computes it");
        if (found->second != shape) {
            refuse(where + " is stated as " + text_of(shape) + " but computed as " + text_of(found->second) +
                   "; expected equal shapes");
        }
    }

    // Compare declared inputs or outputs with the contract.
    void compare(const std::string &kind, const std::vector<ValueInfo> &found, const std::vector<TensorSpec> &specs) {
        std::map<std::string, std::string> arrived, expected;
        const auto check = [&](const std::string &name) {
            const auto a = arrived.find(name), e = expected.find(name);
            const std::string is = a == arrived.end() ? "absent" : a->second;
            const std::string should = e == expected.end() ? "absent" : e->second;
            if (is != should) {
                refuse(kind + " " + quote_name(name) + " is " + is + "; expected " + should + " as in bundle.json");
            }
        };
        for (const auto &info : found) {
            const auto type = rules_.element_types.find(info.element_type);
            const auto description = (type == rules_.element_types.end() ? "type " + std::to_string(info.element_type)
                                                                         : type->second.name) +
                                     " " + text_of(info.shape);
            if (!arrived.emplace(info.name, description).second) {
                refuse(kind + " " + quote_name(info.name) + " is declared twice; expected once");
            }
        }
        for (const auto &spec : specs) expected[spec.name] = describe_tensor(spec);
        for (const auto &spec : specs) check(spec.name);
        for (const auto &info : found) check(info.name);
    }

    static void check_count(std::size_t count, std::int64_t limit, const char *what) {
        if (count > static_cast<std::size_t>(limit)) {
            refuse(std::to_string(count) + " " + what + "; expected at most " + text_of(limit));
        }
    }

    void read_initializers(const WireMessage &graph) {
        const auto &spans = WireReader::values(graph, "initializer");
        check_count(spans.size(), rules_.max_tensors, "initializers");
        for (const auto &value : spans) {
            auto tensor = reader_.message(value.span, "tensor", "an initializer");
            const auto name = name_of(reader_.text(tensor, "name"), "an initializer");
            if (name.empty()) refuse("an initializer without a name; expected a name");
            const auto where = "initializer " + quote_name(name);
            auto constant = read_tensor(std::move(tensor), where, true);
            define(name, constant.shape, where);
            constants_.emplace(name, std::move(constant));
        }
        if (data_bytes_ && *data_bytes_ > read_bytes_ + kMaxUnreadBytes) {
            refuse(quote_name(data_name_) + " is listed with " + text_of(*data_bytes_) + " bytes, but the graph reads " +
                   text_of(read_bytes_) + " of them; expected no more than it reads");
        }
    }

    // Check a tensor that the graph holds: its numbers must be there, as many as its shape states.
    Constant read_tensor(WireMessage tensor, const std::string &where, bool external) {
        Constant constant;
        constant.element_type = WireReader::number(tensor, "data_type");
        const auto type = rules_.element_types.find(constant.element_type);
        if (type == rules_.element_types.end()) {
            refuse(where + " has the element type " + std::to_string(constant.element_type) + "; expected numbers");
        }
        constant.shape = reader_.numbers(tensor, "dims", rules_.max_rank, where);
        check_sides(constant.shape, where);
        const auto elements = num_elements(constant.shape);
        const auto num_bytes = saturated_product(elements, type->second.bits / 8);
        const char *list = nullptr;
        std::size_t sources = 0;
        for (const char *name : kLists) {
            if (!tensor.contains(name)) continue;
            if (list == nullptr) list = name;
            ++sources;
        }
        const bool is_external = tensor.contains("external_data");
        sources += tensor.contains("raw_data") + is_external;
        const auto location = WireReader::number(tensor, "data_location");
        if (location > 1 || (location == 1) != is_external) {
            refuse(where + " states another place of its data than it has; expected one place");
        }
        if (sources > 1 || (sources == 0 && elements != 0)) {
            refuse(where + " has data in " + std::to_string(sources) + " places; expected one");
        }
        if (is_external) {
            if (!external) refuse(where + " is in another file; expected its data in the graph");
            check_external(tensor, where, num_bytes);
            return constant;
        }
        std::int64_t arrived = 0, expected = num_bytes;
        const char *unit = "bytes";
        if (list != nullptr) {
            const auto &field = type->second.field;
            if (field != list) refuse(where + " has data in '" + list + "'; expected '" + field + "'");
            arrived = reader_.count(tensor, field, field == "float_data" ? 4 : field == "double_data" ? 8 : 0);
            expected = elements;
            unit = "numbers";
        } else {
            arrived = static_cast<std::int64_t>(reader_.text(tensor, "raw_data").size());
        }
        if (arrived != expected) {
            refuse(where + " holds " + text_of(arrived) + " " + unit + "; expected " + text_of(expected) + " for " +
                   text_of(constant.shape));
        }
        constant.message = std::move(tensor);
        return constant;
    }

    void check_external(const WireMessage &tensor, const std::string &where, std::int64_t num_bytes) {
        std::map<std::string, std::string_view, std::less<>> entries;
        for (const auto &value : WireReader::values(tensor, "external_data")) {
            const auto entry = reader_.message(value.span, "external_data", where);
            const auto key = reader_.text(entry, "key");
            const bool is_known = key == "location" || key == "offset" || key == "length";
            if (!is_known || !entries.emplace(key, reader_.text(entry, "value")).second) {
                refuse(where + " has the entry " + quote_name(key) + "; expected location, offset and length");
            }
        }
        const auto location = entries["location"];
        if (!data_bytes_) {
            refuse(where + " reads the file " + quote_name(location) + "; expected its data in the graph");
        }
        if (location != data_name_) {
            refuse(where + " reads the file " + quote_name(location) + "; expected " + quote_name(data_name_) + " only");
        }
        const auto bytes = [&](const char *key) {
            const auto text = entries[key];
            const auto value = digits(text);
            if (!value) refuse(where + " has the " + key + " " + quote_name(text) + "; expected a number of bytes");
            return *value;
        };
        const auto offset = bytes("offset"), length = bytes("length");
        if (length != num_bytes) {
            refuse(where + " reads " + text_of(length) + " bytes; expected " + text_of(num_bytes));
        }
        if (offset > *data_bytes_ || length > *data_bytes_ - offset) {
            refuse(where + " reads up to byte " +
                   std::to_string(static_cast<std::uint64_t>(offset) + static_cast<std::uint64_t>(length)) +
                   "; expected at most " + text_of(*data_bytes_) + ", the listed size of " + data_name_);
        }
        read_bytes_ = std::max(read_bytes_, offset + length);
    }

    std::vector<Node> read_nodes(const WireMessage &graph) {
        const auto &spans = WireReader::values(graph, "node");
        check_count(spans.size(), rules_.max_nodes, "nodes");
        std::vector<Node> nodes;
        for (std::size_t i = 0; i < spans.size(); ++i) nodes.push_back(read_node(spans[i].span, i));
        return nodes;
    }

    Node read_node(Span span, std::size_t index) {
        const auto number = "node " + std::to_string(index);
        const auto message = reader_.message(span, "node", number);
        const auto name = reader_.text(message, "name"), op_type = reader_.text(message, "op_type");
        Node node;
        node.where = name.empty() ? number : "node " + quote_name(name);
        (void)name_of(name, number);
        if (const auto domain = reader_.text(message, "domain"); !domain.empty()) {
            refuse(node.where + " is of the domain " + quote_name(domain) + "; expected the standard one only");
        }
        const auto op = rules_.operators.find(std::string(op_type));
        if (op == rules_.operators.end()) {
            refuse(node.where + " is the operator " + quote_name(op_type) +
                   "; expected operators that only compute on tensors");
        }
        node.op = &op->second;
        node.where += " (" + std::string(op_type) + ")";
        const auto limit = static_cast<std::size_t>(rules_.max_node_inputs);
        for (const auto &value : WireReader::values(message, "input")) {
            node.inputs.emplace_back(reader_.text(value.span));
        }
        for (const auto &value : WireReader::values(message, "output")) {
            node.outputs.emplace_back(reader_.text(value.span));
        }
        if (node.inputs.size() > limit || node.outputs.size() > limit) {
            refuse(node.where + " has more than " + std::to_string(limit) + " inputs or outputs; expected fewer");
        }
        while (node.outputs.size() > 1 && node.outputs.back().empty()) node.outputs.pop_back();
        const bool has_gap = std::find(node.outputs.begin(), node.outputs.end(), "") != node.outputs.end();
        if (node.outputs.empty() || has_gap || (node.outputs.size() > 1 && node.op->shape != "split")) {
            refuse(node.where + " has " + std::to_string(node.outputs.size()) + " outputs; expected one");
        }
        for (const auto &value : WireReader::values(message, "attribute")) {
            auto attribute = read_attribute(value.span, node.where);
            const auto known = node.op->attributes.find(attribute.name);
            if (known == node.op->attributes.end() || known->second != attribute.kind) {
                refuse(node.where + " has the attribute " + quote_name(attribute.name) + " of kind " + attribute.kind +
                       "; expected those of its operator");
            }
            const auto key = attribute.name;
            const auto tensor = attribute.tensor;
            if (!node.attributes.emplace(key, std::move(attribute)).second) {
                refuse(node.where + " states the attribute " + quote_name(key) + " twice; expected once");
            }
            if (tensor && node.op->shape != "constant") check_attribute_tensor(*tensor, node.where);
        }
        return node;
    }

    Attribute read_attribute(Span span, const std::string &node) {
        const auto where = "an attribute of " + node;
        const auto message = reader_.message(span, "attribute", where);
        Attribute attribute;
        attribute.name = name_of(reader_.text(message, "name"), where);
        const auto kind = kind_of(WireReader::number(message, "type"));
        const std::string_view field = kind.field;
        attribute.kind = kind.name;
        bool is_right = !field.empty() && (field != "t" || message.contains("t"));
        for (const char *other : kValues) is_right = is_right && (field == other || !message.contains(other));
        if (!is_right) refuse(where + " has another value than its kind; expected one of its kind");
        const auto limit = rules_.max_attribute_values;
        if (field == "i") {
            attribute.value.integer = static_cast<std::int64_t>(WireReader::number(message, "i"));
        } else if (field == "s") {
            attribute.value.text = reader_.text(message, "s");
        } else if (field == "ints") {
            attribute.value.integers = reader_.numbers(message, "ints", limit, where);
        } else if (field == "t") {
            attribute.tensor = *WireReader::span(message, "t");
        } else if (field == "floats") {
            attribute.value.integer = reader_.count(message, "floats", 4);
            if (attribute.value.integer > limit) {
                refuse(where + " has more than " + text_of(limit) + " numbers in 'floats'; expected fewer");
            }
        }
        return attribute;
    }

    // Compute all shapes in the order of the nodes, with the steps and the tensors that are alive at once.
    void check_nodes(const std::vector<Node> &nodes) {
        // Libraries compute tensors that depend on constants only when they load the graph, and keep them.
        std::unordered_set<std::string> constant;
        for (const auto &[name, value] : constants_) constant.insert(name);
        std::unordered_map<std::string, std::size_t> last_uses;
        for (std::size_t i = 0; i < nodes.size(); ++i) {
            for (const auto &name : nodes[i].inputs) last_uses[name] = i;
            for (const auto &name : nodes[i].outputs) last_uses[name] = i;
        }
        for (const auto &spec : contract_.outputs()) last_uses[spec.name] = nodes.size();
        const auto max_live = rules_.live_elements.at(pixels_), max_steps = rules_.operations.at(pixels_);
        std::int64_t live = 0, steps = 0;
        for (std::size_t i = 0; i < nodes.size(); ++i) {
            const auto &node = nodes[i];
            const auto result = infer(node);
            const bool is_constant = std::all_of(node.inputs.begin(), node.inputs.end(), [&](const auto &name) {
                return name.empty() || constant.contains(name);
            });
            if (is_constant) constant.insert(node.outputs.begin(), node.outputs.end());
            // Neither sum overflows: the limits and each element count are below 2^60.
            steps += std::min(result.steps, max_steps + 1);
            for (std::size_t k = 0; k < node.outputs.size(); ++k) {
                define(name_of(node.outputs[k], node.where), result.shapes[k], node.where);
                live += num_elements(result.shapes[k]);
            }
            if (live > max_live) over(node, "tensors of " + text_of(live) + " elements at once", max_live);
            if (steps > max_steps) over(node, "a sum of " + text_of(steps) + " operations", max_steps);
            std::unordered_set<std::string> names(node.inputs.begin(), node.inputs.end());
            names.insert(node.outputs.begin(), node.outputs.end());
            for (const auto &name : names) {
                if (last_uses[name] != i || name.empty() || constant.contains(name) || is_input(name)) continue;
                live -= num_elements(shapes_.at(name));
            }
        }
    }

    static bool is_input(const std::string &name) {
        return std::find(kInputs.begin(), kInputs.end(), name) != kInputs.end();
    }

    [[noreturn]] void over(const Node &node, const std::string &what, std::int64_t limit) const {
        refuse(node.where + " reaches " + what + "; expected at most " + text_of(limit) + " for " + text_of(pixels_) +
               " pixels");
    }

    ShapeResult infer(const Node &node) {
        if (node.op->shape == "constant") return {{constant_node(node)}, 0};
        Operands operands;
        for (const auto &name : node.inputs) {
            if (name.empty()) {  // an input that is absent
                operands.shapes.push_back(nullptr);
                continue;
            }
            const auto found = shapes_.find(name);
            if (found == shapes_.end()) {
                refuse(node.where + " reads " + quote_name(name) + "; expected a tensor that is there before it");
            }
            operands.shapes.push_back(&found->second);
        }
        for (const auto &[name, attribute] : node.attributes) operands.attributes[name] = &attribute.value;
        operands.integers = [&](std::size_t index) { return integers(node, index); };
        operands.floats = [&](std::size_t index) { return floats(node, index); };
        operands.num_outputs = node.outputs.size();
        try {
            auto result = infer_shapes(node.op->shape, operands);
            if (result.shapes.size() != node.outputs.size()) {
                refuse(node.where + " has " + std::to_string(node.outputs.size()) + " outputs; expected " +
                       std::to_string(result.shapes.size()));
            }
            return result;
        } catch (const ShapeError &) {
            std::string given = "[";
            for (const auto *shape : operands.shapes) {
                given += (given.size() > 1 ? ", " : "") + (shape == nullptr ? "None" : text_of(*shape));
            }
            refuse(node.where + " has inputs or attributes that do not fit (" +
                   (given + "]").substr(0, kMaxShownShapes) + "); expected valid ONNX");
        } catch (const ComputedError &) {
            refuse(node.where + " takes a size that the graph computes; expected constants, as shapes are fixed");
        }
    }

    // Check the tensor of an attribute other than that of a Constant node: the value of ConstantOfShape.
    void check_attribute_tensor(Span span, const std::string &where) {
        const auto tensor = read_tensor(reader_.message(span, "tensor", where), where, false);
        const auto count = num_elements(tensor.shape);
        if (count != 1) refuse(where + " has a value of " + text_of(count) + " elements; expected one");
    }

    Shape constant_node(const Node &node) {
        const Attribute *value = nullptr;
        std::size_t count = 0;
        for (const char *name : kConstantValues) {
            const auto found = node.attributes.find(name);
            if (found == node.attributes.end()) continue;
            if (value == nullptr) value = &found->second;
            ++count;
        }
        if (count != 1 || !node.inputs.empty()) {
            refuse(node.where + " has " + std::to_string(count) + " values; expected one");
        }
        Constant constant;
        if (value->tensor) {
            constant = read_tensor(reader_.message(*value->tensor, "tensor", node.where), node.where, false);
        } else if (value->name == "value_ints") {
            constant.shape = {std::ssize(value->value.integers)};
            constant.element_type = kInt64;
            constant.values = value->value.integers;
        } else if (value->name == "value_floats") {
            constant.shape = {value->value.integer};
        } else if (value->name == "value_int") {
            constant.element_type = kInt64;
            constant.values = {value->value.integer};
        }
        auto shape = constant.shape;
        constants_.insert_or_assign(node.outputs[0], std::move(constant));
        return shape;
    }

    // A constant input of at most one axis.
    const Constant &constant_input(const Node &node, std::size_t index) const {
        const auto found = index < node.inputs.size() ? constants_.find(node.inputs[index]) : constants_.end();
        if (found == constants_.end()) throw ComputedError();
        const auto &constant = found->second;
        if (constant.shape.size() > 1 || num_elements(constant.shape) > kMaxConstantValues) throw ShapeError();
        return constant;
    }

    std::vector<std::int64_t> integers(const Node &node, std::size_t index) const {
        const auto &constant = constant_input(node, index);
        if (constant.element_type != kInt32 && constant.element_type != kInt64) throw ComputedError();
        if (!constant.message) {
            if (!constant.values || std::ssize(*constant.values) != num_elements(constant.shape)) {
                throw ComputedError();
            }
            return *constant.values;
        }
        if (!constant.message->contains("raw_data")) {
            const bool is_short = constant.element_type == kInt32;
            auto values = reader_.numbers(*constant.message, is_short ? "int32_data" : "int64_data",
                                          kMaxConstantValues, node.where);
            for (auto value : values) {
                if (is_short && (value < -kMaxSide || value > kMaxSide)) throw ShapeError();
            }
            return values;
        }
        const auto raw = reader_.text(*constant.message, "raw_data");
        std::vector<std::int64_t> values(static_cast<std::size_t>(num_elements(constant.shape)));
        for (std::size_t i = 0; i < values.size(); ++i) {
            if (constant.element_type == kInt64) {
                std::memcpy(&values[i], raw.data() + 8 * i, 8);
            } else {
                std::int32_t value = 0;
                std::memcpy(&value, raw.data() + 4 * i, 4);
                values[i] = value;
            }
        }
        return values;
    }

    std::vector<float> floats(const Node &node, std::size_t index) const {
        const auto &constant = constant_input(node, index);
        if (constant.element_type != kFloat32 || !constant.message) throw ComputedError();
        std::string raw(reader_.text(*constant.message, "raw_data"));
        for (const auto &value : WireReader::values(*constant.message, "float_data")) raw += reader_.text(value.span);
        std::vector<float> values(static_cast<std::size_t>(num_elements(constant.shape)));
        if (!values.empty()) std::memcpy(values.data(), raw.data(), values.size() * sizeof(float));
        return values;
    }
};

}  // namespace

void check_graph(std::string_view data, const Contract &contract, const std::string &graph_name,
                 const std::string &data_name, std::optional<std::int64_t> data_bytes) {
    GraphCheck(data, contract, data_name, data_bytes).run(graph_name);
}

}  // namespace tcmoa
