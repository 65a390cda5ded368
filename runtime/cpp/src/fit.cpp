#include "fit.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tcmoa {
namespace {

constexpr int kWeightBits = 12;
constexpr std::int64_t kWeightSum = 1 << kWeightBits;             // of a pixel along one axis
constexpr std::uint32_t kHalf = 1U << (2 * kWeightBits - 1);      // 255 * 2^24 and this fit into 32 bits

std::int64_t ceil_divide(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

std::size_t index_of(std::int64_t value) { return static_cast<std::size_t>(value); }

// Rise over the overlap with the tile before, a constant between, and fall over the overlap with the tile after:
// 3u^2 - 2u^3 with u = distance / overlap, times overlap^3.
std::int64_t ramp(std::int64_t pixel, std::int64_t tile, std::int64_t overlap, bool is_first, bool is_last) {
    std::int64_t distance = overlap;
    if (!is_first) distance = std::min(distance, pixel + 1);
    if (!is_last) distance = std::min(distance, tile - pixel);
    return distance * distance * (3 * overlap - 2 * distance);
}

// Weight of the pixel at the center of a token.
std::uint32_t at_center(std::span<const std::uint32_t> weights, std::int64_t token, std::int64_t index) {
    return weights[index_of(std::min(index * token + token / 2, static_cast<std::int64_t>(weights.size()) - 1))];
}

}  // namespace

AxisPlan::AxisPlan(std::int64_t length, std::int64_t tile, std::int64_t token, std::int64_t window)
    : length_(length), tile_(tile) {
    const std::int64_t unit = 2 * window > tile ? token : window;
    const std::int64_t wanted = std::min(kOverlapPixels, tile / 2);
    std::int64_t overlap = 0;
    starts_ = {0};
    if (length > tile) {
        const std::int64_t last = ceil_divide(length - tile, unit) * unit;
        const std::int64_t longest_step = std::max((tile - wanted) / unit * unit, unit);
        const std::int64_t count = ceil_divide(last, longest_step) + 1;
        std::int64_t longest = 0;
        for (std::int64_t i = 1; i < count; ++i) {
            const double start = static_cast<double>(i * last) / static_cast<double>(count - 1);
            starts_.push_back(static_cast<std::int64_t>(std::nearbyint(start / static_cast<double>(unit))) * unit);
            longest = std::max(longest, starts_.back() - starts_[starts_.size() - 2]);
        }
        overlap = tile - longest;
    }
    fill_weights(std::max<std::int64_t>(overlap, 1));
}

void AxisPlan::fill_weights(std::int64_t overlap) {
    const std::size_t count = starts_.size(), tile = index_of(tile_);
    std::vector<std::int64_t> totals(index_of(padded())), rest(totals.size(), kWeightSum);
    const auto ramp_of = [&](std::size_t index, std::size_t pixel) {
        return ramp(static_cast<std::int64_t>(pixel), tile_, overlap, index == 0, index + 1 == count);
    };
    for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t j = 0; j < tile; ++j) totals[index_of(starts_[i]) + j] += ramp_of(i, j);
    }
    weights_.resize(count * tile);
    for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t j = 0; j < tile; ++j) {
            const std::size_t pixel = index_of(starts_[i]) + j;
            const std::int64_t weight = ramp_of(i, j) * kWeightSum / totals[pixel];
            weights_[i * tile + j] = static_cast<std::uint32_t>(weight);
            rest[pixel] -= weight;
        }
    }
    for (std::size_t i = 0; i < count; ++i) {  // what rounding left over goes to the first tile of a pixel
        for (std::size_t j = 0; j < tile; ++j) {
            auto &left_over = rest[index_of(starts_[i]) + j];
            weights_[i * tile + j] += static_cast<std::uint32_t>(left_over);
            left_over = 0;
        }
    }
}

std::span<const std::uint32_t> AxisPlan::weights(std::size_t index) const {
    return std::span(weights_).subspan(index * index_of(tile_), index_of(tile_));
}

TilePlan::TilePlan(FrameSize frame, FrameSize tile, std::int64_t token, std::int64_t window, FrameSize tile_grid)
    : rows_(frame.height, tile.height, token, window),
      columns_(frame.width, tile.width, token, window),
      token_(token),
      tile_grid_(tile_grid) {}

FrameSize TilePlan::grid() const {
    if (frame() == tile()) return tile_grid_;  // also of a graph whose tokens have no fixed side
    return {ceil_divide(rows_.length(), token_), ceil_divide(columns_.length(), token_)};
}

void TilePlan::cut(const ImageView &frame, std::size_t index, std::uint8_t *out) const {
    const auto channels = index_of(frame.channels);
    const std::int64_t first = left(index), width = columns_.tile();
    const auto inside = index_of(std::min(width, columns_.length() - first));  // columns that need no padding
    for (std::int64_t y = 0; y < rows_.tile(); ++y, out += index_of(width) * channels) {
        const auto *row = frame.row(std::min(top(index) + y, rows_.length() - 1));
        std::memcpy(out, row + index_of(first) * channels, inside * channels);
        const auto *edge = row + index_of(columns_.length() - 1) * channels;
        for (std::size_t x = inside; x < index_of(width); ++x) std::copy_n(edge, channels, out + x * channels);
    }
}

void TilePlan::cut_map(const float *map, std::size_t index, float *out) const {
    const FrameSize whole = grid(), part = tile_grid();
    const std::int64_t first_row = top(index) / token_, first_column = left(index) / token_;
    for (std::int64_t y = 0; y < part.height; ++y) {
        const float *row = map + std::min(first_row + y, whole.height - 1) * whole.width;
        for (std::int64_t x = 0; x < part.width; ++x) *out++ = row[std::min(first_column + x, whole.width - 1)];
    }
}

void TileBlender::start(const TilePlan &plan, std::size_t num_prompts) {
    plan_ = &plan;
    added_ = 0;
    num_prompts_ = num_prompts;
    sums_.assign(index_of(plan.rows_.tile() * plan.columns_.padded()) * 3, kHalf);
    joined_.resize(index_of(plan.rows_.length() * plan.columns_.length()) * 3);
    if (num_prompts == 0) return;
    const FrameSize part = plan.tile_grid();
    const auto tokens = index_of((plan.rows_.starts().back() / plan.token_ + part.height) *
                                 (plan.columns_.starts().back() / plan.token_ + part.width));
    prompt_sums_.assign(num_prompts * tokens, 0.0);
    prompt_weights_.assign(tokens, 0.0);
}

void TileBlender::add(const std::uint8_t *tile, const float *prompts) {
    const std::size_t across = plan_->columns_.starts().size(), pitch = index_of(plan_->columns_.padded()) * 3;
    const auto row_weights = plan_->rows_.weights(added_ / across), column_weights = plan_->columns_.weights(added_ % across);
    std::uint32_t *sums = sums_.data() + index_of(plan_->left(added_)) * 3;
    for (std::size_t y = 0; y < row_weights.size(); ++y, sums += pitch) {
        for (std::size_t x = 0; x < column_weights.size(); ++x, tile += 3) {
            const std::uint32_t weight = row_weights[y] * column_weights[x];
            for (std::size_t c = 0; c < 3; ++c) sums[3 * x + c] += weight * tile[c];
        }
    }
    if (num_prompts_ != 0) add_prompts(prompts);
    const std::int64_t begin = plan_->top(added_);
    if (++added_ % across != 0) return;
    const std::int64_t end = is_complete() ? plan_->rows_.length() : plan_->top(added_);
    flush_rows(begin, end);
    if (is_complete()) return;
    // The next tiles start at `end`: the sums of the rows from there on come first.
    const auto done = index_of(end - begin) * pitch;
    std::copy(sums_.begin() + static_cast<std::ptrdiff_t>(done), sums_.end(), sums_.begin());
    std::fill(sums_.end() - static_cast<std::ptrdiff_t>(done), sums_.end(), kHalf);
}

// Write the rows [begin, end) of the frame; the sums start at `begin`.
void TileBlender::flush_rows(std::int64_t begin, std::int64_t end) {
    const std::size_t pitch = index_of(plan_->columns_.padded()) * 3, count = index_of(plan_->columns_.length()) * 3;
    for (std::int64_t y = begin; y < end; ++y) {
        const auto *sums = sums_.data() + index_of(y - begin) * pitch;
        auto *out = joined_.data() + index_of(y) * count;
        for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::uint8_t>(sums[i] >> (2 * kWeightBits));
    }
}

// Prompts are weighted as the pixels at the centers of their tokens.
void TileBlender::add_prompts(const float *prompts) {
    const std::size_t across = plan_->columns_.starts().size();
    const FrameSize part = plan_->tile_grid();
    const std::int64_t token = plan_->token_;
    const std::int64_t width = plan_->columns_.starts().back() / token + part.width;
    const auto row_weights = plan_->rows_.weights(added_ / across), column_weights = plan_->columns_.weights(added_ % across);
    const std::int64_t first = plan_->top(added_) / token * width + plan_->left(added_) / token;
    for (std::int64_t y = 0; y < part.height; ++y) {
        const auto row_weight = static_cast<std::uint64_t>(at_center(row_weights, token, y));
        for (std::int64_t x = 0; x < part.width; ++x) {
            const auto weight = static_cast<double>(row_weight * at_center(column_weights, token, x));
            const auto place = index_of(first + y * width + x);
            prompt_weights_[place] += weight;
            for (std::size_t k = 0; k < num_prompts_; ++k) {
                const float value = prompts[k * index_of(part.height * part.width) + index_of(y * part.width + x)];
                prompt_sums_[k * prompt_weights_.size() + place] += weight * static_cast<double>(value);
            }
        }
    }
}

void TileBlender::write_prompts(float *out) const {
    const FrameSize whole = plan_->grid();
    const std::int64_t width = plan_->columns_.starts().back() / plan_->token_ + plan_->tile_grid().width;
    for (std::size_t k = 0; k < num_prompts_; ++k) {
        const auto *sums = prompt_sums_.data() + k * prompt_weights_.size();
        for (std::int64_t y = 0; y < whole.height; ++y) {
            for (std::int64_t x = 0; x < whole.width; ++x) {
                const auto place = index_of(y * width + x);
                *out++ = static_cast<float>(sums[place] / prompt_weights_[place]);
            }
        }
    }
}

}  // namespace tcmoa
