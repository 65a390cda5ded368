// An open bundle: the handle of the C library, its description and its errors.
#pragma once

#include <tcmoa.h>

#include <cstdint>
#include <string>

namespace tcmoa::gst {

struct FuserStats {
    std::uint64_t frames = 0, failed = 0, backend_ns = 0, convert_ns = 0;
};

class FuserHandle {
public:
    FuserHandle() = default;
    ~FuserHandle() { close(); }
    FuserHandle(const FuserHandle &) = delete;
    FuserHandle &operator=(const FuserHandle &) = delete;

    // Open `bundle` and fuse one black pair of its size, which measures the time of a frame. fit: a tcmoa_fit. Returns a
    // tcmoa_status.
    int open(const std::string &bundle, const std::string &backend, int threads, int fit, bool trust_engines);
    void close();

    int fuse(const tcmoa_frame &x, const tcmoa_frame &y, const tcmoa_frame &fused);
    int set_prompt(double scale, double shift);

    explicit operator bool() const { return handle_ != nullptr; }
    const tcmoa_info &info() const { return info_; }
    const std::string &bundle() const { return bundle_; }
    int fit() const { return fit_; }

    // Whether frames of other sizes can be cut into tiles, or only resized.
    bool tiles() const { return info_.can_tile != 0; }

    // Whether frames of this size are fused.
    bool accepts(int width, int height) const;
    std::uint64_t first_frame_ns() const { return first_frame_ns_; }

    // Counters since open(), without the black pair.
    FuserStats stats() const;

    // One line: why the last call failed.
    std::string error() const;

private:
    int warm_up();

    tcmoa_fuser *handle_ = nullptr;
    tcmoa_info info_ = {};
    std::string bundle_;
    int fit_ = TCMOA_FIT_EXACT;
    FuserStats warm_up_stats_;
    std::uint64_t first_frame_ns_ = 0;
    double scale_ = 0, shift_ = 0;
    bool prompt_is_set_ = false;
};

}  // namespace tcmoa::gst
