// The prompt maps of a handle: alpha (scale) and beta (shift) of Eq. 8 per token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "backend.hpp"
#include "contract.hpp"

namespace tcmoa {

// Maps are row-major [gh, gw] with values from -16 to 16. Thread-safe.
class PromptMaps {
public:
    PromptMaps(const Contract &contract, float scale, float shift);

    // One value for all tokens. Throws Error (TCMOA_ERROR_INPUT) if a value is out of range; so does `set_maps`.
    void set(float scale, float shift);

    // nullptr keeps a map. `count` must be the number of tokens, here and in `get_maps`.
    void set_maps(const float *scale, const float *shift, std::size_t count);
    void get_maps(float *scale, float *shift, std::size_t count) const;

    // Copy the maps to a slot's tensors unless it already holds this version of them; `version` is the slot's.
    void copy_to(const HostTensors &tensors, std::uint64_t &version) const;

private:
    void check_count(std::size_t count) const;

    const std::int64_t grid_width_, grid_height_;
    mutable std::mutex lock_;
    std::vector<float> scale_, shift_;
    std::uint64_t version_ = 1;  // a new slot has version 0
};

}  // namespace tcmoa
