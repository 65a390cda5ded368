#include "resize.hpp"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

namespace tcmoa {
namespace {

using Blend = ResizeScratch::Blend;
using Weight = ResizeScratch::Weight;

constexpr int kWeightScale = 2048;  // of a Blend

// Pixels of the source per pixel of the result, computed as OpenCV does: through the inverse.
double scale_of(std::int64_t source, std::int64_t result) {
    return 1.0 / (static_cast<double>(result) / static_cast<double>(source));
}

// Round half to even, for 0 <= value; adding 1.5 * 2^23 leaves no bits for a fraction, and compilers can vectorize it.
inline std::uint8_t rounded(float value) {
    constexpr float magic = 12582912.0F;
    return static_cast<std::uint8_t>((std::min(value, 255.0F) + magic) - magic);
}

int to_fixed(float weight) { return static_cast<int>(std::nearbyint(weight * kWeightScale)); }

// The pixels between which each result pixel lies. area: positions of INTER_AREA where it does not shrink in both
// directions. OpenCV sets the weight of columns beyond the edge to 0, but only clips rows: both weights are rounded.
void fill_blends(std::vector<Blend> &blends, std::int64_t source, std::int64_t result, bool area, bool columns) {
    const double inverse = static_cast<double>(result) / static_cast<double>(source), scale = 1.0 / inverse;
    blends.resize(static_cast<std::size_t>(result));
    for (std::int64_t i = 0; i < result; ++i) {
        const auto position = static_cast<double>(i);
        std::int64_t first = 0;
        float fraction = 0;
        if (area) {
            first = static_cast<std::int64_t>(std::floor(position * scale));
            fraction = static_cast<float>(position + 1 - static_cast<double>(first + 1) * inverse);
            fraction = fraction <= 0 ? 0.0F : fraction - std::floor(fraction);
        } else {
            const auto center = static_cast<float>((position + 0.5) * scale - 0.5);
            first = static_cast<std::int64_t>(std::floor(center));
            fraction = center - static_cast<float>(first);
        }
        if (columns && (first < 0 || first >= source - 1)) fraction = 0;
        blends[static_cast<std::size_t>(i)] = {std::clamp<std::int64_t>(first, 0, source - 1),
                                               std::clamp<std::int64_t>(first + 1, 0, source - 1),
                                               to_fixed(1.0F - fraction), to_fixed(fraction)};
    }
}

void blend_row(const std::uint8_t *row, const std::vector<Blend> &columns, std::size_t channels, std::int32_t *out) {
    for (const auto &blend : columns) {
        const auto *first = row + static_cast<std::size_t>(blend.first) * channels;
        const auto *second = row + static_cast<std::size_t>(blend.second) * channels;
        for (std::size_t c = 0; c < channels; ++c) {
            *out++ = first[c] * blend.first_weight + second[c] * blend.second_weight;
        }
    }
}

void resize_linear(const ImageView &image, FrameSize size, bool area, std::uint8_t *out, ResizeScratch &scratch) {
    const auto channels = static_cast<std::size_t>(image.channels);
    const auto count = static_cast<std::size_t>(size.width) * channels;
    fill_blends(scratch.blend_rows, image.size.height, size.height, area, false);
    fill_blends(scratch.blend_columns, image.size.width, size.width, area, true);
    std::int64_t held[2] = {-1, -1};  // the source row that each of the two rows holds
    for (auto &row : scratch.fixed_rows) row.resize(count);
    const auto row_at = [&](std::int64_t y, int other) {
        for (int i = 0; i < 2; ++i) {
            if (held[i] == y) return i;
        }
        const int place = other == 0 ? 1 : 0;
        blend_row(image.row(y), scratch.blend_columns, channels, scratch.fixed_rows[place].data());
        held[place] = y;
        return place;
    };
    for (const auto &blend : scratch.blend_rows) {
        int first = row_at(blend.first, held[0] == blend.second ? 0 : 1);
        const int second = row_at(blend.second, first);
        const auto *a = scratch.fixed_rows[first].data(), *b = scratch.fixed_rows[second].data();
        for (std::size_t i = 0; i < count; ++i) {
            const int sum = ((blend.first_weight * (a[i] >> 4)) >> 16) + ((blend.second_weight * (b[i] >> 4)) >> 16);
            *out++ = static_cast<std::uint8_t>(std::clamp((sum + 2) >> 2, 0, 255));
        }
    }
}

// The mean of whole blocks of pixels.
void resize_blocks(const ImageView &image, FrameSize size, std::uint8_t *out) {
    const auto channels = static_cast<std::size_t>(image.channels);
    const auto high = image.size.height / size.height, wide = image.size.width / size.width;
    const bool quarter = high == 2 && wide == 2;
    const auto scale = static_cast<float>(1.0 / static_cast<double>(high * wide));
    for (std::int64_t y = 0; y < size.height; ++y) {
        for (std::int64_t x = 0; x < size.width; ++x) {
            for (std::size_t c = 0; c < channels; ++c) {
                std::int64_t sum = 0;
                for (std::int64_t row = y * high; row < (y + 1) * high; ++row) {
                    const auto *p = image.row(row) + static_cast<std::size_t>(x * wide) * channels + c;
                    for (std::int64_t i = 0; i < wide; ++i, p += channels) sum += *p;
                }
                *out++ = quarter ? static_cast<std::uint8_t>((sum + 2) >> 2) : rounded(static_cast<float>(sum) * scale);
            }
        }
    }
}

// The source pixels that each result pixel covers, with the share of it that each covers.
void fill_weights(std::vector<Weight> &weights, std::vector<std::size_t> &ends, std::int64_t source,
                  std::int64_t result) {
    const double scale = scale_of(source, result);
    constexpr double kLeast = 1e-3;  // smaller shares are left out
    weights.clear();
    ends.clear();
    for (std::int64_t i = 0; i < result; ++i) {
        const double begin = static_cast<double>(i) * scale, end = begin + scale;
        const double width = std::min(scale, static_cast<double>(source) - begin);
        const auto last = std::min(static_cast<std::int64_t>(std::floor(end)), source - 1);
        const auto first = std::min(static_cast<std::int64_t>(std::ceil(begin)), last);
        const double before = static_cast<double>(first) - begin, after = end - static_cast<double>(last);
        if (before > kLeast) weights.push_back({first - 1, static_cast<float>(before / width)});
        for (auto s = first; s < last; ++s) weights.push_back({s, static_cast<float>(1.0 / width)});
        if (after > kLeast) weights.push_back({last, static_cast<float>(std::min(std::min(after, 1.0), width) / width)});
        ends.push_back(weights.size());
    }
}

void resize_area(const ImageView &image, FrameSize size, std::uint8_t *out, ResizeScratch &scratch) {
    const auto channels = static_cast<std::size_t>(image.channels);
    const auto count = static_cast<std::size_t>(size.width) * channels;
    fill_weights(scratch.row_weights, scratch.row_ends, image.size.height, size.height);
    fill_weights(scratch.column_weights, scratch.column_ends, image.size.width, size.width);
    auto &row = scratch.float_row;
    auto &sum = scratch.float_sum;
    row.resize(count);
    sum.resize(count);
    std::int64_t held = -1;  // the source row that `row` holds, resized horizontally
    std::size_t next = 0;
    for (const auto end : scratch.row_ends) {
        std::fill(sum.begin(), sum.end(), 0.0F);
        for (; next < end; ++next) {
            const auto &weight = scratch.row_weights[next];
            if (held != weight.source) {
                const auto *pixels = image.row(weight.source);
                std::size_t begin = 0, i = 0;
                for (const auto column_end : scratch.column_ends) {
                    for (std::size_t c = 0; c < channels; ++c, ++i) {
                        float total = 0;
                        for (auto k = begin; k < column_end; ++k) {
                            const auto &part = scratch.column_weights[k];
                            total += static_cast<float>(pixels[static_cast<std::size_t>(part.source) * channels + c]) *
                                     part.value;
                        }
                        row[i] = total;
                    }
                    begin = column_end;
                }
                held = weight.source;
            }
            for (std::size_t i = 0; i < count; ++i) sum[i] += row[i] * weight.value;
        }
        for (std::size_t i = 0; i < count; ++i) *out++ = rounded(sum[i]);
    }
}

bool is_whole(double scale) { return std::abs(scale - std::nearbyint(scale)) < DBL_EPSILON; }

}  // namespace

void resize_image(const ImageView &image, FrameSize size, std::uint8_t *out, ResizeScratch &scratch) {
    if (image.size == size) {
        const auto bytes = static_cast<std::size_t>(size.width) * static_cast<std::size_t>(image.channels);
        for (std::int64_t y = 0; y < size.height; ++y) std::memcpy(out + static_cast<std::size_t>(y) * bytes, image.row(y), bytes);
        return;
    }
    const bool lower = size.height < image.size.height, narrower = size.width < image.size.width;
    const bool shrinks = size.height <= image.size.height && size.width <= image.size.width;
    if (!shrinks) return resize_linear(image, size, lower || narrower, out, scratch);
    const double high = scale_of(image.size.height, size.height), wide = scale_of(image.size.width, size.width);
    if (is_whole(high) && is_whole(wide)) return resize_blocks(image, size, out);
    resize_area(image, size, out, scratch);
}

}  // namespace tcmoa
