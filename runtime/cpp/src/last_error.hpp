// The message of the last failed call, for tcmoa_error().
#pragma once

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <string>
#include <string_view>

namespace tcmoa {

// Thread-safe.
class LastError {
public:
    // Reuses the memory of an earlier message that was as long. Without memory the message is lost, not the status.
    void set(std::string_view message) noexcept {
        const std::lock_guard guard(lock_);
        try {
            message_ = message;
        } catch (const std::bad_alloc &) {
        }
    }

    // Copy at most `size` - 1 bytes and a final 0 to `text`; returns the bytes of the whole message.
    std::size_t copy_to(char *text, std::size_t size) const noexcept {
        const std::lock_guard guard(lock_);
        if (text != nullptr && size > 0) {
            const auto bytes = std::min(size - 1, message_.size());
            std::memcpy(text, message_.data(), bytes);
            text[bytes] = '\0';
        }
        return message_.size();
    }

private:
    mutable std::mutex lock_;
    std::string message_;
};

}  // namespace tcmoa
