#include "graph_rules.hpp"

#include <algorithm>
#include <limits>

#include <nlohmann/json.hpp>

#include "graph_rules_json.hpp"

namespace tcmoa {
namespace {

using Json = nlohmann::json;

Wire wire_of(const std::string &name) {
    if (name == "varint") return Wire::varint;
    if (name == "fixed32") return Wire::fixed32;
    if (name == "fixed64") return Wire::fixed64;
    return Wire::bytes;
}

GraphFields fields_of(const Json &message) {
    GraphFields fields;
    for (const auto &[number, entry] : message.items()) {
        const GraphField field{entry.value("name", ""), entry.value("refused", ""),
                               wire_of(entry.value("wire", "bytes")), entry.value("repeated", false)};
        const std::uint64_t tag = std::stoull(number) << 3;
        if (!field.refused.empty()) {
            for (auto wire : {Wire::varint, Wire::fixed64, Wire::bytes, Wire::fixed32}) {
                fields[tag | static_cast<std::uint64_t>(wire)] = field;
            }
            continue;
        }
        fields[tag | static_cast<std::uint64_t>(field.wire)] = field;
        if (field.repeated) fields[tag | static_cast<std::uint64_t>(Wire::bytes)] = field;  // packed
    }
    return fields;
}

GraphLimit limit_of(const Json &limits, const char *name) {
    const auto &limit = limits.at(name);
    return {limit.at("total"), limit.at("per_pixel"), limit.at("floor")};
}

GraphRules parse() {
    const auto json = Json::parse(kGraphRulesJson);
    const auto &limits = json.at("limits");
    GraphRules rules;
    rules.min_ir_version = json.at("ir_version").at(0);
    rules.max_ir_version = json.at("ir_version").at(1);
    rules.min_opset = json.at("opset").at(0);
    rules.max_opset = json.at("opset").at(1);
    rules.max_fields = limits.at("fields");
    rules.max_nodes = limits.at("nodes");
    rules.max_tensors = limits.at("tensors");
    rules.max_node_inputs = limits.at("node_inputs");
    rules.max_attribute_values = limits.at("attribute_values");
    rules.max_name_bytes = limits.at("name_bytes");
    rules.max_rank = limits.at("rank");
    rules.elements = limit_of(limits, "elements");
    rules.live_elements = limit_of(limits, "live_elements");
    rules.operations = limit_of(limits, "operations");
    for (const auto &[number, entry] : json.at("element_types").items()) {
        rules.element_types[std::stoull(number)] = {entry.at("name"), entry.at("bits"), entry.at("field")};
    }
    for (const auto &[name, message] : json.at("messages").items()) rules.messages[name] = fields_of(message);
    for (const auto &[name, entry] : json.at("operators").items()) {
        GraphOperator described{entry.at("shape"), {}};
        for (const auto &[key, kind] : entry.at("attributes").items()) described.attributes[key] = kind;
        rules.operators[name] = std::move(described);
    }
    return rules;
}

}  // namespace

std::int64_t saturated_product(std::int64_t a, std::int64_t b) {
    std::int64_t product = 0;
    return __builtin_mul_overflow(a, b, &product) ? std::numeric_limits<std::int64_t>::max() : product;
}

std::int64_t GraphLimit::at(std::int64_t pixels) const {
    return std::min(total, std::max(floor, saturated_product(per_pixel, pixels)));
}

const GraphRules &graph_rules() {
    static const GraphRules rules = parse();
    return rules;
}

}  // namespace tcmoa
