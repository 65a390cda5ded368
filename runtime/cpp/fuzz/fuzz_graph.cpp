// Fuzzes the check of a graph: ONNX files for a bundle of 48x32 pixels whose weights may be in a file of 64 bytes. The only
// allowed error is GraphError with a message of one line of printable characters.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "graph_check.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char *>(data), size);
    const tcmoa::Contract contract{.height = 32, .width = 48, .grid_height = 2, .grid_width = 3, .num_prompts = 2,
                                   .batch = 1, .x_channels = 3, .y_channels = 3, .with_prompt = false};
    try {
        tcmoa::check_graph(bytes, contract, "tcmoa_hostile", "fusion.data", 64);
    } catch (const tcmoa::GraphError &error) {
        const std::string_view line = error.what();
        if (line.empty()) std::abort();
        for (char c : line) {
            if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) std::abort();
        }
    }
    return 0;
}
