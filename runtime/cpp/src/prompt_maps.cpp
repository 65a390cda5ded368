#include "prompt_maps.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "error.hpp"

namespace tcmoa {
namespace {


std::string grid_text(FrameSize grid) { return std::to_string(grid.width) + "x" + std::to_string(grid.height); }

void check_values(const float *values, std::size_t count, const char *name) {
    for (std::size_t i = 0; i < count; ++i) {
        if (std::abs(values[i]) <= kMaxPrompt) continue;  // false for NaN
        char text[32];
        std::snprintf(text, sizeof text, "%g", static_cast<double>(values[i]));
        fail_input(name, std::string(text) + "; expected values from -16 to 16");
    }
}

void check_count(std::size_t count, FrameSize grid, const char *what) {
    const auto expected = static_cast<std::size_t>(grid.height * grid.width);
    if (count == expected) return;
    fail_input("count", std::to_string(count) + "; expected " + std::to_string(expected) + ", the " + grid_text(grid) +
                            " tokens of " + what);
}

}  // namespace

void PromptMaps::Prompt::copy_to(std::span<float> out) const {
    if (map.empty()) std::fill(out.begin(), out.end(), value);
    // A batch has the maps once per frame.
    else for (auto i = out.begin(); i != out.end();) i = std::copy(map.begin(), map.end(), i);
}

PromptMaps::PromptMaps(const Contract &contract, float scale, float shift)
    : graph_grid_{contract.grid_height, contract.grid_width}, scale_{scale, {}}, shift_{shift, {}}, grid_(graph_grid_) {}

void PromptMaps::set(float scale, float shift) {
    check_values(&scale, 1, "scale");
    check_values(&shift, 1, "shift");
    const std::lock_guard guard(lock_);
    scale_.value = scale;
    shift_.value = shift;
    scale_.map.clear();
    shift_.map.clear();
    grid_ = graph_grid_;
    ++version_;
}

void PromptMaps::set_maps(FrameSize grid, const float *scale, const float *shift, std::size_t count) {
    check_count(count, grid, grid == graph_grid_ ? "the bundle" : "the frame");
    if (scale != nullptr) check_values(scale, count, "scale");
    if (shift != nullptr) check_values(shift, count, "shift");
    const std::lock_guard guard(lock_);
    const auto check_kept = [&](const float *replaced, const Prompt &prompt, const char *name) {
        if (replaced != nullptr || prompt.map.empty() || grid == grid_) return;
        fail_input(name, "NULL keeps a map of " + grid_text(grid_) + " tokens; expected a map of " + grid_text(grid),
                   "pass both maps");
    };
    check_kept(scale, scale_, "scale");
    check_kept(shift, shift_, "shift");
    if (scale != nullptr) scale_.map.assign(scale, scale + count);
    if (shift != nullptr) shift_.map.assign(shift, shift + count);
    if (scale != nullptr || shift != nullptr) grid_ = grid;
    ++version_;
}

void PromptMaps::get_maps(float *scale, float *shift, std::size_t count) const {
    const std::lock_guard guard(lock_);
    check_count(count, grid_, grid_ == graph_grid_ ? "the bundle" : "the current maps");
    if (scale != nullptr) scale_.copy_to({scale, count});
    if (shift != nullptr) shift_.copy_to({shift, count});
}

void PromptMaps::copy_to(const HostTensors &tensors, std::uint64_t &version) const {
    const std::lock_guard guard(lock_);
    if (version == version_) return;
    check_grid(graph_grid_);
    scale_.copy_to(tensors.scale);
    shift_.copy_to(tensors.shift);
    version = version_;
}

void PromptMaps::copy_to(FrameSize grid, std::span<float> scale, std::span<float> shift) const {
    const std::lock_guard guard(lock_);
    check_grid(grid);
    scale_.copy_to(scale);
    shift_.copy_to(shift);
}

void PromptMaps::check_grid(FrameSize grid) const {
    if (grid == grid_ || (scale_.map.empty() && shift_.map.empty())) return;
    fail_input("prompt maps", grid_text(grid_) + " tokens; expected " + grid_text(grid) + ", the tokens of this frame",
               "set maps for its size with tcmoa_set_prompt_maps_for_size(), or one value with tcmoa_set_prompt()");
}

}  // namespace tcmoa
