// Test pictures, and what the library itself makes of them.
#pragma once

#include <gst/video/video.h>
#include <tcmoa.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

constexpr int kSide = 112;  // of the test bundles
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

// No vector, so that a failed comparison does not print 37632 numbers.
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

// Caps of frames in `format` at `rate`, of the bundles' size unless another is given.
Caps caps_of(const char *format, int rate = 30, int width = kSide, int height = kSide,
             const char *colorimetry = nullptr);

// A picture in the layout of `caps`, another one for each `seed`, with `padding` bytes more in each row than needed.
Buffer picture(GstCaps *caps, unsigned seed, int padding = 0);

// The time of frame `index` at `rate` frames a second, as GStreamer's sources count it.
GstClockTime time_of(int index, int rate);

// A frame with time stamp and duration.
Buffer timed(Buffer buffer, GstClockTime pts, GstClockTime duration);
Buffer frame(GstCaps *caps, unsigned seed, int index, int rate);

Bytes bytes_of(GstBuffer *buffer);

// The library, without the element: what must come out.
class Reference {
   public:
    Reference();
    ~Reference() { tcmoa_close(&fuser_); }
    Reference(const Reference &) = delete;
    Reference &operator=(const Reference &) = delete;

    Bytes fuse(GstBuffer *x, GstCaps *x_caps, GstBuffer *y, GstCaps *y_caps, GstCaps *result, float scale = 1,
               float shift = 0);

   private:
    tcmoa_fuser *fuser_ = nullptr;
};

// The one of this process: opening takes longer than fusing.
Reference &reference();

// The framerate of caps, in whole frames a second.
int rate_of(GstCaps *caps);

// The largest difference between two results of one size.
int difference(const Bytes &a, const Bytes &b);
