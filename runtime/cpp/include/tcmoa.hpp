// tcmoa.hpp - the C++20 face of tcmoa.h: header only, moves handles, frees them, returns results instead of statuses.
//
//     auto fuser = tcmoa::Fuser::open("vif-640x480");
//     if (!fuser) return report(fuser.error());
//     auto done = fuser->fuse(tcmoa::rgb(visible, 640, 480), tcmoa::gray(infrared, 640, 480), tcmoa::rgb(out, 640, 480));
//
// Nothing here throws but Result::value() without a value, and std::bad_alloc. What tcmoa.h says about owners, threads
// and memory holds.
#ifndef TCMOA_HPP
#define TCMOA_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

#include "tcmoa.h"

namespace tcmoa {

// Why a call failed: a status below 0 and one line that says what arrived, what was expected and what to do.
struct Failure {
    int status = TCMOA_ERROR_INTERNAL;
    std::string message;
};

// What Result::value() throws where there is none.
class BadResult : public std::runtime_error {
public:
    explicit BadResult(const Failure &failure) : std::runtime_error(failure.message), status_(failure.status) {}
    [[nodiscard]] int status() const noexcept { return status_; }

private:
    int status_;
};

// A value, or why there is none; the part of C++23's std::expected that is needed here.
template <typename T>
class [[nodiscard]] Result {
public:
    Result(T value) : held_(std::in_place_index<0>, std::move(value)) {}
    Result(Failure failure) : held_(std::in_place_index<1>, std::move(failure)) {}

    [[nodiscard]] bool has_value() const noexcept { return held_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }

    T &value() & { return check(), *std::get_if<0>(&held_); }
    const T &value() const & { return check(), *std::get_if<0>(&held_); }
    T &&value() && { return check(), std::move(*std::get_if<0>(&held_)); }

    // Only with a value.
    T &operator*() & noexcept { return *std::get_if<0>(&held_); }
    const T &operator*() const & noexcept { return *std::get_if<0>(&held_); }
    T *operator->() noexcept { return std::get_if<0>(&held_); }
    const T *operator->() const noexcept { return std::get_if<0>(&held_); }

    // Only without.
    [[nodiscard]] const Failure &error() const noexcept { return *std::get_if<1>(&held_); }

private:
    std::variant<T, Failure> held_;

    void check() const {
        if (!has_value()) throw BadResult(error());
    }
};

// Success without a value.
struct Done {};
using Status = Result<Done>;

// An image in host memory without gaps between rows, which stays the caller's. Fields are those of tcmoa_frame: change
// what differs, such as strides.
inline tcmoa_frame frame(tcmoa_format format, void *pixels, int width, int height) noexcept {
    tcmoa_frame made;
    tcmoa_frame_init(&made, format, width, height, pixels);
    return made;
}

// The same from a span of bytes: a span that is too short gives a frame without pixels, which fusing refuses.
inline tcmoa_frame frame(tcmoa_format format, std::span<std::uint8_t> pixels, int width, int height) noexcept {
    const auto bytes = tcmoa_frame_bytes(format, width, height);
    return frame(format, bytes != 0 && pixels.size() >= bytes ? pixels.data() : nullptr, width, height);
}

// A source, which is only read.
inline tcmoa_frame frame(tcmoa_format format, std::span<const std::uint8_t> pixels, int width, int height) noexcept {
    return frame(format, std::span(const_cast<std::uint8_t *>(pixels.data()), pixels.size()), width, height);
}

template <typename Bytes>
tcmoa_frame rgb(Bytes &&pixels, int width, int height) noexcept {
    return frame(TCMOA_RGB8, std::span(pixels), width, height);
}
template <typename Bytes>
tcmoa_frame bgr(Bytes &&pixels, int width, int height) noexcept {
    return frame(TCMOA_BGR8, std::span(pixels), width, height);
}
template <typename Bytes>
tcmoa_frame gray(Bytes &&pixels, int width, int height) noexcept {
    return frame(TCMOA_GRAY8, std::span(pixels), width, height);
}

// Options with their defaults; fields are those of tcmoa_options.
struct Options : tcmoa_options {
    Options() noexcept { tcmoa_options_default(this); }
};

// A loaded bundle. Moved from, it is empty: every call but destruction and assignment then fails with
// TCMOA_ERROR_INPUT.
class Fuser {
public:
    static Result<Fuser> open(const std::string &bundle, const Options &options = {}) {
        tcmoa_fuser *handle = nullptr;
        const int status = tcmoa_open(bundle.c_str(), &options, &handle);
        if (status != TCMOA_OK) return failure(nullptr, status);
        return Fuser(handle);
    }

    Fuser(Fuser &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Fuser &operator=(Fuser &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    Fuser(const Fuser &) = delete;
    Fuser &operator=(const Fuser &) = delete;
    ~Fuser() { tcmoa_close(&handle_); }

    [[nodiscard]] Result<tcmoa_info> info() const { return get(tcmoa_get_info, tcmoa_info{}); }
    [[nodiscard]] Result<tcmoa_figures> figures() const { return get(tcmoa_get_figures, tcmoa_figures{}); }

    // alpha and beta of Eq. 8 for the whole frame, for frames that start later.
    Status set_prompt(float scale, float shift) { return status(tcmoa_set_prompt(handle_, scale, shift)); }

    // The same per token, row-major [gh, gw]; an empty map keeps what is set.
    Status set_prompt_maps(std::span<const float> scale, std::span<const float> shift) {
        if (!scale.empty() && !shift.empty() && scale.size() != shift.size()) {
            return Failure{TCMOA_ERROR_INPUT, "scale holds " + std::to_string(scale.size()) + " numbers and shift " +
                                                  std::to_string(shift.size()) + ": expected as many in both"};
        }
        return status(tcmoa_set_prompt_maps(handle_, scale.empty() ? nullptr : scale.data(),
                                            shift.empty() ? nullptr : shift.data(),
                                            scale.empty() ? shift.size() : scale.size()));
    }

    // Fuse one pair, and return when `fused` holds the result.
    Status fuse(const tcmoa_frame &x, const tcmoa_frame &y, const tcmoa_frame &fused) {
        return status(tcmoa_fuse(handle_, &x, &y, &fused));
    }

    // The same with the prompts, float32 [K, 2, gh, gw].
    Status fuse(const tcmoa_frame &x, const tcmoa_frame &y, const tcmoa_frame &fused, std::span<float> prompt) {
        return status(tcmoa_fuse_with_prompt(handle_, &x, &y, &fused, prompt.data(), prompt.size()));
    }

    // Start one pair; the ticket is taken with wait() or discard(). TCMOA_ERROR_BUSY when all slots hold frames.
    Result<std::uint64_t> submit(const tcmoa_frame &x, const tcmoa_frame &y) {
        std::uint64_t ticket = 0;
        const int code = tcmoa_submit(handle_, &x, &y, &ticket);
        if (code != TCMOA_OK) return failure(handle_, code);
        return ticket;
    }

    // Write a started frame to `fused`. Without a limit it waits for as long as it takes.
    Status wait(std::uint64_t ticket, const tcmoa_frame &fused,
                std::optional<std::chrono::milliseconds> limit = std::nullopt) {
        return status(tcmoa_wait(handle_, ticket, &fused, limit ? (limit->count() < 0 ? 0 : limit->count()) : -1));
    }

    Status discard(std::uint64_t ticket) { return status(tcmoa_discard(handle_, ticket)); }

    // For functions of tcmoa.h that have no face here; stays this object's.
    [[nodiscard]] tcmoa_fuser *get() const noexcept { return handle_; }

private:
    tcmoa_fuser *handle_;

    explicit Fuser(tcmoa_fuser *handle) noexcept : handle_(handle) {}

    static Failure failure(const tcmoa_fuser *handle, int code) {
        std::string text(tcmoa_error(handle, nullptr, 0), '\0');
        text.resize(std::min(text.size(), tcmoa_error(handle, text.data(), text.size() + 1)));
        return {code, std::move(text)};
    }

    [[nodiscard]] Status status(int code) const {
        if (code != TCMOA_OK) return failure(handle_, code);
        return Done{};
    }

    template <typename Function, typename Answer>
    [[nodiscard]] Result<Answer> get(Function function, Answer answer) const {
        const int code = function(handle_, &answer);
        if (code != TCMOA_OK) return failure(handle_, code);
        return answer;
    }
};

}  // namespace tcmoa

#endif
