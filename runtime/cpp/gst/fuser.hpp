// An opened bundle: the C library's handle, its description and its last message.
#pragma once

#include <tcmoa.h>

#include <cstdint>
#include <string>

namespace tcmoa::gst {

struct Figures {
    std::uint64_t frames = 0, failed = 0, backend_ns = 0, convert_ns = 0;
};

class Fuser {
   public:
    Fuser() = default;
    ~Fuser() { close(); }
    Fuser(const Fuser &) = delete;
    Fuser &operator=(const Fuser &) = delete;

    // Open `bundle` and fuse one blank pair, which tells how long a frame takes; returns a tcmoa_status.
    int open(const std::string &bundle, const std::string &backend, int threads);
    void close();

    int fuse(const tcmoa_frame &x, const tcmoa_frame &y, const tcmoa_frame &fused);
    int set_prompt(double scale, double shift);

    explicit operator bool() const { return handle_ != nullptr; }
    const tcmoa_info &info() const { return info_; }
    const std::string &bundle() const { return bundle_; }
    std::uint64_t first_frame_ns() const { return first_frame_ns_; }

    // What was done since open(), without the blank pair.
    Figures figures() const;

    // One line: why the last call failed.
    std::string error() const;

   private:
    int warm_up();

    tcmoa_fuser *handle_ = nullptr;
    tcmoa_info info_ = {};
    std::string bundle_;
    Figures before_;
    std::uint64_t first_frame_ns_ = 0;
    double scale_ = 0, shift_ = 0;
    bool prompted_ = false;
};

}  // namespace tcmoa::gst
