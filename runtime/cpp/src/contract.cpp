#include "contract.hpp"

#include <algorithm>

#include "error.hpp"

namespace tcmoa {

const char *name_of(ElementType type) { return type == ElementType::uint8 ? "uint8" : "float32"; }

std::string describe_tensor(std::string_view type, const std::vector<std::int64_t> &shape) {
    std::string text = std::string(type) + " [";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i != 0 ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

std::string describe_tensor(const TensorSpec &spec) { return describe_tensor(name_of(spec.type), spec.shape); }

std::vector<TensorSpec> Contract::inputs() const {
    std::vector<TensorSpec> specs{
        {kX, ElementType::uint8, {batch, height, width, x_channels}},
        {kY, ElementType::uint8, {batch, height, width, y_channels}},
    };
    if (with_control) {
        specs.push_back({kScale, ElementType::float32, {batch, grid_height, grid_width}});
        specs.push_back({kShift, ElementType::float32, {batch, grid_height, grid_width}});
    }
    if (stretches != 0) specs.push_back({kHeldExtremes, ElementType::float32, {batch, stretches, 2}});
    return specs;
}

std::vector<TensorSpec> Contract::outputs() const {
    std::vector<TensorSpec> specs{{kFused, ElementType::uint8, {batch, height, width, 3}}};
    if (with_prompt) {
        specs.push_back({kPrompt, ElementType::float32, {batch, num_prompts, 2, grid_height, grid_width}});
    }
    if (stretches != 0) specs.push_back({kExtremes, ElementType::float32, {batch, stretches, 2}});
    return specs;
}

void fill_own_extremes(std::span<float> held) {
    for (std::size_t i = 0; i < held.size(); ++i) held[i] = i % 2 == 0 ? 1.0F : 0.0F;
}

void check_tensors(std::string_view kind, const std::vector<ReportedTensor> &reported,
                   const std::vector<TensorSpec> &expected, std::string_view subject, std::string_view remedy) {
    const auto check = [&](const std::string &name, const std::string &actual, const std::string &required) {
        if (actual == required) return;
        fail_bundle(subject,
                    std::string(kind) + " '" + printable(name) + "' is " + actual + "; expected " + required +
                        " as in bundle.json",
                    remedy);
    };
    for (const auto &spec : expected) {
        const auto found = std::find_if(reported.begin(), reported.end(),
                                        [&](const ReportedTensor &tensor) { return tensor.name == spec.name; });
        check(spec.name, found == reported.end() ? "absent" : found->description, describe_tensor(spec));
    }
    for (const auto &tensor : reported) {
        const auto is_expected = [&](const TensorSpec &spec) { return spec.name == tensor.name; };
        if (std::none_of(expected.begin(), expected.end(), is_expected)) {
            check(tensor.name, tensor.description, "absent");
        }
    }
}

}  // namespace tcmoa
