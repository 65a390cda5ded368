// The C library's handle, see fuser.hpp.
#include "fuser.hpp"

#include <chrono>
#include <vector>

namespace tcmoa::gst {

int Fuser::open(const std::string &bundle, const std::string &backend, int threads) {
    close();
    tcmoa_options options;
    tcmoa_options_default(&options);
    options.backend = backend.c_str();
    options.threads = threads;
    int status = tcmoa_open(bundle.c_str(), &options, &handle_);
    if (status != TCMOA_OK) return status;
    bundle_ = bundle;
    if (status = tcmoa_get_info(handle_, &info_); status != TCMOA_OK) return status;
    return warm_up();
}

int Fuser::warm_up() {
    std::vector<std::uint8_t> pixels(tcmoa_frame_bytes(TCMOA_RGB8, info_.width, info_.height));
    tcmoa_frame frame;
    tcmoa_frame_init(&frame, TCMOA_RGB8, info_.width, info_.height, pixels.data());
    const auto start = std::chrono::steady_clock::now();
    const int status = fuse(frame, frame, frame);
    const auto spent = std::chrono::steady_clock::now() - start;
    first_frame_ns_ = static_cast<std::uint64_t>(std::chrono::nanoseconds(spent).count());
    if (status == TCMOA_OK) before_ = figures();
    return status;
}

void Fuser::close() {
    tcmoa_close(&handle_);
    info_ = {};
    bundle_.clear();
    before_ = {};
    prompted_ = false;
}

int Fuser::fuse(const tcmoa_frame &x, const tcmoa_frame &y, const tcmoa_frame &fused) {
    return tcmoa_fuse(handle_, &x, &y, &fused);
}

int Fuser::set_prompt(double scale, double shift) {
    if (prompted_ && scale == scale_ && shift == shift_) return TCMOA_OK;
    const int status = tcmoa_set_prompt(handle_, static_cast<float>(scale), static_cast<float>(shift));
    scale_ = scale;
    shift_ = shift;
    prompted_ = status == TCMOA_OK;
    return status;
}

Figures Fuser::figures() const {
    tcmoa_figures total = {};
    if (handle_ == nullptr || tcmoa_get_figures(handle_, &total) != TCMOA_OK) return {};
    return {total.frames - before_.frames, total.failed - before_.failed, total.backend_ns - before_.backend_ns,
            total.convert_ns - before_.convert_ns};
}

std::string Fuser::error() const {
    std::string text(tcmoa_error(handle_, nullptr, 0) + 1, '\0');
    tcmoa_error(handle_, text.data(), text.size());
    text.resize(text.find('\0') == std::string::npos ? text.size() : text.find('\0'));
    return text;
}

}  // namespace tcmoa::gst
