// The JSON descriptions of bundles and engines: parsed once, with a hash of their own, and read with checks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace tcmoa {

using Manifest = nlohmann::json;

// The JSON object in `path`, of format `form` in version `newest` or an older one, with the right hash of its own.
// Throws Error when it is unreadable, too large, no JSON, foreign (not `kind`), of a newer format, or edited; `again`
// is the advice.
Manifest read_manifest(const std::filesystem::path &path, std::string_view form, std::int64_t newest,
                       std::string_view kind, std::string_view again);

// The same from the text itself; `path` is for messages.
Manifest parse_manifest(std::string_view text, const std::filesystem::path &path, std::string_view form,
                        std::int64_t newest, std::string_view kind, std::string_view again);

// Typed access to a manifest; every fault is an Error that names the key and says `again`.
class Reader {
public:
    Reader(std::filesystem::path path, const Manifest &values, std::string again, std::string prefix = "")
        : path_(std::move(path)), values_(&values), again_(std::move(again)), prefix_(std::move(prefix)) {}

    [[nodiscard]] std::string text(const std::string &key, std::initializer_list<std::string_view> among = {}) const;
    [[nodiscard]] std::int64_t integer(const std::string &key) const;
    [[nodiscard]] double number(const std::string &key) const;
    [[nodiscard]] bool boolean(const std::string &key) const;
    [[nodiscard]] const Manifest &array(const std::string &key) const;
    [[nodiscard]] Reader part(const std::string &key) const;  // an object

    [[nodiscard]] const Manifest &values() const { return *values_; }
    [[nodiscard]] const std::filesystem::path &path() const { return path_; }
    [[nodiscard]] const std::string &again() const { return again_; }

    // Throws: what is at `key` and what was expected.
    [[noreturn]] void refuse(const std::string &key, std::string_view wanted) const;

private:
    std::filesystem::path path_;
    const Manifest *values_;
    std::string again_, prefix_;
};

}  // namespace tcmoa
