#include "manifest.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <vector>

#include "error.hpp"
#include "regular_file.hpp"
#include "sha256.hpp"

namespace tcmoa {
namespace {

constexpr std::uintmax_t kMaxBytes = 1 << 20;
constexpr std::size_t kMaxDepth = 64;
constexpr double kMaxNumber = 1 << 20;  // above any frame side, batch or prompt

// A number as Python writes it: the shortest digits that give it back, with an exponent below 1e-4 and from 1e16 on.
std::string python_repr(double value) {
    std::array<char, 32> buffer{};
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific);
    std::string digits(buffer.data(), end.ptr);
    const std::string sign = digits[0] == '-' ? "-" : "";
    digits.erase(0, sign.size());
    const auto mark = digits.find('e');
    const int exponent = std::stoi(digits.substr(mark + 1));
    const auto fraction = digits.substr(std::min<std::size_t>(2, mark), mark - std::min<std::size_t>(2, mark));
    if (exponent < -4 || exponent >= 16) return sign + digits;
    digits = digits[0] + fraction;
    if (exponent < 0) return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
    const auto whole = static_cast<std::size_t>(exponent) + 1;
    if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
    return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

// Builds the document and its canonical text: keys sorted, no spaces, ASCII. A number keeps the text that it has in the
// file: the hash is over Python's repr of floats, which other libraries do not always reproduce (1e16, 5e-324).
class CanonicalParser {
public:
    using number_integer_t = Manifest::number_integer_t;
    using number_unsigned_t = Manifest::number_unsigned_t;
    using number_float_t = Manifest::number_float_t;
    using string_t = Manifest::string_t;
    using binary_t = Manifest::binary_t;

    Manifest document;
    std::string error;  // why parsing failed

    bool null() { return add(nullptr, "null"); }
    bool boolean(bool value) { return add(value, value ? "true" : "false"); }
    bool number_integer(number_integer_t value) { return add(value, std::to_string(value)); }
    bool number_unsigned(number_unsigned_t value) { return add(value, std::to_string(value)); }
    bool number_float(number_float_t value, const string_t &text) {
        if (text.find_first_of(".eE") == string_t::npos) return fail("an integer of more than 64 bits");
        // The Python runtime hashes a number as it writes it.
        if (text != python_repr(value)) return fail("the number '" + printable(text, 40) + "', which is written differently");
        return add(value, text);
    }
    bool string(string_t &value) { return add(value, quoted(value)); }
    bool binary(binary_t &) { return false; }
    bool start_object(std::size_t) { return open(Manifest::object()); }
    bool start_array(std::size_t) { return open(Manifest::array()); }
    bool end_array() { return close(); }
    bool end_object() { return close(); }
    bool key(string_t &name) {
        if (levels_.back().members.contains(name)) return fail("a key occurs twice");
        levels_.back().key = name;
        return true;
    }
    bool parse_error(std::size_t, const std::string &, const nlohmann::json::exception &exception) {
        error = first_line(exception.what());
        for (char &c : error) {  // it quotes the file, which may be of another encoding
            if (static_cast<unsigned char>(c) >= 0x80) c = '?';
        }
        return false;
    }

    // Canonical text of a document that is an object, without its own hash.
    [[nodiscard]] std::string text_to_hash() const { return join(members_, kManifestHash); }

private:
    struct Level {
        Manifest value;
        std::string key;
        std::map<std::string, std::string> members;
        std::vector<std::string> elements;
    };
    std::vector<Level> levels_;
    std::map<std::string, std::string> members_;  // of the document: canonical text by key

    static std::string quoted(const std::string &text) { return Manifest(text).dump(-1, ' ', true); }

    static std::string join(const std::map<std::string, std::string> &members, std::string_view excluded = {}) {
        std::string text = "{";
        for (const auto &[name, value] : members) {
            if (name == excluded) continue;
            if (text.size() > 1) text += ',';
            text += quoted(name);
            text += ':';
            text += value;
        }
        return text + "}";
    }

    bool fail(std::string problem) {
        error = std::move(problem);
        return false;
    }

    bool add(Manifest value, std::string text) {
        if (levels_.empty()) {
            document = std::move(value);
            return true;
        }
        auto &level = levels_.back();
        if (level.value.is_object()) {
            level.value[level.key] = std::move(value);
            level.members[level.key] = std::move(text);
        } else {
            level.value.push_back(std::move(value));
            level.elements.push_back(std::move(text));
        }
        return true;
    }

    bool open(Manifest value) {
        if (levels_.size() == kMaxDepth) return fail("nested too deeply");
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

Manifest parse_manifest(std::string_view text, const std::filesystem::path &path, const ManifestKind &kind) {
    CanonicalParser parser;
    const std::string where = path.string(), newest = std::to_string(kind.format_version);
    if (text.starts_with("\xef\xbb\xbf")) {  // which the parser would skip
        fail_bundle(where, "not valid JSON (a byte order mark); expected " + std::string(kind.noun), kind.remedy);
    }
    if (!nlohmann::json::sax_parse(text.begin(), text.end(), &parser)) {
        fail_bundle(where,
                    "not valid JSON (" + parser.error + "); expected " + std::string(kind.noun),
                    kind.remedy);
    }
    const auto &manifest = parser.document;
    if (!manifest.is_object() || !manifest.contains("format") || manifest["format"] != kind.format) {
        fail_bundle(where,
                    "not " + std::string(kind.noun) + "; expected 'format' to be '" + std::string(kind.format) + "'",
                    kind.remedy);
    }
    const auto version = manifest.find("format_version");
    if (version == manifest.end() || !version->is_number_integer() || *version < 1) {
        const auto actual = version == manifest.end() ? "absent" : printable(version->dump(-1, ' ', true));
        const std::string versions = kind.format_version == 1 ? newest : "1 to " + newest;
        fail_bundle(where, "'format_version' is " + actual + "; expected " + versions, kind.remedy);
    }
    if (*version > kind.format_version) {
        fail_bundle(where,
                    "format version " + printable(version->dump(-1, ' ', true)) + " is newer than this library; expected at most " +
                        newest,
                    "use a newer libtcmoa, or " + std::string(kind.remedy));
    }
    const auto hash = manifest.find(kManifestHash);
    if (hash == manifest.end() || *hash != sha256(parser.text_to_hash())) {
        fail_bundle(where,
                    "edited or damaged since it was written; expected the hash in '" + std::string(kManifestHash) + "'",
                    kind.remedy);
    }
    return std::move(parser.document);
}

Manifest read_manifest(const std::filesystem::path &path, const ManifestKind &kind) {
    try {
        RegularFile file(path);
        if (file.bytes() > kMaxBytes) {
            fail_bundle(path.string(),
                        std::to_string(file.bytes()) + " bytes; expected at most " + std::to_string(kMaxBytes),
                        kind.remedy);
        }
        return parse_manifest(file.read_all(), path, kind);
    } catch (const FileError &error) {
        fail_bundle(path.string(), std::string("cannot be read: ") + error.what(), kind.remedy);
    }
}

void ManifestReader::fail(std::string_view problem) const { fail_bundle(path_.string(), problem, remedy_); }

void ManifestReader::fail_value(const std::string &key, std::string_view expected) const {
    const auto value = values_->find(key);
    const std::string actual = value == values_->end() ? "absent" : printable(value->dump(-1, ' ', true));
    fail("'" + prefix_ + key + "' is " + actual + "; expected " + std::string(expected));
}

std::string ManifestReader::string(const std::string &key, std::initializer_list<std::string_view> choices) const {
    const auto value = values_->find(key);
    if (value == values_->end() || !value->is_string()) fail_value(key, "a string");
    auto found = value->get<std::string>();
    if (choices.size() != 0 && std::find(choices.begin(), choices.end(), found) == choices.end()) {
        std::string expected;
        for (auto choice : choices) expected += (expected.empty() ? "'" : ", '") + std::string(choice) + "'";
        fail_value(key, expected);
    }
    return found;
}

std::int64_t ManifestReader::integer(const std::string &key) const {
    const auto value = values_->find(key);
    // An unsigned number above INT64_MAX would become negative.
    if (value == values_->end() || !value->is_number_integer() ||
        (value->is_number_unsigned() && value->get<std::uint64_t>() > INT64_MAX)) {
        fail_value(key, "an integer");
    }
    return value->get<std::int64_t>();
}

double ManifestReader::number(const std::string &key) const {
    const auto value = values_->find(key);
    if (value == values_->end() || !value->is_number() || !(std::abs(value->get<double>()) <= kMaxNumber)) {
        fail_value(key, "a number");
    }
    return value->get<double>();
}

bool ManifestReader::boolean(const std::string &key) const {
    const auto value = values_->find(key);
    if (value == values_->end() || !value->is_boolean()) fail_value(key, "true or false");
    return value->get<bool>();
}

const Manifest &ManifestReader::array(const std::string &key) const {
    const auto value = values_->find(key);
    if (value == values_->end() || !value->is_array()) fail_value(key, "a list");
    return *value;
}

ManifestReader ManifestReader::object(const std::string &key) const {
    const auto value = values_->find(key);
    if (value == values_->end() || !value->is_object()) fail_value(key, "an object");
    return ManifestReader(path_, *value, remedy_, prefix_ + key + ".");
}

}  // namespace tcmoa
