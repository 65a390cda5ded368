// The prompt maps of a handle: alpha (scale) and beta (shift) of Eq. 8 per token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "backend.hpp"
#include "contract.hpp"
#include "resize.hpp"

namespace tcmoa {

// Maps are row-major [gh, gw] with values from -16 to 16. Thread-safe. All functions but the constructor throw Error
// (TCMOA_ERROR_INPUT).
class PromptMaps {
public:
    PromptMaps(const Contract &contract, float scale, float shift);

    // One value for all tokens of frames of any size.
    void set(float scale, float shift);

    // Maps for frames whose prompt maps have `grid` tokens. nullptr keeps the value, or the map if it has the same grid.
    // `count` must be the number of tokens.
    void set_maps(FrameSize grid, const float *scale, const float *shift, std::size_t count);

    // `count` must be the number of tokens of the maps; of the graph's tokens if no map was set.
    void get_maps(float *scale, float *shift, std::size_t count) const;

    // Copy the maps to a slot's tensors unless it already holds this version of them; `version` is the slot's. Refuses
    // maps for frames of another grid than the graph's.
    void copy_to(const HostTensors &tensors, std::uint64_t &version) const;

    // Copy the maps for a frame of `grid`; refuses maps for another one.
    void copy_to(FrameSize grid, std::span<float> scale, std::span<float> shift) const;

private:
    // One value for all tokens unless there is a map.
    struct Prompt {
        float value;
        std::vector<float> map;  // empty: none

        void copy_to(std::span<float> out) const;
    };
    void check_grid(FrameSize grid) const;

    const FrameSize graph_grid_;
    mutable std::mutex lock_;
    Prompt scale_, shift_;
    FrameSize grid_;             // of the maps that are set; otherwise the graph's
    std::uint64_t version_ = 1;  // a new slot has version 0
};

}  // namespace tcmoa
