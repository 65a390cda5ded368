#include "contract.hpp"

namespace tcmoa {

std::string shown(const TensorSpec &spec) {
    std::string text = spec.element == Element::uint8 ? "uint8 [" : "float32 [";
    for (std::size_t i = 0; i < spec.shape.size(); ++i) text += (i ? ", " : "") + std::to_string(spec.shape[i]);
    return text + "]";
}

std::vector<TensorSpec> Contract::inputs() const {
    return {
        {kX, Element::uint8, {batch, height, width, x_channels}},
        {kY, Element::uint8, {batch, height, width, y_channels}},
        {kScale, Element::float32, {batch, grid_height, grid_width}},
        {kShift, Element::float32, {batch, grid_height, grid_width}},
    };
}

std::vector<TensorSpec> Contract::outputs() const {
    std::vector<TensorSpec> specs{{kFused, Element::uint8, {batch, height, width, 3}}};
    if (with_prompt) specs.push_back({kPrompt, Element::float32, {batch, prompts, 2, grid_height, grid_width}});
    return specs;
}

}  // namespace tcmoa
