// Test frames, and the results of the library for them.
#pragma once

#include <gst/video/video.h>
#include <tcmoa.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

constexpr int kSide = 112;  // width and height of the test bundles in pixels
constexpr std::size_t kRgbBytes = std::size_t{3} * kSide * kSide;

std::string bundle_folder(const std::string &name = "vif-small");

struct Unref {
    void operator()(GstBuffer *buffer) const { gst_buffer_unref(buffer); }
    void operator()(GstSample *sample) const { gst_sample_unref(sample); }
    void operator()(GstMessage *message) const { gst_message_unref(message); }
    void operator()(GstCaps *caps) const { gst_caps_unref(caps); }
    void operator()(GstStructure *structure) const { gst_structure_free(structure); }
};
using Buffer = std::unique_ptr<GstBuffer, Unref>;
using Sample = std::unique_ptr<GstSample, Unref>;
using Message = std::unique_ptr<GstMessage, Unref>;
using Caps = std::unique_ptr<GstCaps, Unref>;
using Structure = std::unique_ptr<GstStructure, Unref>;

// Not a vector: a failed comparison would print 37632 numbers.
class Bytes {
public:
    explicit Bytes(std::size_t size = 0) : bytes_(size) {}
    std::uint8_t *data() { return bytes_.data(); }
    const std::uint8_t *data() const { return bytes_.data(); }
    std::size_t size() const { return bytes_.size(); }
    std::uint8_t operator[](std::size_t i) const { return bytes_[i]; }
    bool operator==(const Bytes &) const = default;

private:
    std::vector<std::uint8_t> bytes_;
};

// Caps of frames in `format` at `rate` frames per second.
Caps caps_of(const char *format, int rate = 30, int width = kSide, int height = kSide,
             const char *colorimetry = nullptr);

// A buffer with pixels for `caps` that depend on `seed`, with `padding` unused bytes in each row.
Buffer make_buffer(GstCaps *caps, unsigned seed, int padding = 0);

// The time of frame `index` at `rate` frames per second, rounded like GStreamer's sources.
GstClockTime time_of(int index, int rate);

// A buffer with timestamp and duration.
Buffer with_time(Buffer buffer, GstClockTime pts, GstClockTime duration);
Buffer make_frame(GstCaps *caps, unsigned seed, int index, int rate);

Bytes bytes_of(GstBuffer *buffer);

// The library without the element: the expected results.
class Reference {
public:
    explicit Reference(tcmoa_fit fit = TCMOA_FIT_EXACT, const std::string &bundle = "vif-small");
    ~Reference() { tcmoa_close(&fuser_); }
    Reference(const Reference &) = delete;
    Reference &operator=(const Reference &) = delete;

    Bytes fuse(GstBuffer *x, GstCaps *x_caps, GstBuffer *y, GstCaps *y_caps, GstCaps *result, float scale = 1,
               float shift = 0);

private:
    tcmoa_fuser *fuser_ = nullptr;
};

// Shared by all tests, since opening a bundle takes longer than fusing.
Reference &reference();

// The framerate of caps in whole frames per second.
int rate_of(GstCaps *caps);

// The size of caps in pixels.
int width_of(GstCaps *caps);
int height_of(GstCaps *caps);

// The largest absolute difference between two results of the same size.
int max_difference(const Bytes &a, const Bytes &b);
