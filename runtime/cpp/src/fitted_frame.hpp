// One pair of frames of another size than the graph's: resized, padded or cut into tiles, fused in several runs of the
// graph, and joined.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend.hpp"
#include "contract.hpp"
#include "fit.hpp"
#include "pixels.hpp"
#include "resize.hpp"
#include "tcmoa.h"

namespace tcmoa {

// Reuses its memory for the next frame. Used by one thread at a time.
class FittedFrame {
public:
    struct Source {
        const tcmoa_frame *frame;
        int channels;   // of its tensor
        bool borrowed;  // the frame is laid out like the tensor, and its pixels stay as they are until the frame is done
    };

    // What is equal for all frames of a handle.
    struct Settings {
        const Contract *contract;
        std::int64_t token, window;  // sides in pixels; token: multiple that tiles may start at
        bool bgr;
        StretchPercentiles percentiles;
    };

    // Start a frame with the size of x. resize: to the graph's size; otherwise tiles. with_prompts: prompts are joined.
    void start(const Settings &settings, const Source &x, const Source &y, bool resize, bool with_prompts,
               StretchScratch &scratch);

    // Prompt maps of the frame, to be filled after `start`: float32 [gh, gw] of `grid`; 0x0 without a prompt.
    [[nodiscard]] FrameSize grid() const { return settings_.contract->with_control ? plan_.grid() : FrameSize{}; }
    std::vector<float> scale, shift;

    // Write the tiles of the next run to the tensors of the graph, [B, H, W, C]. The last run is filled with copies of
    // its last tile.
    void fill(const HostTensors &tensors);

    // Take the results of the run.
    void take(const HostTensors &tensors);

    // Whether all tiles are fused.
    [[nodiscard]] bool is_done() const { return blender_.is_complete(); }

    [[nodiscard]] FrameSize size() const { return size_; }

    // When done: convert the result to `fused`, which has the size of x.
    void write(const tcmoa_frame &fused);

    // When done: write the prompts, float32 [K, 2, gh, gw].
    void write_prompts(float *out) const { blender_.write_prompts(out); }

private:
    ImageView load(const Source &source, bool resize, std::vector<std::uint8_t> &pixels,
                   std::vector<std::uint8_t> &resized, StretchScratch &scratch);

    Settings settings_{};
    FrameSize size_;
    TilePlan plan_;  // of the last size
    TileBlender blender_;
    ImageView x_, y_;
    std::vector<std::uint8_t> pixels_x_, pixels_y_, resized_x_, resized_y_, enlarged_;
    ResizeScratch resize_scratch_;
};

}  // namespace tcmoa
