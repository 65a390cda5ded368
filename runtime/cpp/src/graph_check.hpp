// Checking the graph of a bundle before a library sees it; see tcmoa_runtime/graph/check.py, which refuses the same.
//
// A graph that passes holds only the operators of graph_rules.json in the standard domain, reads no other file than the
// listed weights and only within their size, has the inputs and outputs of the contract, and has fixed shapes whose
// tensors, tensors alive at once and steps of computing stay below limits that grow with the frames.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "contract.hpp"
#include "graph_wire.hpp"

namespace tcmoa {

// Largest ONNX file: protocol buffers are limited to 2 GiB.
inline constexpr std::int64_t kMaxGraphBytes = 2147483647;

// Check the bytes of an ONNX file. Throws GraphError.
//
// graph_name: the graph's name in bundle.json. data_name: the file with weights that the graph may read. data_bytes: its
// listed size, if the bundle has it.
void check_graph(std::string_view data, const Contract &contract, const std::string &graph_name,
                 const std::string &data_name, std::optional<std::int64_t> data_bytes);

}  // namespace tcmoa
