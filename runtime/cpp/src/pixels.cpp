#include "pixels.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tcmoa {
namespace {

constexpr float kRed = 0.299F, kGreen = 0.587F, kBlue = 0.114F;  // luma of BT.601, full range

// Round half to even, as numpy does, for 0 <= value <= 255. Adding 1.5 * 2^23 leaves no bits for a fraction, and
// compilers can vectorize it.
inline std::uint8_t rounded(float value) {
    constexpr float magic = 12582912.0F;
    return static_cast<std::uint8_t>((value + magic) - magic);
}

inline std::uint8_t luma(float red, float green, float blue) {
    return rounded(std::min(kRed * red + kGreen * green + kBlue * blue, 255.0F));
}

const std::uint8_t *input_row(const tcmoa_frame &frame, int plane, std::size_t y) {
    return static_cast<const std::uint8_t *>(frame.planes[plane]) + y * frame.strides[plane];
}

std::uint8_t *output_row(const tcmoa_frame &frame, int plane, std::size_t y) {
    return static_cast<std::uint8_t *>(frame.planes[plane]) + y * frame.strides[plane];
}

// Coefficients between YUV and RGB in units of 1/65536.
struct Matrix {
    int luma_zero;                                 // luma of black: 16 (limited range) or 0 (full range)
    int to_luma, red_v, green_u, green_v, blue_u;  // YUV to RGB
    int y_red, y_green, y_blue;                    // RGB to YUV
    int u_red, u_green, u_blue, v_red, v_green, v_blue;
};

constexpr int fixed(double value) { return static_cast<int>(value * 65536 + (value < 0 ? -0.5 : 0.5)); }

// From Kr and Kb of BT.601 or BT.709.
constexpr Matrix matrix_of(double kr, double kb, bool limited) {
    const double kg = 1 - kr - kb, y = limited ? 219.0 / 255 : 1, c = limited ? 224.0 / 255 : 1;
    return {limited ? 16 : 0,
            fixed(1 / y),
            fixed(2 * (1 - kr) / c),
            fixed(-2 * kb * (1 - kb) / kg / c),
            fixed(-2 * kr * (1 - kr) / kg / c),
            fixed(2 * (1 - kb) / c),
            fixed(kr * y),
            fixed(y) - fixed(kr * y) - fixed(kb * y),  // white stays white
            fixed(kb * y),
            // The coefficients of a chroma value add up to 0: gray stays gray.
            fixed(-kr / (1 - kb) / 2 * c),
            -fixed(-kr / (1 - kb) / 2 * c) - fixed(c / 2),
            fixed(c / 2),
            fixed(c / 2),
            -fixed(-kb / (1 - kr) / 2 * c) - fixed(c / 2),
            fixed(-kb / (1 - kr) / 2 * c)};
}

constexpr Matrix kMatrices[] = {matrix_of(0.299, 0.114, true), matrix_of(0.2126, 0.0722, true),
                                matrix_of(0.299, 0.114, false), matrix_of(0.2126, 0.0722, false)};

inline std::uint8_t clipped(int fixed_point) {
    return static_cast<std::uint8_t>(std::clamp((fixed_point + 32768) >> 16, 0, 255));
}

// Packed RGB in any order. step: bytes per pixel; red, blue: position of the channel.
template <int step, int red, int blue>
void packed_to_tensor(const tcmoa_frame &frame, std::uint8_t *out, int channels, bool bgr, std::size_t width,
                      std::size_t height) {
    for (std::size_t y = 0; y < height; ++y, out += width * static_cast<std::size_t>(channels)) {
        const std::uint8_t *in = input_row(frame, 0, y);
        if (channels == 1) {
            for (std::size_t i = 0; i < width; ++i) {
                out[i] = luma(in[step * i + red], in[step * i + 1], in[step * i + blue]);
            }
        } else if (step == 3 && bgr == (blue == 0)) {
            std::memcpy(out, in, 3 * width);
        } else if (bgr) {
            for (std::size_t i = 0; i < width; ++i) {
                out[3 * i] = in[step * i + blue];
                out[3 * i + 1] = in[step * i + 1];
                out[3 * i + 2] = in[step * i + red];
            }
        } else {
            for (std::size_t i = 0; i < width; ++i) {
                out[3 * i] = in[step * i + red];
                out[3 * i + 1] = in[step * i + 1];
                out[3 * i + 2] = in[step * i + blue];
            }
        }
    }
}

// Write a row of gray pixels to 1 or 3 channels.
void repeat(const std::uint8_t *gray, std::uint8_t *out, int channels, std::size_t width) {
    if (channels == 1) {
        std::memcpy(out, gray, width);
        return;
    }
    for (std::size_t i = 0; i < width; ++i) out[3 * i] = out[3 * i + 1] = out[3 * i + 2] = gray[i];
}

// A percentile of `count` values by linear interpolation, with the arithmetic of numpy.percentile's default method.
double percentile(const StretchScratch &scratch, std::uint64_t count, double percent) {
    const double position = static_cast<double>(count - 1) * (percent / 100);
    const double below = std::floor(position), fraction = position - below;
    const auto rank = static_cast<std::uint64_t>(below), last = count - 1;
    double values[2] = {};
    std::uint64_t seen = 0;
    std::size_t level = 0;
    for (int i = 0; i < 2; ++i) {
        const auto target = std::min(rank + static_cast<std::uint64_t>(i), last);
        while (seen + scratch.histogram[level] <= target) seen += scratch.histogram[level++];
        values[i] = static_cast<double>(level);
    }
    const double step = values[1] - values[0];
    return fraction >= 0.5 ? values[1] - step * (1 - fraction) : values[0] + step * fraction;
}

void gray16_to_tensor(const tcmoa_frame &frame, std::uint8_t *out, int channels, std::size_t width,
                      std::size_t height, StretchPercentiles percentiles, StretchScratch &scratch) {
    std::fill(scratch.histogram.begin(), scratch.histogram.end(), 0U);
    const auto row = [&](std::size_t y) { return reinterpret_cast<const std::uint16_t *>(input_row(frame, 0, y)); };
    for (std::size_t y = 0; y < height; ++y) {
        const auto *in = row(y);
        for (std::size_t i = 0; i < width; ++i) ++scratch.histogram[in[i]];
    }
    const std::uint64_t count = static_cast<std::uint64_t>(width) * height;
    double low = percentile(scratch, count, percentiles.low), high = percentile(scratch, count, percentiles.high);
    double span = high - low;
    if (span <= 0) {
        low = percentile(scratch, count, 0);
        high = percentile(scratch, count, 100);
        span = std::max(high - low, 1.0);
    }
    const auto zero = static_cast<float>(low), gain = static_cast<float>(255 / span);
    for (std::size_t y = 0; y < height; ++y, out += width * static_cast<std::size_t>(channels)) {
        const auto *in = row(y);
        for (std::size_t i = 0; i < width; ++i) {
            // Clip first, then round: the same result, since 0 and 255 are integers.
            const float value = std::clamp((static_cast<float>(in[i]) - zero) * gain, 0.0F, 255.0F);
            if (channels == 1) {
                out[i] = rounded(value);
            } else {
                out[3 * i] = out[3 * i + 1] = out[3 * i + 2] = rounded(value);
            }
        }
    }
}

// NV12 and I420. step: bytes from one chroma value to the next.
void yuv_to_tensor(const tcmoa_frame &frame, std::uint8_t *out, int channels, bool bgr, std::size_t width,
                   std::size_t height) {
    const bool nv12 = frame.format == TCMOA_NV12;
    const Matrix &m = kMatrices[frame.matrix];
    const std::size_t step = nv12 ? 2 : 1, first = bgr ? 2 : 0, last = bgr ? 0 : 2;
    for (std::size_t y = 0; y < height; ++y, out += width * static_cast<std::size_t>(channels)) {
        const std::uint8_t *in = input_row(frame, 0, y);
        if (channels == 1) {
            for (std::size_t i = 0; i < width; ++i) out[i] = clipped((in[i] - m.luma_zero) * m.to_luma);
            continue;
        }
        const std::uint8_t *u = input_row(frame, 1, y / 2), *v = nv12 ? u + 1 : input_row(frame, 2, y / 2);
        for (std::size_t i = 0; i < width; ++i) {
            const int gray = (in[i] - m.luma_zero) * m.to_luma;
            const int du = u[i / 2 * step] - 128, dv = v[i / 2 * step] - 128;
            out[3 * i + first] = clipped(gray + m.red_v * dv);
            out[3 * i + 1] = clipped(gray + m.green_u * du + m.green_v * dv);
            out[3 * i + last] = clipped(gray + m.blue_u * du);
        }
    }
}

void tensor_to_yuv(const std::uint8_t *in, std::size_t red, std::size_t blue, const tcmoa_frame &frame,
                   std::size_t width, std::size_t height) {
    const bool nv12 = frame.format == TCMOA_NV12;
    const Matrix &m = kMatrices[frame.matrix];
    const std::size_t step = nv12 ? 2 : 1, pitch = 3 * width;
    for (std::size_t y = 0; y < height; ++y) {
        const std::uint8_t *row = in + y * pitch;
        std::uint8_t *out = output_row(frame, 0, y);
        for (std::size_t i = 0; i < width; ++i) {
            const std::uint8_t *p = row + 3 * i;
            out[i] = clipped(m.y_red * p[red] + m.y_green * p[1] + m.y_blue * p[blue] + (m.luma_zero << 16));
        }
        if (y % 2 != 0) continue;
        // The mean of the four pixels that share a chroma value; an odd last column or row counts twice.
        const std::uint8_t *under = y + 1 < height ? row + pitch : row;
        std::uint8_t *u = output_row(frame, 1, y / 2), *v = nv12 ? u + 1 : output_row(frame, 2, y / 2);
        for (std::size_t i = 0; i < width; i += 2) {
            const std::size_t a = 3 * i, b = i + 1 < width ? a + 3 : a;
            const int r = row[a + red] + row[b + red] + under[a + red] + under[b + red];
            const int g = row[a + 1] + row[b + 1] + under[a + 1] + under[b + 1];
            const int s = row[a + blue] + row[b + blue] + under[a + blue] + under[b + blue];
            u[i / 2 * step] = clipped((m.u_red * r + m.u_green * g + m.u_blue * s) / 4 + (128 << 16));
            v[i / 2 * step] = clipped((m.v_red * r + m.v_green * g + m.v_blue * s) / 4 + (128 << 16));
        }
    }
}

}  // namespace

void frame_to_tensor(const tcmoa_frame &frame, std::span<std::uint8_t> tensor, int channels, bool bgr,
                     StretchPercentiles percentiles, StretchScratch &scratch) {
    const auto width = static_cast<std::size_t>(frame.width), height = static_cast<std::size_t>(frame.height);
    std::uint8_t *out = tensor.data();
    switch (frame.format) {
        case TCMOA_RGB8:
            return packed_to_tensor<3, 0, 2>(frame, out, channels, bgr, width, height);
        case TCMOA_BGR8:
            return packed_to_tensor<3, 2, 0>(frame, out, channels, bgr, width, height);
        case TCMOA_RGBA8:
            return packed_to_tensor<4, 0, 2>(frame, out, channels, bgr, width, height);
        case TCMOA_BGRA8:
            return packed_to_tensor<4, 2, 0>(frame, out, channels, bgr, width, height);
        case TCMOA_GRAY8:
            for (std::size_t y = 0; y < height; ++y, out += width * static_cast<std::size_t>(channels)) {
                repeat(input_row(frame, 0, y), out, channels, width);
            }
            return;
        case TCMOA_GRAY16:
            return gray16_to_tensor(frame, out, channels, width, height, percentiles, scratch);
        default:
            return yuv_to_tensor(frame, out, channels, bgr, width, height);
    }
}

void tensor_to_frame(std::span<const std::uint8_t> tensor, bool bgr, const tcmoa_frame &frame) {
    const auto width = static_cast<std::size_t>(frame.width), height = static_cast<std::size_t>(frame.height);
    const std::size_t red = bgr ? 2 : 0, blue = bgr ? 0 : 2;
    if (frame.format == TCMOA_NV12 || frame.format == TCMOA_I420) {
        return tensor_to_yuv(tensor.data(), red, blue, frame, width, height);
    }
    for (std::size_t y = 0; y < height; ++y) {
        const std::uint8_t *in = tensor.data() + 3 * width * y;
        std::uint8_t *out = output_row(frame, 0, y);
        const bool out_bgr = frame.format == TCMOA_BGR8 || frame.format == TCMOA_BGRA8;
        const std::size_t first = out_bgr == bgr ? 0 : 2, last = 2 - first;
        switch (frame.format) {
            case TCMOA_RGB8:
            case TCMOA_BGR8:
                if (first == 0) {
                    std::memcpy(out, in, 3 * width);
                    break;
                }
                for (std::size_t i = 0; i < width; ++i) {
                    out[3 * i] = in[3 * i + 2];
                    out[3 * i + 1] = in[3 * i + 1];
                    out[3 * i + 2] = in[3 * i];
                }
                break;
            case TCMOA_RGBA8:
            case TCMOA_BGRA8:
                for (std::size_t i = 0; i < width; ++i) {
                    out[4 * i] = in[3 * i + first];
                    out[4 * i + 1] = in[3 * i + 1];
                    out[4 * i + 2] = in[3 * i + last];
                    out[4 * i + 3] = 255;
                }
                break;
            case TCMOA_GRAY8:
                for (std::size_t i = 0; i < width; ++i) out[i] = luma(in[3 * i + red], in[3 * i + 1], in[3 * i + blue]);
                break;
            default: {  // GRAY16
                auto *wide = reinterpret_cast<std::uint16_t *>(out);
                for (std::size_t i = 0; i < width; ++i) {
                    wide[i] = static_cast<std::uint16_t>(257 * luma(in[3 * i + red], in[3 * i + 1], in[3 * i + blue]));
                }
            }
        }
    }
}

}  // namespace tcmoa
