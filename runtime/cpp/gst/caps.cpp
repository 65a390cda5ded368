#include "caps.hpp"

#include <optional>

namespace tcmoa::gst {
namespace {

#if G_BYTE_ORDER == G_LITTLE_ENDIAN
constexpr GstVideoFormat kGray16 = GST_VIDEO_FORMAT_GRAY16_LE;
#else
constexpr GstVideoFormat kGray16 = GST_VIDEO_FORMAT_GRAY16_BE;
#endif

// In order of preference for the result.
constexpr GstVideoFormat kFormats[] = {GST_VIDEO_FORMAT_RGB,  GST_VIDEO_FORMAT_BGR,  GST_VIDEO_FORMAT_NV12,
                                       GST_VIDEO_FORMAT_I420, GST_VIDEO_FORMAT_RGBA, GST_VIDEO_FORMAT_BGRA,
                                       GST_VIDEO_FORMAT_GRAY8, kGray16};

// A tcmoa_format; -1 if the library has no such format.
int to_tcmoa_format(GstVideoFormat format) {
    switch (format) {
        case GST_VIDEO_FORMAT_RGB: return TCMOA_RGB8;
        case GST_VIDEO_FORMAT_BGR: return TCMOA_BGR8;
        case GST_VIDEO_FORMAT_RGBA: return TCMOA_RGBA8;
        case GST_VIDEO_FORMAT_BGRA: return TCMOA_BGRA8;
        case GST_VIDEO_FORMAT_GRAY8: return TCMOA_GRAY8;
        case kGray16: return TCMOA_GRAY16;
        case GST_VIDEO_FORMAT_NV12: return TCMOA_NV12;
        case GST_VIDEO_FORMAT_I420: return TCMOA_I420;
        default: return -1;
    }
}

// Nothing if the library does not support the matrix.
std::optional<tcmoa_matrix> to_tcmoa_matrix(const GstVideoColorimetry &colorimetry) {
    const bool full = colorimetry.range == GST_VIDEO_COLOR_RANGE_0_255;
    switch (colorimetry.matrix) {
        case GST_VIDEO_COLOR_MATRIX_BT709: return full ? TCMOA_BT709_FULL : TCMOA_BT709_LIMITED;
        case GST_VIDEO_COLOR_MATRIX_BT601:
        case GST_VIDEO_COLOR_MATRIX_UNKNOWN: return full ? TCMOA_BT601_FULL : TCMOA_BT601_LIMITED;
        default: return std::nullopt;
    }
}

bool is_yuv(const GstVideoInfo &info) { return GST_VIDEO_INFO_IS_YUV(&info); }

void append_format(GstCaps *caps, GstVideoFormat format, const GstVideoInfo &x) {
    gst_caps_append_structure(
        caps, gst_structure_new("video/x-raw", "format", G_TYPE_STRING, gst_video_format_to_string(format), "width",
                                G_TYPE_INT, x.width, "height", G_TYPE_INT, x.height, "framerate", GST_TYPE_FRACTION,
                                x.fps_n, x.fps_d, "pixel-aspect-ratio", GST_TYPE_FRACTION, x.par_n, x.par_d,
                                "interlace-mode", G_TYPE_STRING,
                                gst_video_interlace_mode_to_string(x.interlace_mode), nullptr));
}

// Set the matrix and range of a YUV result: that of downstream, else that of x, else the default of the format.
void set_colorimetry(GstCaps *caps, const GstVideoInfo &x) {
    GstStructure *structure = gst_caps_get_structure(caps, 0);
    GstVideoFormat format = gst_video_format_from_string(gst_structure_get_string(structure, "format"));
    GstVideoInfo result;
    gst_video_info_set_format(&result, format, static_cast<guint>(x.width), static_cast<guint>(x.height));
    if (!is_yuv(result)) return;
    gchar *name = gst_video_colorimetry_to_string(is_yuv(x) ? &x.colorimetry : &result.colorimetry);
    if (name == nullptr) return;
    if (gst_structure_has_field(structure, "colorimetry"))
        gst_structure_fixate_field_string(structure, "colorimetry", name);
    else
        gst_structure_set(structure, "colorimetry", G_TYPE_STRING, name, nullptr);
    g_free(name);
}

}  // namespace

GstCaps *sink_caps(GstPad *pad, const Sizes &sizes, GstCaps *filter) {
    GstCaps *caps = gst_pad_get_pad_template_caps(pad);
    if (sizes.width > 0 && sizes.height > 0) {
        caps = gst_caps_make_writable(caps);
        if (sizes.smaller) {
            gst_caps_set_simple(caps, "width", GST_TYPE_INT_RANGE, 1, MAX(sizes.width, 2), "height",
                                GST_TYPE_INT_RANGE, 1, MAX(sizes.height, 2), nullptr);
        } else {
            gst_caps_set_simple(caps, "width", G_TYPE_INT, sizes.width, "height", G_TYPE_INT, sizes.height, nullptr);
        }
    }
    if (filter != nullptr) {
        GstCaps *filtered = gst_caps_intersect_full(filter, caps, GST_CAPS_INTERSECT_FIRST);
        gst_caps_unref(caps);
        caps = filtered;
    }
    return caps;
}

std::string find_problem(const GstVideoInfo &info, const char *name) {
    const std::string subject = std::string(name) + ": ";
    if (info.interlace_mode == GST_VIDEO_INTERLACE_MODE_ALTERNATE) {
        return subject + "one field per buffer; expected whole frames. Add deinterlace before it.";
    }
    if (to_tcmoa_format(GST_VIDEO_INFO_FORMAT(&info)) < 0) {
        return subject + "format " + gst_video_format_to_string(GST_VIDEO_INFO_FORMAT(&info)) +
               "; expected one of " TCMOA_GST_FORMATS ". Add videoconvert before it.";
    }
    if (is_yuv(info) && !to_tcmoa_matrix(info.colorimetry)) {
        gchar *text = gst_video_colorimetry_to_string(&info.colorimetry);
        const std::string colorimetry = text == nullptr ? "unknown" : text;
        g_free(text);
        return subject + "colorimetry " + colorimetry +
               "; expected a BT.601 or BT.709 matrix. Add videoconvert ! video/x-raw,colorimetry=bt709 before it.";
    }
    return {};
}

GstCaps *source_caps(const GstVideoInfo &x, GstVideoFormat current, GstCaps *allowed) {
    GstCaps *preferred = gst_caps_new_empty();
    if (current != GST_VIDEO_FORMAT_UNKNOWN) append_format(preferred, current, x);
    if (!GST_VIDEO_INFO_IS_GRAY(&x)) append_format(preferred, GST_VIDEO_INFO_FORMAT(&x), x);
    for (const GstVideoFormat format : kFormats) append_format(preferred, format, x);
    GstCaps *caps = gst_caps_intersect_full(preferred, allowed, GST_CAPS_INTERSECT_FIRST);
    gst_caps_unref(preferred);
    if (gst_caps_is_empty(caps)) return caps;
    caps = gst_caps_truncate(caps);
    set_colorimetry(caps, x);
    return gst_caps_fixate(caps);
}

tcmoa_frame to_tcmoa_frame(const GstVideoFrame &frame) {
    tcmoa_frame out;
    const GstVideoInfo &info = frame.info;
    tcmoa_frame_init(&out, to_tcmoa_format(GST_VIDEO_INFO_FORMAT(&info)), info.width, info.height, nullptr);
    out.matrix = to_tcmoa_matrix(info.colorimetry).value_or(TCMOA_BT601_LIMITED);
    for (guint plane = 0; plane < 3; ++plane) {
        const bool used = plane < GST_VIDEO_FRAME_N_PLANES(&frame);
        out.planes[plane] = used ? GST_VIDEO_FRAME_PLANE_DATA(&frame, plane) : nullptr;
        out.strides[plane] = used ? static_cast<size_t>(GST_VIDEO_FRAME_PLANE_STRIDE(&frame, plane)) : 0;
    }
    return out;
}

}  // namespace tcmoa::gst
