#include "video_frames.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>

std::string bundle_folder(const std::string &name) {
    return std::string(std::getenv("TCMOA_TEST_BUNDLES")) + "/" + name;
}

Caps caps_of(const char *format, int rate, int width, int height, const char *colorimetry) {
    Caps caps(gst_caps_new_simple("video/x-raw", "format", G_TYPE_STRING, format, "width", G_TYPE_INT, width, "height",
                                  G_TYPE_INT, height, "framerate", GST_TYPE_FRACTION, rate, 1, "interlace-mode",
                                  G_TYPE_STRING, "progressive", "pixel-aspect-ratio", GST_TYPE_FRACTION, 1, 1,
                                  nullptr));
    if (colorimetry != nullptr)
        gst_caps_set_simple(caps.get(), "colorimetry", G_TYPE_STRING, colorimetry, nullptr);
    return caps;
}

Buffer make_buffer(GstCaps *caps, unsigned seed, int padding) {
    GstVideoInfo info;
    REQUIRE(gst_video_info_from_caps(&info, caps));
    if (padding > 0) {
        GstVideoAlignment alignment;
        gst_video_alignment_reset(&alignment);
        alignment.padding_right = static_cast<guint>(padding);
        alignment.padding_top = 3;  // planes do not start at the start of the buffer
        REQUIRE(gst_video_info_align(&info, &alignment));
    }
    Buffer buffer(gst_buffer_new_allocate(nullptr, info.size, nullptr));
    gst_buffer_memset(buffer.get(), 0, 0xa5, info.size);  // bytes in the padding must be ignored
    if (padding > 0)
        gst_buffer_add_video_meta_full(buffer.get(), GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_INFO_FORMAT(&info),
                                       kSide, kSide, GST_VIDEO_INFO_N_PLANES(&info), info.offset, info.stride);
    GstVideoFrame mapped;
    REQUIRE(gst_video_frame_map(&mapped, &info, buffer.get(), GST_MAP_WRITE));
    for (guint part = 0; part < GST_VIDEO_FRAME_N_COMPONENTS(&mapped); ++part) {
        auto *data = static_cast<std::uint8_t *>(GST_VIDEO_FRAME_COMP_DATA(&mapped, part));
        const int stride = GST_VIDEO_FRAME_COMP_STRIDE(&mapped, part);
        const int step = GST_VIDEO_FRAME_COMP_PSTRIDE(&mapped, part);
        const int bytes = GST_VIDEO_FRAME_COMP_DEPTH(&mapped, part) > 8 ? 2 : 1;
        for (int row = 0; row < GST_VIDEO_FRAME_COMP_HEIGHT(&mapped, part); ++row)
            for (int col = 0; col < GST_VIDEO_FRAME_COMP_WIDTH(&mapped, part); ++col)
                for (int k = 0; k < bytes; ++k) {
                    const unsigned value = 40 + seed * 7 + static_cast<unsigned>(row) * (1 + part) +
                                           static_cast<unsigned>(col * (k + 1)) / 2 + part * 20;
                    data[row * stride + col * step + k] = static_cast<std::uint8_t>(value % 200 + 20);
                }
    }
    gst_video_frame_unmap(&mapped);
    return buffer;
}

GstClockTime time_of(int index, int rate) {
    return gst_util_uint64_scale_int(static_cast<guint64>(index) * GST_SECOND, 1, rate);
}

Buffer with_time(Buffer buffer, GstClockTime pts, GstClockTime duration) {
    GST_BUFFER_PTS(buffer.get()) = pts;
    GST_BUFFER_DURATION(buffer.get()) = duration;
    return buffer;
}

Buffer make_frame(GstCaps *caps, unsigned seed, int index, int rate) {
    return with_time(make_buffer(caps, seed), time_of(index, rate), time_of(index + 1, rate) - time_of(index, rate));
}

Bytes bytes_of(GstBuffer *buffer) {
    Bytes bytes(gst_buffer_get_size(buffer));
    gst_buffer_extract(buffer, 0, bytes.data(), bytes.size());
    return bytes;
}

namespace {

int format_of(const GstVideoInfo &info) {
    const std::string name = gst_video_format_to_string(GST_VIDEO_INFO_FORMAT(&info));
    const char *const names[] = {"RGB", "BGR", "RGBA", "BGRA", "GRAY8", GST_VIDEO_NE(GRAY16), "NV12", "I420"};
    for (int i = 0; i < 8; ++i)
        if (name == names[i]) return i;
    FAIL("not a format of the library: " << name);
    return -1;
}

// Independent of the element's own code.
tcmoa_frame frame_of(const GstVideoFrame &mapped, const char *colorimetry) {
    tcmoa_frame out;
    tcmoa_frame_init(&out, format_of(mapped.info), mapped.info.width, mapped.info.height, nullptr);
    const std::string name = colorimetry == nullptr ? "" : colorimetry;
    out.matrix = name == "bt709" ? TCMOA_BT709_LIMITED : name == "1:4:0:0" ? TCMOA_BT601_FULL
                 : name == "1:3:0:0" ? TCMOA_BT709_FULL : TCMOA_BT601_LIMITED;
    for (guint plane = 0; plane < 3; ++plane) {
        const bool used = plane < GST_VIDEO_FRAME_N_PLANES(&mapped);
        out.planes[plane] = used ? mapped.data[plane] : nullptr;
        out.strides[plane] = used ? static_cast<std::size_t>(mapped.info.stride[plane]) : 0;
    }
    return out;
}

const char *colorimetry_of(GstCaps *caps) {
    return gst_structure_get_string(gst_caps_get_structure(caps, 0), "colorimetry");
}

}  // namespace

Reference::Reference(tcmoa_fit fit, const std::string &bundle) {
    tcmoa_options options;
    tcmoa_options_default(&options);
    options.fit = fit;
    const int status = tcmoa_open(bundle_folder(bundle).c_str(), &options, &fuser_);
    char text[500] = "";
    tcmoa_error(nullptr, text, sizeof text);
    INFO(text);
    REQUIRE(status == TCMOA_OK);
}

Bytes Reference::fuse(GstBuffer *x, GstCaps *x_caps, GstBuffer *y, GstCaps *y_caps, GstCaps *result, float scale,
                      float shift) {
    GstVideoInfo infos[3];
    REQUIRE(gst_video_info_from_caps(&infos[0], x_caps));
    REQUIRE(gst_video_info_from_caps(&infos[1], y_caps));
    REQUIRE(gst_video_info_from_caps(&infos[2], result));
    Buffer out(gst_buffer_new_allocate(nullptr, infos[2].size, nullptr));
    gst_buffer_memset(out.get(), 0, 0, infos[2].size);
    GstVideoFrame mapped[3];
    REQUIRE(gst_video_frame_map(&mapped[0], &infos[0], x, GST_MAP_READ));
    REQUIRE(gst_video_frame_map(&mapped[1], &infos[1], y, GST_MAP_READ));
    REQUIRE(gst_video_frame_map(&mapped[2], &infos[2], out.get(), GST_MAP_WRITE));
    const tcmoa_frame frames[] = {frame_of(mapped[0], colorimetry_of(x_caps)),
                                  frame_of(mapped[1], colorimetry_of(y_caps)),
                                  frame_of(mapped[2], colorimetry_of(result))};
    tcmoa_info info;
    REQUIRE(tcmoa_get_info(fuser_, &info) == TCMOA_OK);
    if (info.grid_width != 0) REQUIRE(tcmoa_set_prompt(fuser_, scale, shift) == TCMOA_OK);
    REQUIRE(tcmoa_fuse(fuser_, &frames[0], &frames[1], &frames[2]) == TCMOA_OK);
    for (GstVideoFrame &each : mapped) gst_video_frame_unmap(&each);
    return bytes_of(out.get());
}

Reference &reference() {
    static Reference only;
    return only;
}

int rate_of(GstCaps *caps) {
    int rate = -1, per = 0;
    gst_structure_get_fraction(gst_caps_get_structure(caps, 0), "framerate", &rate, &per);
    CHECK(per == 1);
    return rate;
}

int width_of(GstCaps *caps) {
    int width = 0;
    gst_structure_get_int(gst_caps_get_structure(caps, 0), "width", &width);
    return width;
}

int height_of(GstCaps *caps) {
    int height = 0;
    gst_structure_get_int(gst_caps_get_structure(caps, 0), "height", &height);
    return height;
}

int max_difference(const Bytes &a, const Bytes &b) {
    REQUIRE(a.size() == b.size());
    int max = 0;
    for (std::size_t i = 0; i < a.size(); ++i) max = std::max(max, std::abs(int{a[i]} - int{b[i]}));
    return max;
}
