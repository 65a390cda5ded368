// Fitting frames of any size to the one size of a graph: padding, and tiles that are blended. The same plan and the
// same arithmetic as tcmoa_runtime/fit.py.
//
// A frame is cut into tiles of the graph's size that overlap. Along each axis every pixel has a weight in each tile that
// covers it: a smooth step over the overlap. The weights are integers with a fixed sum. Tiles start at multiples of an
// attention window, or of a token where a tile holds fewer than two windows; prompt maps are cut along. Where a frame is
// smaller than the graph, or the last tile reaches beyond it, its edge pixels are repeated, and the result is cropped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "resize.hpp"

namespace tcmoa {

inline constexpr std::int64_t kOverlapPixels = 80;  // least overlap of neighboring tiles; half a tile if that is less

// How one axis of a frame is covered.
class AxisPlan {
public:
    AxisPlan() = default;
    // token, window: lengths in pixels; window is a multiple of token.
    AxisPlan(std::int64_t length, std::int64_t tile, std::int64_t token, std::int64_t window);

    [[nodiscard]] std::int64_t length() const { return length_; }
    [[nodiscard]] std::int64_t tile() const { return tile_; }

    // First pixel of each tile, multiples of a window or of a token.
    [[nodiscard]] const std::vector<std::int64_t> &starts() const { return starts_; }

    // Length that the tiles cover, at least the frame's.
    [[nodiscard]] std::int64_t padded() const { return starts_.back() + tile_; }

    // Weights of the pixels of a tile; those of one pixel in all its tiles sum to 4096.
    [[nodiscard]] std::span<const std::uint32_t> weights(std::size_t index) const;

private:
    void fill_weights(std::int64_t overlap);

    std::int64_t length_ = 0, tile_ = 0;
    std::vector<std::int64_t> starts_;
    std::vector<std::uint32_t> weights_;  // [tiles, tile]
};

// How a frame is covered by tiles of a graph's size. Tiles are numbered row by row.
class TilePlan {
public:
    TilePlan() = default;
    // tile_grid: tokens of the graph's prompt maps.
    TilePlan(FrameSize frame, FrameSize tile, std::int64_t token, std::int64_t window, FrameSize tile_grid);

    [[nodiscard]] FrameSize frame() const { return {rows_.length(), columns_.length()}; }
    [[nodiscard]] FrameSize tile() const { return {rows_.tile(), columns_.tile()}; }
    [[nodiscard]] std::size_t count() const { return rows_.starts().size() * columns_.starts().size(); }

    // Tokens of the frame's prompt maps, and of a tile's.
    [[nodiscard]] FrameSize grid() const;
    [[nodiscard]] FrameSize tile_grid() const { return tile_grid_; }

    // Copy a tile of the frame to `out`, packed.
    void cut(const ImageView &frame, std::size_t index, std::uint8_t *out) const;

    // Copy a tile of a prompt map [gh, gw] of the frame to `out`.
    void cut_map(const float *map, std::size_t index, float *out) const;

private:
    friend class TileBlender;
    const std::int64_t &top(std::size_t index) const { return rows_.starts()[index / columns_.starts().size()]; }
    const std::int64_t &left(std::size_t index) const { return columns_.starts()[index % columns_.starts().size()]; }

    AxisPlan rows_, columns_;
    std::int64_t token_ = 1;
    FrameSize tile_grid_;
};

// Joins the fused tiles of a frame. Keeps the sums of one row of tiles, which is what its memory depends on.
class TileBlender {
public:
    // Start a frame. num_prompts: planes of the prompts to join; 0: none. The plan must outlive the frame.
    void start(const TilePlan &plan, std::size_t num_prompts);

    // Add a tile, uint8 [h, w, 3], and its prompts, float32 [num_prompts, h, w]; tiles in their order.
    void add(const std::uint8_t *tile, const float *prompts);

    // Number of tiles added.
    [[nodiscard]] std::size_t added() const { return added_; }
    [[nodiscard]] bool is_complete() const { return added_ == plan_->count(); }

    // When complete: the frame, packed uint8 [H, W, 3].
    [[nodiscard]] const std::uint8_t *joined() const { return joined_.data(); }

    // When complete: write the prompts, float32 [num_prompts, gh, gw].
    void write_prompts(float *out) const;

private:
    void add_prompts(const float *prompts);
    void flush_rows(std::int64_t begin, std::int64_t end);

    const TilePlan *plan_ = nullptr;
    std::size_t added_ = 0, num_prompts_ = 0;
    std::vector<std::uint32_t> sums_;  // [tile height, padded width, 3]: from the first row of the current tiles
    std::vector<std::uint8_t> joined_;
    std::vector<double> prompt_sums_, prompt_weights_;  // [num_prompts, rows, columns], [rows, columns]
};

}  // namespace tcmoa
