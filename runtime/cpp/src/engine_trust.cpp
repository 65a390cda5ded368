#include "engine_trust.hpp"

#include <algorithm>

#include "regular_file.hpp"
#include "user_folders.hpp"

namespace tcmoa {
namespace {

constexpr std::uintmax_t kMaxRecordBytes = 1 << 20;
constexpr std::size_t kHashDigits = 64;

// The record is named by the hash, so the hash must be nothing but a file name.
bool is_sha256(const std::string &text) {
    return text.size() == kHashDigits && std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    });
}

}  // namespace

bool is_built_here(const Engine &engine) {
    const auto folder = open_user_folder(UserFolder::data, {"built-engines"});
    if (!folder || !is_sha256(engine.file.sha256)) return false;
    try {
        (void)RegularFile(*folder / engine.file.sha256, kMaxRecordBytes);
        return true;
    } catch (const FileError &) {
        return false;
    }
}

UntrustedError::UntrustedError(const Engine &engine)
    : Error(TCMOA_ERROR_BUNDLE, engine.path.string(),
            "this user did not build this engine, and an engine is native code; expected one that was built here",
            engine.remedy + ", or set trust_engines (GStreamer: trust-engines) if you trust whoever built it") {}

}  // namespace tcmoa
