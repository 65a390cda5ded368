// The graph contract: names, types and shapes of the tensors on which the exporter, the backends and this library
// agree. tcmoa_runtime/contract.py is the same table in Python.
//
//   x, y                        uint8   [B, H, W, 3 or 1]
//   prompt_scale, prompt_shift  float32 [B, gh, gw]
//   fused                       uint8   [B, H, W, 3]
//   prompt (optional output)    float32 [B, K, 2, gh, gw]
//
// A network that was wrapped (`tcmoa wrap`) has no prompt. If it stretches S pictures by their own minimum and maximum:
//
//   held_extremes               float32 [B, S, 2]   what to use; minimum > maximum: the pictures' own
//   extremes (output)           float32 [B, S, 2]
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tcmoa {

inline constexpr const char *kX = "x";
inline constexpr const char *kY = "y";
inline constexpr const char *kScale = "prompt_scale";
inline constexpr const char *kShift = "prompt_shift";
inline constexpr const char *kFused = "fused";
inline constexpr const char *kPrompt = "prompt";
inline constexpr const char *kHeldExtremes = "held_extremes";
inline constexpr const char *kExtremes = "extremes";

// Maximum magnitude of alpha and beta: above it 16-bit arithmetic may overflow. Smaller values destroy the image already.
inline constexpr float kMaxPrompt = 16.0F;

enum class ElementType { uint8, float32 };

// Name, element type and static shape of an input or output.
struct TensorSpec {
    std::string name;
    ElementType type;
    std::vector<std::int64_t> shape;

    [[nodiscard]] std::size_t num_elements() const {
        std::size_t count = 1;
        for (auto side : shape) count *= static_cast<std::size_t>(side);
        return count;
    }
    [[nodiscard]] std::size_t num_bytes() const {
        return num_elements() * (type == ElementType::uint8 ? 1 : sizeof(float));
    }
};

// "uint8" or "float32".
const char *name_of(ElementType type);

// Type and shape for messages, e.g. "uint8 [1, 480, 640, 3]".
std::string describe_tensor(std::string_view type, const std::vector<std::int64_t> &shape);
std::string describe_tensor(const TensorSpec &spec);

struct Contract {
    std::int64_t height = 0, width = 0;
    std::int64_t grid_height = 0, grid_width = 0;  // gh, gw
    std::int64_t num_prompts = 0;                  // K
    std::int64_t batch = 1;
    std::int64_t x_channels = 3, y_channels = 3;
    bool with_prompt = false;
    bool with_control = true;    // false: a wrapped network, which has no prompt, and a grid of 0x0
    std::int64_t stretches = 0;  // S, the pictures that a wrapped network stretches by their own extremes

    [[nodiscard]] std::vector<TensorSpec> inputs() const;   // x, y, prompt_scale, prompt_shift, held_extremes
    [[nodiscard]] std::vector<TensorSpec> outputs() const;  // fused, prompt, extremes
    [[nodiscard]] std::size_t num_tokens() const { return static_cast<std::size_t>(grid_height * grid_width); }
};

// An input or output of a graph or an engine as a backend reports it.
struct ReportedTensor {
    std::string name, description;  // of describe_tensor(), or other text that no tensor of the contract has
};

// Let a network stretch each picture by its own extremes: minimum 1 and maximum 0, float32 [B, S, 2].
void fill_own_extremes(std::span<float> held);

// Throw Error (TCMOA_ERROR_BUNDLE) unless the reported tensors are the expected ones, in any order.
//
// kind: "input" or "output". subject, remedy: of the error.
void check_tensors(std::string_view kind, const std::vector<ReportedTensor> &reported,
                   const std::vector<TensorSpec> &expected, std::string_view subject, std::string_view remedy);

}  // namespace tcmoa
