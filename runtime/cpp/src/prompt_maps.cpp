#include "prompt_maps.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "error.hpp"

namespace tcmoa {
namespace {

constexpr float kMaxPrompt = 16.0F;  // above it the image is destroyed, and 16-bit arithmetic may overflow

void check_values(const float *values, std::size_t count, const char *name) {
    for (std::size_t i = 0; i < count; ++i) {
        if (std::abs(values[i]) <= kMaxPrompt) continue;  // false for NaN
        char text[32];
        std::snprintf(text, sizeof text, "%g", static_cast<double>(values[i]));
        fail_input(name, std::string(text) + "; expected values from -16 to 16");
    }
}

}  // namespace

PromptMaps::PromptMaps(const Contract &contract, float scale, float shift)
    : grid_width_(contract.grid_width),
      grid_height_(contract.grid_height),
      scale_(contract.num_tokens(), scale),
      shift_(contract.num_tokens(), shift) {}

void PromptMaps::set(float scale, float shift) {
    check_values(&scale, 1, "scale");
    check_values(&shift, 1, "shift");
    const std::lock_guard guard(lock_);
    std::fill(scale_.begin(), scale_.end(), scale);
    std::fill(shift_.begin(), shift_.end(), shift);
    ++version_;
}

void PromptMaps::set_maps(const float *scale, const float *shift, std::size_t count) {
    check_count(count);
    if (scale != nullptr) check_values(scale, count, "scale");
    if (shift != nullptr) check_values(shift, count, "shift");
    const std::lock_guard guard(lock_);
    if (scale != nullptr) std::copy_n(scale, count, scale_.begin());
    if (shift != nullptr) std::copy_n(shift, count, shift_.begin());
    ++version_;
}

void PromptMaps::get_maps(float *scale, float *shift, std::size_t count) const {
    check_count(count);
    const std::lock_guard guard(lock_);
    if (scale != nullptr) std::copy(scale_.begin(), scale_.end(), scale);
    if (shift != nullptr) std::copy(shift_.begin(), shift_.end(), shift);
}

void PromptMaps::copy_to(const HostTensors &tensors, std::uint64_t &version) const {
    const std::lock_guard guard(lock_);
    if (version == version_) return;
    std::copy(scale_.begin(), scale_.end(), tensors.scale.begin());
    std::copy(shift_.begin(), shift_.end(), tensors.shift.begin());
    version = version_;
}

void PromptMaps::check_count(std::size_t count) const {
    if (count == scale_.size()) return;
    fail_input("count", std::to_string(count) + "; expected " + std::to_string(scale_.size()) + ", the " +
                            std::to_string(grid_width_) + "x" + std::to_string(grid_height_) + " tokens of the bundle");
}

}  // namespace tcmoa
