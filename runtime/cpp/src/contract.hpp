// The graph contract, as tcmoa_runtime/contract.py has it: the one seam between exporter, backends and this library.
//
//   x, y                        uint8   [B, H, W, 3 or 1]
//   prompt_scale, prompt_shift  float32 [B, gh, gw]
//   fused                       uint8   [B, H, W, 3]
//   prompt (optional output)    float32 [B, K, 2, gh, gw]
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tcmoa {

inline constexpr const char *kX = "x";
inline constexpr const char *kY = "y";
inline constexpr const char *kScale = "prompt_scale";
inline constexpr const char *kShift = "prompt_shift";
inline constexpr const char *kFused = "fused";
inline constexpr const char *kPrompt = "prompt";

enum class Element { uint8, float32 };

// Name, element type and static shape of one input or output.
struct TensorSpec {
    std::string name;
    Element element;
    std::vector<std::int64_t> shape;

    [[nodiscard]] std::size_t elements() const {
        std::size_t count = 1;
        for (auto side : shape) count *= static_cast<std::size_t>(side);
        return count;
    }
    [[nodiscard]] std::size_t bytes() const { return elements() * (element == Element::uint8 ? 1 : sizeof(float)); }
    bool operator==(const TensorSpec &) const = default;
};

// As `uint8 [1, 480, 640, 3]`, for messages.
std::string shown(const TensorSpec &spec);

struct Contract {
    std::int64_t height = 0, width = 0;
    std::int64_t grid_height = 0, grid_width = 0;
    std::int64_t prompts = 0;
    std::int64_t batch = 1;
    std::int64_t x_channels = 3, y_channels = 3;
    bool with_prompt = false;

    [[nodiscard]] std::vector<TensorSpec> inputs() const;   // x, y, prompt_scale, prompt_shift
    [[nodiscard]] std::vector<TensorSpec> outputs() const;  // fused and, where exported, prompt
    [[nodiscard]] std::size_t tokens() const { return static_cast<std::size_t>(grid_height * grid_width); }
};

}  // namespace tcmoa
