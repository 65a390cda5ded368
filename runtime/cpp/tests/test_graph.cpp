// Checking graphs: faults that only the check of bytes sees. tests/hostile has the others, for Python and libtcmoa.
#include <catch2/catch.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graph_check.hpp"

using namespace tcmoa;
using Catch::Matchers::Equals;

namespace {

constexpr std::int64_t kMiB = 1 << 20;
constexpr std::uint64_t kFloat = 1, kUint8 = 2, kInt64 = 7;

std::string varint(std::uint64_t value) {
    std::string bytes;
    for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
    return bytes + static_cast<char>(value);
}

std::string number(std::uint64_t field, std::uint64_t value) { return varint(field << 3) + varint(value); }
std::string blob(std::uint64_t field, const std::string &data) {
    return varint(field << 3 | 2) + varint(data.size()) + data;
}

std::string tensor(const std::string &name, const std::vector<std::uint64_t> &dims, std::uint64_t type,
                   const std::string &data) {
    std::string bytes;
    for (auto side : dims) bytes += number(1, side);
    return bytes + number(2, type) + blob(8, name) + data;
}

std::string raw(const std::string &data) { return blob(9, data); }

std::string integers(const std::string &name, const std::vector<std::int64_t> &values) {
    const std::string data(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(std::int64_t));
    return tensor(name, {values.size()}, kInt64, raw(data));
}

// A vector of four numbers that begins at `offset` of the file with weights.
std::string external(const std::string &offset) {
    std::string bytes;
    for (const auto &[key, value] : {std::pair<std::string, std::string>{"location", "fusion.data"},
                                     {"offset", offset}, {"length", "16"}}) {
        bytes += blob(13, blob(1, key) + blob(2, value));
    }
    return bytes + number(14, 1);
}

std::string node(const std::string &op, const std::vector<std::string> &inputs, const std::string &output,
                 const std::string &attributes = "") {
    std::string bytes;
    for (const auto &name : inputs) bytes += blob(1, name);
    return bytes + blob(2, output) + blob(3, output) + blob(4, op) + attributes;
}

std::string value_attribute(const std::string &value) {
    return blob(5, blob(1, "value") + blob(5, value) + number(20, 4));
}

std::string value_info(const std::string &name, const std::vector<std::int64_t> &shape, std::uint64_t type = kFloat) {
    std::string dims;
    for (auto side : shape) dims += blob(1, number(1, static_cast<std::uint64_t>(side)));
    return blob(1, name) + blob(2, blob(1, number(1, type) + blob(2, dims)));
}

std::string value_info(const TensorSpec &spec) {
    return value_info(spec.name, spec.shape, spec.type == ElementType::uint8 ? kUint8 : kFloat);
}

const Contract kContract{.height = 32, .width = 48, .grid_height = 2, .grid_width = 3, .num_prompts = 2, .batch = 1,
                         .x_channels = 3, .y_channels = 3, .with_prompt = false};

// What a graph holds besides nodes that compute the outputs.
struct Parts {
    std::vector<std::string> nodes{}, initializers{}, inputs{};
    std::string first{};  // a field of the model
};

std::string graph(const Parts &parts) {
    std::string bytes;
    for (const auto &part : parts.nodes) bytes += blob(1, part);
    for (const auto &spec : kContract.outputs()) bytes += blob(1, node("Relu", {kContract.inputs()[0].name}, spec.name));
    bytes += blob(2, "test");
    for (const auto &part : parts.initializers) bytes += blob(5, part);
    for (const auto &spec : kContract.inputs()) bytes += blob(11, value_info(spec));
    for (const auto &part : parts.inputs) bytes += blob(11, part);
    for (const auto &spec : kContract.outputs()) bytes += blob(12, value_info(spec));
    return parts.first + number(1, 8) + blob(7, bytes) + blob(8, number(2, 18));
}

// The problem of a graph, empty if there is none.
std::string problem(const std::string &data, std::optional<std::int64_t> data_bytes = std::nullopt) {
    try {
        check_graph(data, kContract, "test", "fusion.data", data_bytes);
    } catch (const GraphError &error) {
        return error.what();
    }
    return "";
}

std::string problem(const Parts &parts) { return problem(graph(parts)); }

const std::string kOneFloat = tensor("", {1}, kFloat, raw(std::string(4, '\0')));

}  // namespace

TEST_CASE("a graph that is another format too is refused") {
    const std::string expected = "the file can be read as another format than ONNX; expected an ONNX graph only";
    const auto producer = [](const std::string &name) { return Parts{.first = blob(2, name)}; };
    REQUIRE_THAT(problem(Parts{}), Equals(""));
    CHECK_THAT(problem(producer("pytorch")), Equals(""));
    CHECK_THAT(problem(producer("a <net name='x'>")), Equals(expected));
    CHECK_THAT(problem(producer(std::string(4096, ' ') + "<net")), Equals(""));
    CHECK_THAT(problem(producer("  ORTM")), Equals(expected));
    CHECK_THAT(problem(producer("  TFL3")), Equals(expected));
    CHECK_THAT(problem(producer("   ORTM")), Equals(""));
}

TEST_CASE("tensors of all attributes are checked") {
    const auto filled = [](const std::string &value) {
        return problem(Parts{.nodes = {node("ConstantOfShape", {"sides"}, "c", value_attribute(value))},
                             .initializers = {integers("sides", {2, 2})}});
    };
    REQUIRE_THAT(filled(kOneFloat), Equals(""));
    CHECK_THAT(filled(tensor("", {2}, kFloat, raw(std::string(8, '\0')))),
               Equals("node 'c' (ConstantOfShape) has a value of 2 elements; expected one"));
    CHECK_THAT(filled(tensor("", {0}, kFloat, raw(""))),
               Equals("node 'c' (ConstantOfShape) has a value of 0 elements; expected one"));
    CHECK_THAT(filled(tensor("", {4}, kFloat, external("0"))),
               Equals("node 'c' (ConstantOfShape) is in another file; expected its data in the graph"));
    CHECK_THAT(filled(tensor("", {1}, 8, "")), Equals("node 'c' (ConstantOfShape) has the element type 8; expected numbers"));
}

TEST_CASE("an empty name means that an input is absent, and names no tensor") {
    CHECK_THAT(problem(Parts{.initializers = {tensor("", {1}, kFloat, raw("1234"))}}),
               Equals("an initializer without a name; expected a name"));
    CHECK_THAT(problem(Parts{.inputs = {value_info("", {1})}}), Equals("an input without a name; expected a name"));
    CHECK_THAT(problem(Parts{.nodes = {node("Relu", {""}, "c")}}),
               Equals("node 'c' (Relu) has inputs or attributes that do not fit ([None]); expected valid ONNX"));
}

TEST_CASE("what depends on constants only stays in memory") {
    // Each adds a tensor of a million elements, which only the next node reads.
    const auto chain = [](const std::string &first_input) {
        Parts parts{.initializers = {integers("sides", {200, 1000, 2, 3}), tensor("one", {1}, kFloat, raw("1234"))}};
        parts.nodes.push_back(node("Expand", {first_input, "sides"}, "t0"));
        for (int i = 1; i < 400; ++i) {
            parts.nodes.push_back(node("Relu", {"t" + std::to_string(i - 1)}, "t" + std::to_string(i)));
        }
        return problem(parts);
    };
    CHECK_THAT(chain("one"), Catch::Contains("elements at once; expected at most "));
    CHECK_THAT(chain(kContract.inputs()[2].name), Equals(""));
}

TEST_CASE("weights are listed with as many bytes as the graph reads") {
    const auto weights = graph(Parts{.initializers = {tensor("w", {4}, kFloat, external("48"))}});
    CHECK_THAT(problem(weights, 64), Equals(""));
    CHECK_THAT(problem(weights, 64 + kMiB), Equals(""));
    CHECK_THAT(problem(weights, 65 + kMiB),
               Equals("'fusion.data' is listed with 1048641 bytes, but the graph reads 64 of them; expected no more than "
                      "it reads"));
    CHECK_THAT(problem(weights, 63), Equals("initializer 'w' reads up to byte 64; expected at most 63, the listed size of "
                                            "fusion.data"));
}
