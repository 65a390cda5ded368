#include "engine.hpp"

#include <algorithm>
#include <array>
#include <system_error>

#include "compile_cache.hpp"
#include "error.hpp"
#include "user_folders.hpp"

namespace tcmoa {
namespace {

namespace fs = std::filesystem;

constexpr const char *kSuffix = ".engine";
constexpr const char *kLocal = "local";  // in a name, in place of targets: built for the GPU of the building machine
constexpr std::array<const char *, 2> kFlavors{"tensorrt", "rtx"};          // preferred first
constexpr std::array<const char *, 3> kPrecisions{"fp16", "bf16", "fp32"};  // preferred first
constexpr Capability kAmpere{8, 0};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// From one or two digits of `major` and one of `minor`.
std::optional<Capability> parse_capability(std::string_view major, std::string_view minor) {
    if (major.empty() || major.size() > 2 || minor.size() != 1) return std::nullopt;
    if (!std::all_of(major.begin(), major.end(), is_digit) || !is_digit(minor[0])) return std::nullopt;
    int number = 0;
    for (char c : major) number = number * 10 + (c - '0');
    return Capability{number, minor[0] - '0'};
}

// From e.g. "sm89".
std::optional<Capability> parse_target(std::string_view text) {
    if (text.size() < 4 || text.substr(0, 2) != "sm") return std::nullopt;
    return parse_capability(text.substr(2, text.size() - 3), text.substr(text.size() - 1));
}

// From e.g. "8.9".
std::optional<Capability> parse_number(std::string_view text) {
    const auto dot = text.find('.');
    if (dot == std::string_view::npos) return std::nullopt;
    return parse_capability(text.substr(0, dot), text.substr(dot + 1));
}

// A version is part of a file name.
bool is_version(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
        return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_';
    });
}

// The folder of a bundle's engines in the user's data folder; nothing if it is missing or must not be used.
std::optional<fs::path> user_engines(const std::string &key) { return open_user_folder(UserFolder::data, {kEngines, key}); }

// An engine must be a file in one of the folders of its bundle, also after symbolic links are resolved.
void check_inside(const fs::path &bundle, const std::string &key, const fs::path &path, const std::string &remedy) {
    const std::string where = path.string();
    std::error_code error;
    if (!fs::is_regular_file(path, error)) {
        if (error && error != std::errc::no_such_file_or_directory) {
            fail_bundle(where, "cannot be read: " + error.message(), remedy);
        }
        fail_bundle(where, "no such engine", remedy);
    }
    const auto resolve = [&](const fs::path &unresolved) {
        auto resolved = fs::canonical(unresolved, error);
        if (error) fail_bundle(where, "cannot be read: " + error.message(), remedy);
        return resolved;
    };
    const auto folder = resolve(path.has_parent_path() ? path.parent_path() : fs::path("."));
    const auto users = user_engines(key);
    const bool is_inside = folder == resolve(bundle) / kEngines || (users && folder == resolve(*users));
    if (!is_inside || resolve(path).parent_path() != folder) {
        fail_bundle(where,
                    "outside of its bundle; expected a file in " + (bundle / kEngines).string() +
                        ", since engines run as native code",
                    remedy);
    }
}

bool is_null(const Manifest &object, const char *key) {
    const auto found = object.find(key);
    return found == object.end() || found->is_null();
}

// Check every value that the library uses.
void read_description(Engine &engine, const ManifestReader &reader) {
    const auto flavor = reader.string("flavor", {kFlavors[0], kFlavors[1]});
    engine.flavor = flavor == kFlavors[0] ? Flavor::tensorrt : Flavor::rtx;
    engine.precision = reader.string("precision", {kPrecisions[0], kPrecisions[1], kPrecisions[2]});
    engine.compatibility =
        reader.string("hardware_compatibility", {"none", "ampere_plus", "same_compute_capability"});
    engine.version = reader.string("version");
    if (!is_version(engine.version)) reader.fail_value("version", "a version number");
    for (const auto &target : reader.array("targets")) {
        if (!target.is_string() || !parse_target(target.get_ref<const std::string &>())) {
            reader.fail("'targets' holds " + printable(target.dump(-1, ' ', true)) + "; expected e.g. 'sm89'");
        }
        engine.targets.push_back(target.get<std::string>());
    }
    if (!is_null(reader.values(), "gpu")) {
        const auto gpu = reader.object("gpu");
        engine.gpu_name = gpu.string("name");
        engine.gpu = parse_number(gpu.string("compute_capability"));
        if (!engine.gpu) gpu.fail_value("compute_capability", "e.g. \"8.9\"");
    }
    engine.stripped = reader.boolean("stripped");
    (void)reader.object("options");
    const auto file = reader.object("engine");
    engine.file = {file.string("sha256"), file.integer("bytes")};
}

// The engine must have been built from this bundle's graph.
void check_graph(const Bundle &bundle, const ManifestReader &reader) {
    const auto graph = reader.object("graph");
    auto hashes = Manifest::object();
    for (const auto &[name, entry] : bundle.files) hashes[name] = entry.sha256;
    if (graph.values() != Manifest({{"name", bundle.graph_name}, {"files", hashes}})) {
        reader.fail("the engine was built from the graph '" + printable(graph.string("name")) + "'; expected '" +
                    bundle.graph_name + "', with the same bytes");
    }
    const auto contract = reader.values().find("contract"), expected = bundle.manifest.find("contract");
    if (contract == reader.values().end() || expected == bundle.manifest.end() || *contract != *expected) {
        reader.fail("'contract' differs; expected that of bundle.json");
    }
}

// Sorted by name.
std::vector<fs::path> engines_in(const fs::path &folder, const fs::path &bundle) {
    std::error_code error;
    if (!fs::is_directory(folder, error)) return {};
    std::vector<fs::path> found;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
        if (entry->path().extension() == kSuffix) found.push_back(entry->path());
    }
    if (error) {
        fail_bundle(folder.string(), "cannot be read: " + error.message(),
                    "make it readable, or build the engine again with " + build_command(bundle));
    }
    std::sort(found.begin(), found.end());
    return found;
}

}  // namespace

std::string to_string(Capability capability) {
    return std::to_string(capability.first) + "." + std::to_string(capability.second);
}

const char *name_of(Flavor flavor) { return kFlavors[flavor == Flavor::tensorrt ? 0 : 1]; }

std::string build_command(const fs::path &bundle, std::string_view name) {
    std::string flavor = std::string(kFlavors[0]) + "|" + kFlavors[1];
    for (std::string known : kFlavors) {
        if (name.starts_with(known + "-")) flavor = known;
    }
    return "`tcmoa build " + bundle.string() + " --flavor " + flavor + "`";
}

std::vector<fs::path> find_engines(const Bundle &bundle) {
    auto found = engines_in(bundle.path / kEngines, bundle.path);
    if (const auto folder = user_engines(graph_key(bundle))) {
        const auto more = engines_in(*folder, bundle.path);
        found.insert(found.end(), more.begin(), more.end());
    }
    return found;
}

Engine Engine::open(const Bundle &bundle, const fs::path &path) {
    Engine engine;
    engine.path = path;
    engine.bundle_path_ = bundle.path;
    engine.graph_key_ = graph_key(bundle);
    const auto remedy = "build it again with " + build_command(bundle.path, path.filename().string());
    check_inside(bundle.path, engine.graph_key_, path, remedy);
    auto description = path;
    description.replace_extension(".json");
    std::error_code error;
    if (!fs::is_regular_file(description, error)) {
        fail_bundle(path.string(),
                    "has no " + description.filename().string() + " beside it; expected one that describes the engine",
                    remedy);
    }
    const auto manifest = read_manifest(description, {"tcmoa-engine", 1, "the description of an engine", remedy});
    const ManifestReader reader(description, manifest, remedy);
    read_description(engine, reader);
    check_graph(bundle, reader);
    engine.remedy = "build it again with " + build_command(bundle.path, engine.stem());
    if (engine.stem() != path.stem().string()) {
        fail_bundle(path.string(),
                    "was renamed; expected " + engine.stem() + kSuffix + ", which its JSON describes",
                    remedy);
    }
    return engine;
}

std::string Engine::stem() const {
    std::string names;
    for (const auto &target : targets) names += (names.empty() ? "" : "+") + target;
    return std::string(name_of(flavor)) + "-" + version + "-" + (names.empty() ? kLocal : names) + "-" + precision;
}

int Engine::rank() const {
    const auto place = std::find(kPrecisions.begin(), kPrecisions.end(), precision) - kPrecisions.begin();
    return static_cast<int>(flavor) * static_cast<int>(kPrecisions.size()) + static_cast<int>(place);
}

std::string Engine::read() const {
    check_inside(bundle_path_, graph_key_, path, remedy);
    return read_verified_file(path, file, "its JSON", remedy);
}

std::string Engine::incompatibility(const std::string &library_version, Capability capability) const {
    const std::string name = name_of(flavor);
    if (library_version != version) {
        return "built by " + name + " " + version + "; expected the installed version " + library_version;
    }
    const bool ampere_plus = compatibility == "ampere_plus";
    bool runs = gpu == capability || ampere_plus;
    std::string built_for;
    const auto add = [&built_for](const std::string &text) { built_for += (built_for.empty() ? "" : ", ") + text; };
    for (const auto &target : targets) {
        runs = runs || parse_target(target) == capability;
        add("SM" + target.substr(2));
    }
    if (runs && (!ampere_plus || capability >= kAmpere)) return "";
    if (gpu) add(printable(gpu_name) + " (" + to_string(*gpu) + ")");
    if (ampere_plus) add("compute capability 8.0 and above");
    return "built for " + (built_for.empty() ? "no GPU that its JSON names" : built_for) +
           "; expected this GPU's compute capability " + to_string(capability);
}

}  // namespace tcmoa
