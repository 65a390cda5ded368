// Manifests: bundle.json and the JSON files of engines. They carry a hash of their own, and every value is checked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace tcmoa {

using Manifest = nlohmann::json;

// Key of the manifest's own hash: over all other keys, as canonical JSON.
inline constexpr const char *kManifestHash = "manifest_sha256";

// The required format of a manifest, and the texts of its errors.
struct ManifestKind {
    std::string_view format;      // value of the key "format"
    std::int64_t format_version;  // newest value of the key "format_version" that this library reads
    std::string_view noun;        // for messages, e.g. "a TC-MoA bundle"
    std::string_view remedy;      // for messages, e.g. "export it again"
};

// Read the JSON object in `path`. Throws Error (TCMOA_ERROR_BUNDLE) if it is unreadable, larger than 1 MiB, not
// JSON, of another format, of a newer version, or does not match its own hash.
Manifest read_manifest(const std::filesystem::path &path, const ManifestKind &kind);

// Parse the text of a manifest with the same checks; `path` is for messages.
Manifest parse_manifest(std::string_view text, const std::filesystem::path &path, const ManifestKind &kind);

// Typed access to a manifest. Every fault is an Error (TCMOA_ERROR_BUNDLE) that names the key.
class ManifestReader {
public:
    ManifestReader(std::filesystem::path path, const Manifest &values, std::string remedy, std::string prefix = "")
        : path_(std::move(path)), values_(&values), remedy_(std::move(remedy)), prefix_(std::move(prefix)) {}

    // A string; one of `choices` unless these are empty.
    [[nodiscard]] std::string string(const std::string &key,
                                     std::initializer_list<std::string_view> choices = {}) const;
    [[nodiscard]] std::int64_t integer(const std::string &key) const;
    [[nodiscard]] double number(const std::string &key) const;
    [[nodiscard]] bool boolean(const std::string &key) const;
    [[nodiscard]] const Manifest &array(const std::string &key) const;
    [[nodiscard]] ManifestReader object(const std::string &key) const;

    [[nodiscard]] const Manifest &values() const { return *values_; }

    // Throw Error: what the value at `key` is, and `expected`.
    [[noreturn]] void fail_value(const std::string &key, std::string_view expected) const;

    // Throw Error with another problem of this file.
    [[noreturn]] void fail(std::string_view problem) const;

private:
    std::filesystem::path path_;
    const Manifest *values_;
    std::string remedy_, prefix_;
};

}  // namespace tcmoa
