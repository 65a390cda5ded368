/// @file tcmoa.hpp
/// C++17 interface of libtcmoa: header-only, moves and frees handles, returns results in place of statuses.
///
///     auto fuser = tcmoa::Fuser::open("vif-640x480");
///     if (!fuser) return report(fuser.error());
///     const auto x = tcmoa::rgb(visible, 640, 480), y = tcmoa::gray(infrared, 640, 480);
///     if (auto done = fuser->fuse(x, y, tcmoa::rgb(result, 640, 480)); !done) return report(done.error());
///
/// Nothing here throws but Result::value() without a value, and std::bad_alloc. Ownership, threads and memory are as in
/// tcmoa.h.
#ifndef TCMOA_HPP
#define TCMOA_HPP

#if defined(_MSVC_LANG) ? _MSVC_LANG < 201703L : __cplusplus < 201703L
#error "tcmoa.hpp needs C++17: compile with -std=c++17 or newer, or link the CMake target tcmoa::tcmoa"
#endif

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <type_traits>
#include <variant>
#if __has_include(<version>)
#include <version>
#endif
#ifdef __cpp_lib_span
#include <span>
#endif

#include "tcmoa.h"

namespace tcmoa {

#ifdef __cpp_lib_span
/// Consecutive values that belong to the caller.
template <typename T>
using Span = std::span<T>;
#else
/// Consecutive values that belong to the caller; the part of C++20's std::span that is needed here.
template <typename T>
class Span {
public:
    Span() noexcept = default;
    Span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    /// All values of a container with data() and size().
    template <typename Container, typename = std::enable_if_t<std::is_convertible_v<
                                      decltype(std::declval<Container &>().data()), T *>>>
    Span(Container &&values) noexcept : data_(values.data()), size_(values.size()) {}

    [[nodiscard]] T *data() const noexcept { return data_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};
#endif

/// Why a call failed.
struct Failure {
    /// A negative `tcmoa_status`.
    int status = TCMOA_ERROR_INTERNAL;
    /// One line: `subject: problem; expected what. Remedy.`
    std::string message;
};

/// Thrown by Result::value() if there is no value.
class BadResultAccess : public std::runtime_error {
public:
    explicit BadResultAccess(const Failure &failure) : std::runtime_error(failure.message), status_(failure.status) {}
    [[nodiscard]] int status() const noexcept { return status_; }

private:
    int status_;
};

/// A value, or the failure in its place; the part of C++23's std::expected that is needed here.
template <typename T>
class [[nodiscard]] Result {
public:
    Result(T value) : content_(std::in_place_index<0>, std::move(value)) {}
    Result(Failure failure) : content_(std::in_place_index<1>, std::move(failure)) {}

    [[nodiscard]] bool has_value() const noexcept { return content_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }

    /// The value; throws BadResultAccess if there is none.
    T &value() & { return check(), *std::get_if<0>(&content_); }
    const T &value() const & { return check(), *std::get_if<0>(&content_); }
    T &&value() && { return check(), std::move(*std::get_if<0>(&content_)); }

    /// The value; undefined if there is none.
    T &operator*() & noexcept { return *std::get_if<0>(&content_); }
    const T &operator*() const & noexcept { return *std::get_if<0>(&content_); }
    T *operator->() noexcept { return std::get_if<0>(&content_); }
    const T *operator->() const noexcept { return std::get_if<0>(&content_); }

    /// The failure; undefined if there is a value.
    [[nodiscard]] const Failure &error() const noexcept { return *std::get_if<1>(&content_); }

private:
    std::variant<T, Failure> content_;

    void check() const {
        if (!has_value()) throw BadResultAccess(error());
    }
};

/// The value of a call that succeeded and has no other value.
struct Success {};

/// Result of a call without a value.
using Status = Result<Success>;

/// Describe an image in host memory without gaps between rows. The caller owns the pixels, and may set fields that
/// differ, e.g. strides.
inline tcmoa_frame frame(tcmoa_format format, void *pixels, int width, int height) noexcept {
    tcmoa_frame result;
    tcmoa_frame_init(&result, format, width, height, pixels);
    return result;
}

/// Describe an image in a span of bytes. A span that is too short gives a frame without pixels, which fusing refuses.
inline tcmoa_frame frame(tcmoa_format format, Span<std::uint8_t> pixels, int width, int height) noexcept {
    const auto bytes = tcmoa_frame_bytes(format, width, height);
    return frame(format, bytes != 0 && pixels.size() >= bytes ? pixels.data() : nullptr, width, height);
}

/// Describe a source in a span of bytes. It must not be used for a result.
inline tcmoa_frame frame(tcmoa_format format, Span<const std::uint8_t> pixels, int width, int height) noexcept {
    return frame(format, Span<std::uint8_t>(const_cast<std::uint8_t *>(pixels.data()), pixels.size()), width, height);
}

/// The bytes of a container, which are constant if those of the container are.
template <typename Bytes>
auto bytes_of(Bytes &pixels) noexcept {
    return Span<std::remove_pointer_t<decltype(pixels.data())>>(pixels.data(), pixels.size());
}

/// Describe an RGB8 image in a container of bytes.
template <typename Bytes>
tcmoa_frame rgb(Bytes &&pixels, int width, int height) noexcept {
    return frame(TCMOA_RGB8, bytes_of(pixels), width, height);
}

/// Describe a BGR8 image in a container of bytes.
template <typename Bytes>
tcmoa_frame bgr(Bytes &&pixels, int width, int height) noexcept {
    return frame(TCMOA_BGR8, bytes_of(pixels), width, height);
}

/// Describe a GRAY8 image in a container of bytes.
template <typename Bytes>
tcmoa_frame gray(Bytes &&pixels, int width, int height) noexcept {
    return frame(TCMOA_GRAY8, bytes_of(pixels), width, height);
}

/// Options with their defaults; the fields are those of tcmoa_options.
struct Options : tcmoa_options {
    Options() noexcept { tcmoa_options_default(this); }
};

/// A loaded bundle. After it was moved from it is empty: all calls but destruction and assignment fail with
/// TCMOA_ERROR_INPUT.
class Fuser {
public:
    /// Check a bundle, load it and warm it up, see tcmoa_open().
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

    /// Description of the bundle and the backend. The strings are valid until the handle is closed.
    [[nodiscard]] Result<tcmoa_info> info() const { return get(tcmoa_get_info, tcmoa_info{}); }

    /// Counters since open().
    [[nodiscard]] Result<tcmoa_stats> stats() const { return get(tcmoa_get_stats, tcmoa_stats{}); }

    /// Set alpha and beta of Eq. 8 for the whole frame; frames that start later use them.
    Status set_prompt(float scale, float shift) { return status(tcmoa_set_prompt(handle_, scale, shift)); }

    /// Set alpha and beta of Eq. 8 per token, row-major [gh, gw]; an empty map keeps the current one.
    Status set_prompt_maps(Span<const float> scale, Span<const float> shift) {
        if (auto same = check_maps(scale, shift); !same) return same;
        return status(tcmoa_set_prompt_maps(handle_, scale.empty() ? nullptr : scale.data(),
                                            shift.empty() ? nullptr : shift.data(),
                                            scale.empty() ? shift.size() : scale.size()));
    }

    /// Tokens of prompt maps.
    struct Grid {
        std::int32_t width, height;
    };

    /// Size of prompt maps for frames of a size, see tcmoa_get_grid().
    [[nodiscard]] Result<Grid> grid(int width, int height) const {
        Grid result{};
        const int code = tcmoa_get_grid(handle_, width, height, &result.width, &result.height);
        if (code != TCMOA_OK) return failure(handle_, code);
        return result;
    }

    /// Set alpha and beta of Eq. 8 per token for frames of another size than the bundle's, row-major [gh, gw] of
    /// grid(); an empty map keeps the current one.
    Status set_prompt_maps(int width, int height, Span<const float> scale, Span<const float> shift) {
        if (auto same = check_maps(scale, shift); !same) return same;
        return status(tcmoa_set_prompt_maps_for_size(handle_, width, height, scale.empty() ? nullptr : scale.data(),
                                                     shift.empty() ? nullptr : shift.data(),
                                                     scale.empty() ? shift.size() : scale.size()));
    }

    /// Fuse one pair of frames and wait for the result.
    Status fuse(const tcmoa_frame &x, const tcmoa_frame &y, const tcmoa_frame &fused) {
        return status(tcmoa_fuse(handle_, &x, &y, &fused));
    }

    /// Fuse one pair of frames, wait for the result, and get the prompts, float32 [K, 2, gh, gw].
    Status fuse(const tcmoa_frame &x, const tcmoa_frame &y, const tcmoa_frame &fused, Span<float> prompt) {
        return status(tcmoa_fuse_with_prompt(handle_, &x, &y, &fused, prompt.data(), prompt.size()));
    }

    /// Start to fuse one pair of frames. The ticket is taken with wait() or discard(). TCMOA_ERROR_BUSY if no slot
    /// is free.
    Result<std::uint64_t> submit(const tcmoa_frame &x, const tcmoa_frame &y) {
        std::uint64_t ticket = 0;
        const int code = tcmoa_submit(handle_, &x, &y, &ticket);
        if (code != TCMOA_OK) return failure(handle_, code);
        return ticket;
    }

    /// Wait for a started frame and write its result to `fused`. TCMOA_ERROR_TIMEOUT if it is not ready within
    /// `timeout`; without a timeout there is no limit.
    Status wait(std::uint64_t ticket, const tcmoa_frame &fused,
                std::optional<std::chrono::milliseconds> timeout = std::nullopt) {
        const auto ms = timeout ? std::max<std::int64_t>(timeout->count(), 0) : -1;
        return status(tcmoa_wait(handle_, ticket, &fused, ms));
    }

    /// Wait for a started frame and drop its result.
    Status discard(std::uint64_t ticket) { return status(tcmoa_discard(handle_, ticket)); }

    /// The handle for other functions of tcmoa.h; owned by this object.
    [[nodiscard]] tcmoa_fuser *get() const noexcept { return handle_; }

private:
    tcmoa_fuser *handle_;

    explicit Fuser(tcmoa_fuser *handle) noexcept : handle_(handle) {}

    static Failure failure(const tcmoa_fuser *handle, int code) {
        std::string text(tcmoa_error(handle, nullptr, 0), '\0');
        // Another thread may replace the message by one of another length between the two calls.
        text.resize(std::min(text.size(), tcmoa_error(handle, text.data(), text.size() + 1)));
        return {code, std::move(text)};
    }

    static Status check_maps(Span<const float> scale, Span<const float> shift) {
        if (scale.empty() || shift.empty() || scale.size() == shift.size()) return Success{};
        return Failure{TCMOA_ERROR_INPUT, "shift: " + std::to_string(shift.size()) + " values; expected " +
                                              std::to_string(scale.size()) + " as in scale"};
    }

    [[nodiscard]] Status status(int code) const {
        if (code != TCMOA_OK) return failure(handle_, code);
        return Success{};
    }

    template <typename Function, typename Struct>
    [[nodiscard]] Result<Struct> get(Function function, Struct result) const {
        const int code = function(handle_, &result);
        if (code != TCMOA_OK) return failure(handle_, code);
        return result;
    }
};

}  // namespace tcmoa

#endif
