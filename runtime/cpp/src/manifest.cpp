#include "manifest.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <sstream>
#include <system_error>
#include <vector>

#include "bundle.hpp"
#include "error.hpp"

namespace tcmoa {
namespace {

constexpr const char *kSelfHash = "manifest_sha256";
constexpr std::uintmax_t kMostBytes = 1 << 20;
constexpr std::size_t kMostDepth = 64;
constexpr double kLargestNumber = 1 << 20;  // beyond any frame side, batch or prompt

// Builds the document and, along with it, its canonical text: keys sorted, no spaces, ASCII. A number keeps the text
// that it has in the file. The exporter writes what Python's repr gives, which other libraries' formatting does not
// always equal, and the hash is over that.
class Canonical {
public:
    using number_integer_t = Manifest::number_integer_t;
    using number_unsigned_t = Manifest::number_unsigned_t;
    using number_float_t = Manifest::number_float_t;
    using string_t = Manifest::string_t;
    using binary_t = Manifest::binary_t;

    Manifest document;
    std::string reason;

    bool null() { return add(nullptr, "null"); }
    bool boolean(bool value) { return add(value, value ? "true" : "false"); }
    bool number_integer(number_integer_t value) { return add(value, std::to_string(value)); }
    bool number_unsigned(number_unsigned_t value) { return add(value, std::to_string(value)); }
    bool number_float(number_float_t value, const string_t &text) { return add(value, text); }
    bool string(string_t &value) { return add(value, quoted(value)); }
    bool binary(binary_t &) { return false; }
    bool start_object(std::size_t) { return open(Manifest::object()); }
    bool start_array(std::size_t) { return open(Manifest::array()); }
    bool end_array() { return close(); }
    bool end_object() { return close(); }
    bool key(string_t &name) {
        levels_.back().key = name;
        return true;
    }
    bool parse_error(std::size_t, const std::string &, const nlohmann::json::exception &error) {
        reason = first_line(error.what());
        return false;
    }

    // Of a document that is an object, without its own hash.
    [[nodiscard]] std::string text_to_hash() const { return join(members_, kSelfHash); }

private:
    struct Level {
        Manifest value;
        std::string key;
        std::map<std::string, std::string> members;
        std::vector<std::string> elements;
    };
    std::vector<Level> levels_;
    std::map<std::string, std::string> members_;  // of the whole document

    static std::string quoted(const std::string &text) { return Manifest(text).dump(-1, ' ', true); }

    static std::string join(const std::map<std::string, std::string> &members, std::string_view without = {}) {
        std::string text = "{";
        for (const auto &[name, value] : members) {
            if (name == without) continue;
            if (text.size() > 1) text += ',';
            text += quoted(name);
            text += ':';
            text += value;
        }
        return text + "}";
    }

    bool add(Manifest value, std::string text) {
        if (levels_.empty()) {
            document = std::move(value);
            return true;
        }
        auto &level = levels_.back();
        if (level.value.is_object()) {  // of equal keys the last one holds, as in Python
            level.value[level.key] = std::move(value);
            level.members[level.key] = std::move(text);
        } else {
            level.value.push_back(std::move(value));
            level.elements.push_back(std::move(text));
        }
        return true;
    }

    bool open(Manifest value) {
        if (levels_.size() == kMostDepth) {
            reason = "it is nested too deeply";
            return false;
        }
        levels_.push_back({std::move(value), {}, {}, {}});
        return true;
    }

    bool close() {
        Level level = std::move(levels_.back());
        levels_.pop_back();
        std::string text;
        if (level.value.is_object()) {
            text = join(level.members);
            if (levels_.empty()) members_ = std::move(level.members);
        } else {
            text = "[";
            for (const auto &element : level.elements) {
                if (text.size() > 1) text += ',';
                text += element;
            }
            text += "]";
        }
        return add(std::move(level.value), std::move(text));
    }
};

}  // namespace

Manifest parse_manifest(std::string_view text, const std::filesystem::path &path, std::string_view form,
                        std::int64_t newest, std::string_view kind, std::string_view again) {
    Canonical parsed;
    const std::string where = path.string(), advice(again);
    if (!nlohmann::json::sax_parse(text.begin(), text.end(), &parsed)) {
        fail_bundle(where + ": not valid JSON, perhaps truncated (" + parsed.reason + "); " + advice);
    }
    const auto &manifest = parsed.document;
    if (!manifest.is_object() || !manifest.contains("format") || manifest["format"] != form) {
        fail_bundle(where + ": not " + std::string(kind) + " ('format' is not '" + std::string(form) + "'); " + advice);
    }
    const auto version = manifest.find("format_version");
    if (version == manifest.end() || !version->is_number_integer() || *version < 1) {
        fail_bundle(where + ": 'format_version' is " +
                    (version == manifest.end() ? "absent" : shown(version->dump())) + ", expected " +
                    std::to_string(newest) + "; " + advice);
    }
    if (*version > newest) {
        fail_bundle(where + ": format " + shown(version->dump()) + " is newer than this library reads (" +
                    std::to_string(newest) + "); use a newer libtcmoa, or " + advice);
    }
    const auto own = manifest.find(kSelfHash);
    if (own == manifest.end() || *own != sha256(parsed.text_to_hash())) {
        fail_bundle(where + ": was edited or damaged since it was written (its own hash differs); " + advice);
    }
    return std::move(parsed.document);
}

Manifest read_manifest(const std::filesystem::path &path, std::string_view form, std::int64_t newest,
                       std::string_view kind, std::string_view again) {
    std::error_code error;
    const auto bytes = std::filesystem::file_size(path, error);
    if (error) fail_bundle(path.string() + ": cannot be read: " + error.message() + "; " + std::string(again));
    if (bytes > kMostBytes) {
        fail_bundle(path.string() + ": is " + std::to_string(bytes) + " bytes, no " + path.filename().string() +
                    " is that large; " + std::string(again));
    }
    std::ifstream file(path, std::ios::binary);
    std::string text(bytes, '\0');
    file.read(text.data(), static_cast<std::streamsize>(bytes));
    if (!file) fail_bundle(path.string() + ": cannot be read; make it readable, or " + std::string(again));
    return parse_manifest(text, path, form, newest, kind, again);
}

void Reader::refuse(const std::string &key, std::string_view wanted) const {
    const auto value = values_->find(key);
    const std::string arrived = value == values_->end() ? "absent" : shown(value->dump(-1, ' ', true));
    fail_bundle(path_.string() + ": '" + prefix_ + key + "' is " + arrived + ", expected " + std::string(wanted) +
                "; it was damaged or made by other software: " + again_);
}

std::string Reader::text(const std::string &key, std::initializer_list<std::string_view> among) const {
    const auto value = values_->find(key);
    if (value == values_->end() || !value->is_string()) refuse(key, "a text");
    auto found = value->get<std::string>();
    if (among.size() != 0 && std::find(among.begin(), among.end(), found) == among.end()) {
        std::string wanted;
        for (auto name : among) wanted += (wanted.empty() ? "'" : ", '") + std::string(name) + "'";
        refuse(key, wanted);
    }
    return found;
}

std::int64_t Reader::integer(const std::string &key) const {
    const auto value = values_->find(key);
    // An unsigned number beyond int64 would turn negative.
    if (value == values_->end() || !value->is_number_integer() ||
        (value->is_number_unsigned() && value->get<std::uint64_t>() > INT64_MAX)) {
        refuse(key, "a whole number");
    }
    return value->get<std::int64_t>();
}

double Reader::number(const std::string &key) const {
    const auto value = values_->find(key);
    if (value == values_->end() || !value->is_number() || !(std::abs(value->get<double>()) <= kLargestNumber)) {
        refuse(key, "a number");
    }
    return value->get<double>();
}

bool Reader::boolean(const std::string &key) const {
    const auto value = values_->find(key);
    if (value == values_->end() || !value->is_boolean()) refuse(key, "true or false");
    return value->get<bool>();
}

const Manifest &Reader::array(const std::string &key) const {
    const auto value = values_->find(key);
    if (value == values_->end() || !value->is_array()) refuse(key, "a list");
    return *value;
}

Reader Reader::part(const std::string &key) const {
    const auto value = values_->find(key);
    if (value == values_->end() || !value->is_object()) refuse(key, "an object");
    return Reader(path_, *value, again_, prefix_ + key + ".");
}

}  // namespace tcmoa
