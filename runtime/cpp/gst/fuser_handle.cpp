#include "fuser_handle.hpp"

#include <chrono>
#include <vector>

namespace tcmoa::gst {

int FuserHandle::open(const std::string &bundle, const std::string &backend, int threads, int fit, bool trust_engines) {
    close();
    tcmoa_options options;
    tcmoa_options_default(&options);
    options.backend = backend.c_str();
    options.threads = threads;
    options.fit = fit;
    options.trust_engines = trust_engines ? 1 : 0;
    int status = tcmoa_open(bundle.c_str(), &options, &handle_);
    if (status != TCMOA_OK) return status;
    bundle_ = bundle;
    fit_ = fit;
    if (status = tcmoa_get_info(handle_, &info_); status != TCMOA_OK) return status;
    return warm_up();
}

int FuserHandle::warm_up() {
    std::vector<std::uint8_t> pixels(tcmoa_frame_bytes(TCMOA_RGB8, info_.width, info_.height));
    tcmoa_frame frame;
    tcmoa_frame_init(&frame, TCMOA_RGB8, info_.width, info_.height, pixels.data());
    const auto start = std::chrono::steady_clock::now();
    const int status = fuse(frame, frame, frame);
    const auto elapsed = std::chrono::steady_clock::now() - start;
    first_frame_ns_ = static_cast<std::uint64_t>(std::chrono::nanoseconds(elapsed).count());
    if (status == TCMOA_OK) warm_up_stats_ = stats();
    return status;
}

void FuserHandle::close() {
    tcmoa_close(&handle_);
    info_ = {};
    bundle_.clear();
    fit_ = TCMOA_FIT_EXACT;
    warm_up_stats_ = {};
    prompt_is_set_ = false;
}

bool FuserHandle::accepts(int width, int height) const {
    std::int32_t grid_width = 0, grid_height = 0;
    return tcmoa_get_grid(handle_, width, height, &grid_width, &grid_height) == TCMOA_OK;
}

int FuserHandle::fuse(const tcmoa_frame &x, const tcmoa_frame &y, const tcmoa_frame &fused) {
    return tcmoa_fuse(handle_, &x, &y, &fused);
}

int FuserHandle::set_prompt(double scale, double shift) {
    if (prompt_is_set_ && scale == scale_ && shift == shift_) return TCMOA_OK;
    const int status = tcmoa_set_prompt(handle_, static_cast<float>(scale), static_cast<float>(shift));
    scale_ = scale;
    shift_ = shift;
    prompt_is_set_ = status == TCMOA_OK;
    return status;
}

FuserStats FuserHandle::stats() const {
    tcmoa_stats total = {};
    if (handle_ == nullptr || tcmoa_get_stats(handle_, &total) != TCMOA_OK) return {};
    return {total.frames - warm_up_stats_.frames, total.failed - warm_up_stats_.failed,
            total.backend_ns - warm_up_stats_.backend_ns, total.convert_ns - warm_up_stats_.convert_ns};
}

std::string FuserHandle::error() const {
    std::string text(tcmoa_error(handle_, nullptr, 0) + 1, '\0');
    tcmoa_error(handle_, text.data(), text.size());
    text.resize(text.find('\0') == std::string::npos ? text.size() : text.find('\0'));
    return text;
}

}  // namespace tcmoa::gst
