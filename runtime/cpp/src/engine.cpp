#include "engine.hpp"

#include <algorithm>
#include <array>
#include <system_error>

#include "error.hpp"

namespace tcmoa {
namespace {

namespace fs = std::filesystem;

constexpr const char *kFormat = "tcmoa-engine";
constexpr std::int64_t kFormatVersion = 1;
constexpr const char *kSuffix = ".engine";
constexpr const char *kLocal = "local";  // in a name, for the targets of an engine built for the GPU beside it
constexpr std::array<const char *, 2> kFlavours{"tensorrt", "rtx"};         // the one preferred comes first
constexpr std::array<const char *, 3> kPrecisions{"fp16", "bf16", "fp32"};  // as above
constexpr Capability kAmpere{8, 0};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Digits, one or two of `major` and one of `minor`, with nothing else.
std::optional<Capability> capability(std::string_view major, std::string_view minor) {
    if (major.empty() || major.size() > 2 || minor.size() != 1) return std::nullopt;
    if (!std::all_of(major.begin(), major.end(), is_digit) || !is_digit(minor[0])) return std::nullopt;
    int number = 0;
    for (char c : major) number = number * 10 + (c - '0');
    return Capability{number, minor[0] - '0'};
}

// Of "sm89".
std::optional<Capability> of_target(std::string_view text) {
    if (text.size() < 4 || text.substr(0, 2) != "sm") return std::nullopt;
    return capability(text.substr(2, text.size() - 3), text.substr(text.size() - 1));
}

// Of "8.9".
std::optional<Capability> of_number(std::string_view text) {
    const auto dot = text.find('.');
    if (dot == std::string_view::npos) return std::nullopt;
    return capability(text.substr(0, dot), text.substr(dot + 1));
}

std::string numbers(Capability pair) { return std::to_string(pair.first) + "." + std::to_string(pair.second); }

// A version becomes part of a file's name.
bool is_version(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
        return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_';
    });
}

// An engine's file must lie in `engines/`, also after symbolic links were followed.
void check_inside(const fs::path &bundle, const fs::path &file, const std::string &again) {
    std::error_code error;
    if (!fs::is_regular_file(file, error)) {
        if (error && error != std::errc::no_such_file_or_directory) {
            fail_bundle(file.string() + ": cannot be read (" + error.message() + "); " + again);
        }
        fail_bundle(file.string() + ": no such engine; " + again);
    }
    const auto resolve = [&](const fs::path &path) {
        auto target = fs::canonical(path, error);
        if (error) fail_bundle(file.string() + ": cannot be read (" + error.message() + "); " + again);
        return target;
    };
    const auto parent = file.has_parent_path() ? file.parent_path() : fs::path(".");
    const auto folder = resolve(parent);
    if (folder != resolve(bundle) / kEngines || resolve(file).parent_path() != folder) {
        fail_bundle(file.string() + ": lies outside of " + (bundle / kEngines).string() +
                    ", and an engine runs as native code: engines are only loaded from their bundle; " + again);
    }
}

bool is_null(const Manifest &object, const char *key) {
    const auto found = object.find(key);
    return found == object.end() || found->is_null();
}

// Check all that the library relies on, and take it over.
void read_description(Engine &engine, const Reader &reader) {
    engine.flavour = reader.text("flavour", {kFlavours[0], kFlavours[1]}) == kFlavours[0] ? Flavour::tensorrt
                                                                                          : Flavour::rtx;
    engine.precision = reader.text("precision", {kPrecisions[0], kPrecisions[1], kPrecisions[2]});
    engine.compatibility =
        reader.text("hardware_compatibility", {"none", "ampere_plus", "same_compute_capability"});
    engine.version = reader.text("version");
    if (!is_version(engine.version)) reader.refuse("version", "a version number");
    for (const auto &target : reader.array("targets")) {
        if (!target.is_string() || !of_target(target.get_ref<const std::string &>())) {
            fail_bundle(reader.path().string() + ": 'targets' holds " +
                        shown(target.dump(-1, ' ', true)) + ", expected e.g. 'sm89'; " +
                        reader.again());
        }
        engine.targets.push_back(target.get<std::string>());
    }
    if (!is_null(reader.values(), "gpu")) {
        const auto gpu = reader.part("gpu");
        engine.gpu_name = gpu.text("name");
        engine.gpu = of_number(gpu.text("compute_capability"));
        if (!engine.gpu) gpu.refuse("compute_capability", "a version number");
    }
    engine.stripped = reader.boolean("stripped");
    (void)reader.part("options");
    const auto file = reader.part("engine");
    engine.file = {file.text("sha256"), file.integer("bytes")};
}

// The engine must have been built from this bundle's graph.
void check_belongs(const Bundle &bundle, const Reader &reader) {
    const auto graph = reader.part("graph");
    auto files = Manifest::object();
    for (const auto &[name, entry] : bundle.files) files[name] = entry.sha256;
    if (graph.values() != Manifest({{"name", bundle.graph_name}, {"files", files}})) {
        fail_bundle(reader.path().string() + ": the engine was built from the graph '" + shown(graph.text("name")) +
                    "' with other bytes, this bundle's is '" + bundle.graph_name + "'; " + reader.again());
    }
    const auto contract = reader.values().find("contract"), wanted = bundle.manifest.find("contract");
    if (contract == reader.values().end() || wanted == bundle.manifest.end() || *contract != *wanted) {
        fail_bundle(reader.path().string() + ": its 'contract' is not the one in bundle.json; " + reader.again());
    }
}

}  // namespace

std::string name_of(Flavour flavour) { return kFlavours[flavour == Flavour::tensorrt ? 0 : 1]; }

std::string build_again(const fs::path &bundle, std::string_view name) {
    std::string flavour = std::string(kFlavours[0]) + "|" + kFlavours[1];
    for (std::string known : kFlavours) {
        if (name.starts_with(known + "-")) flavour = known;
    }
    return "build it again with `tcmoa build " + bundle.string() + " --flavour " + flavour + "`";
}

std::vector<fs::path> find_engines(const Bundle &bundle) {
    const auto folder = bundle.path / kEngines;
    std::error_code error;
    if (!fs::is_directory(folder, error)) return {};
    std::vector<fs::path> found;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
        if (entry->path().extension() == kSuffix) found.push_back(entry->path());
    }
    if (error) {
        fail_bundle(folder.string() + ": cannot be read: " + error.message() + "; make it readable, or " +
                    build_again(bundle.path));
    }
    std::sort(found.begin(), found.end());
    return found;
}

Engine Engine::open(const Bundle &bundle, const fs::path &path) {
    Engine engine;
    engine.path = path;
    engine.root_ = bundle.path;
    const auto again = build_again(bundle.path, path.filename().string());
    check_inside(bundle.path, path, again);
    auto description = path;
    description.replace_extension(".json");
    std::error_code error;
    if (!fs::is_regular_file(description, error)) {
        fail_bundle(path.string() + ": has no " + description.filename().string() +
                    " beside it that tells what it is; " + again);
    }
    const auto manifest = read_manifest(description, kFormat, kFormatVersion, "the description of an engine", again);
    const Reader reader(description, manifest, again);
    read_description(engine, reader);
    check_belongs(bundle, reader);
    engine.again = build_again(bundle.path, engine.stem());
    if (engine.stem() != path.stem().string()) {
        fail_bundle(path.string() + ": its JSON describes " + engine.stem() + kSuffix + "; it was renamed: " + again);
    }
    return engine;
}

std::string Engine::stem() const {
    std::string names;
    for (const auto &target : targets) names += (names.empty() ? "" : "+") + target;
    return name_of(flavour) + "-" + version + "-" + (names.empty() ? kLocal : names) + "-" + precision;
}

int Engine::rank() const {
    const auto place = std::find(kPrecisions.begin(), kPrecisions.end(), precision) - kPrecisions.begin();
    return static_cast<int>(flavour) * static_cast<int>(kPrecisions.size()) + static_cast<int>(place);
}

std::string Engine::read() const {
    check_inside(root_, path, again);
    return read_checked(path, file, "its JSON", again);
}

std::string Engine::unfit(const std::string &installed, Capability gpu_here) const {
    if (installed != version) {
        return "it was built by " + name_of(flavour) + " " + version + ", installed is " + installed;
    }
    const bool wide = compatibility == "ampere_plus";
    bool runs = gpu == gpu_here || wide;
    std::string names;
    const auto add = [&names](const std::string &name) { names += (names.empty() ? "" : ", ") + name; };
    for (const auto &target : targets) {
        runs = runs || of_target(target) == gpu_here;
        add("SM" + target.substr(2));
    }
    if (runs && (!wide || gpu_here >= kAmpere)) return "";
    if (gpu) add(shown(gpu_name) + " (" + numbers(*gpu) + ")");
    if (wide) add("compute capability 8.0 and above");
    return "it was built for " + (names.empty() ? "no GPU that its JSON names" : names) +
           ", this GPU has compute capability " + numbers(gpu_here);
}

}  // namespace tcmoa
