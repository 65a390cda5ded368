#include "bundle.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <system_error>

#include "error.hpp"
#include "graph_check.hpp"
#include "regular_file.hpp"

namespace tcmoa {
namespace {

namespace fs = std::filesystem;

constexpr const char *kManifest = "bundle.json";
constexpr const char *kMakeOne = "make one with `tcmoa export`";
constexpr ManifestKind kKind{"tcmoa-bundle", 2, "a TC-MoA bundle", kExportAgain};
constexpr const char *kCopyAll = "copy the whole bundle, or export it again with `tcmoa export`";
constexpr std::int64_t kMaxSize = 1 << 20;  // above any side or batch: products stay within 64 bits
constexpr std::int64_t kMaxTileStep = 64;   // of a wrapped network, in pixels
constexpr std::int64_t kMaxStretches = 8;   // pictures that a wrapped network stretches by their own extremes
constexpr std::size_t kMaxName = 80;        // characters of a network's name
constexpr std::size_t kHashDigits = 64;     // of a SHA-256, hexadecimal
constexpr std::int64_t kMaxWindow = 64;     // largest side of a window in tokens that tiles are aligned to

bool is_size(const Manifest &value) { return value > 0 && value <= kMaxSize; }

Manifest tensors_to_json(const std::vector<TensorSpec> &specs) {
    auto object = Manifest::object();
    for (const auto &spec : specs) object[spec.name] = {{"dtype", name_of(spec.type)}, {"shape", spec.shape}};
    return object;
}

void read_files(Bundle &bundle, const ManifestReader &reader) {
    const auto files = reader.object("files");
    (void)files.object(kGraph);
    for (const auto &[name, value] : files.values().items()) {
        const auto entry = files.object(name);
        bundle.files[name] = {entry.string("sha256"), entry.integer("bytes")};
        const auto bytes = bundle.files[name].bytes;
        if (bytes < 0) entry.fail_value("bytes", "a size");
        if (name == kGraph && bytes > kMaxGraphBytes) {
            reader.fail("lists " + quote_name(name) + " with " + std::to_string(bytes) + " bytes; expected at most " +
                        std::to_string(kMaxGraphBytes));
        }
        if (name != kGraph && name != kGraphData) {
            reader.fail("lists an unknown file " + quote_name(name) + "; expected " + kGraph + " and " + kGraphData +
                        " only");
        }
    }
}

void read_grid(Bundle &bundle, const ManifestReader &frame) {
    auto &contract = bundle.contract;
    contract.num_prompts = frame.integer("prompts");
    contract.with_prompt = frame.boolean("with_prompt");
    const auto &grid = frame.array("grid");
    if (grid.size() != 2 || !grid[0].is_number_integer() || !grid[1].is_number_integer()) {
        frame.fail_value("grid", "two integers");
    }
    if (!is_size(grid[0]) || !is_size(grid[1])) frame.fail_value("grid", "sizes from 1 to 1048576");
    if (contract.num_prompts < 0 || contract.num_prompts > kMaxSize) {
        frame.fail_value("prompts", "an integer from 0 to 1048576");
    }
    contract.grid_height = grid[0].get<std::int64_t>();
    contract.grid_width = grid[1].get<std::int64_t>();
    const std::int64_t side = bundle.token_pixels;
    const auto tokens = [side](std::int64_t pixels) { return (pixels + side - 1) / side; };
    if (bundle.fit != "resize" &&
        (contract.grid_height != tokens(contract.height) || contract.grid_width != tokens(contract.width))) {
        frame.fail_value("grid", "a grid that covers the frame with tokens of " + std::to_string(side) + " pixels");
    }
}

// Read the few numbers from which the contract follows, and compare the contract with the one that is written out.
void read_contract(Bundle &bundle, const ManifestReader &reader) {
    const auto frame = reader.object("frame");
    auto &contract = bundle.contract;
    contract.height = frame.integer("height");
    contract.width = frame.integer("width");
    contract.batch = frame.integer("batch");
    contract.x_channels = frame.integer("x_channels");
    contract.y_channels = frame.integer("y_channels");
    for (const char *key : {"height", "width", "batch", "x_channels", "y_channels"}) {
        if (!is_size(frame.values().at(key))) frame.fail_value(key, "a size from 1 to 1048576");
    }
    if (bundle.wrapped) {
        contract.with_control = false;
        contract.stretches = frame.integer("stretches");
        if (contract.stretches < 0 || contract.stretches > kMaxStretches) {
            frame.fail_value("stretches", "an integer from 0 to 8");
        }
    } else {
        read_grid(bundle, frame);
    }
    const auto stated = reader.values().find("contract");
    const Manifest derived = {{"inputs", tensors_to_json(contract.inputs())},
                              {"outputs", tensors_to_json(contract.outputs())}};
    if (stated == reader.values().end() || stated->dump() != derived.dump()) {  // as text: 1.0 is not 1
        reader.fail("'contract' does not match 'frame'; expected the graph contract of this frame");
    }
}

// Side of an attention window in tokens, which tiles are aligned to; 1 if none from 1 to kMaxWindow is stated.
int read_window(const Manifest &manifest) {
    const auto model = manifest.find("model");
    if (model == manifest.end() || !model->is_object()) return 1;
    const auto window = model->find("window");
    if (window == model->end() || !window->is_number_integer()) return 1;
    const auto tokens = window->get<std::int64_t>();
    return tokens < 1 || tokens > kMaxWindow ? 1 : static_cast<int>(tokens);
}

void check_text_or_null(const ManifestReader &reader, const std::string &key) {
    const auto value = reader.values().find(key);
    if (value != reader.values().end() && !value->is_null()) (void)reader.string(key);
}

// Read the entry `network`: whether the bundle holds a wrapped network, and its name.
void read_network(Bundle &bundle, const ManifestReader &reader) {
    if (!reader.values().contains("network")) return;
    const auto network = reader.object("network");
    if (network.string("kind", {"tc-moa", "wrapped"}) != "wrapped") return;
    bundle.wrapped = true;
    bundle.preset = network.string("name");
    const auto is_printable = [](char c) { return c >= ' ' && c <= '~'; };
    if (bundle.preset.empty() || bundle.preset.size() > kMaxName ||
        !std::all_of(bundle.preset.begin(), bundle.preset.end(), is_printable)) {
        network.fail_value("name", "1 to 80 printable ASCII characters");
    }
    const auto hash = network.string("sha256");
    const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    if (hash.size() != kHashDigits || !std::all_of(hash.begin(), hash.end(), is_digit)) {
        network.fail_value("sha256", "64 hexadecimal digits");
    }
    check_text_or_null(network, "source");
    check_text_or_null(network, "license");
    (void)network.object("conventions");
}

// What only the bundle of a TC-MoA model has.
void read_model(Bundle &bundle, const ManifestReader &reader) {
    bundle.preset = reader.string("preset");
    bundle.fit = reader.string("fit", {"pad", "crops", "resize"});
    const auto side = reader.integer("token_pixels");
    if (side != 8 && side != 16) reader.fail_value("token_pixels", "8 or 16");
    bundle.token_pixels = bundle.tile_step = static_cast<int>(side);
    bundle.window_pixels = bundle.token_pixels * read_window(reader.values());
    const auto prompt = reader.object("prompt_default");
    for (const char *key : {"scale", "shift"}) {
        if (!(std::abs(prompt.number(key)) <= static_cast<double>(kMaxPrompt))) {
            prompt.fail_value(key, "a number from -16 to 16");
        }
    }
    bundle.default_scale = static_cast<float>(prompt.number("scale"));
    bundle.default_shift = static_cast<float>(prompt.number("shift"));
}

// What only the bundle of a wrapped network has.
void read_wrapped(Bundle &bundle, const ManifestReader &reader) {
    bundle.fit = reader.string("fit", {"pad", "resize"});
    const auto step = reader.integer("tile_step");
    if (step < 1 || step > kMaxTileStep) reader.fail_value("tile_step", "an integer from 1 to 64");
    bundle.token_pixels = 0;
    bundle.tile_step = bundle.window_pixels = static_cast<int>(step);
}

// Check every value that the library uses.
void read_description(Bundle &bundle, const ManifestReader &reader) {
    read_network(bundle, reader);
    bundle.task = reader.string("task", {"vif", "mef", "mff"});
    bundle.channel_order = reader.string("channel_order", {"rgb", "bgr"});
    bundle.precision = reader.string("precision");
    bundle.graph_name = reader.object("graph").string("name");
    if (bundle.wrapped) read_wrapped(bundle, reader);
    else read_model(bundle, reader);
    read_files(bundle, reader);
    read_contract(bundle, reader);
}

// The path of bundle.json in a folder that may be a bundle.
fs::path find_manifest(const fs::path &path) {
    const std::string where = path.string();
    std::error_code error;
    const auto status = fs::status(path, error);
    if (status.type() == fs::file_type::not_found) {
        fail_bundle(where, "no such bundle", "make one with `tcmoa export --out " + where + "`");
    }
    if (error) fail_bundle(where, "cannot be read: " + error.message(), kMakeOne);
    if (!fs::is_directory(status)) fail_bundle(where, "a file; expected the folder of a bundle", kMakeOne);
    auto manifest = path / kManifest;
    if (!fs::is_regular_file(manifest, error)) {
        fail_bundle(where, "not a bundle; expected a bundle.json in it", kMakeOne);
    }
    return manifest;
}

}  // namespace

Bundle Bundle::open(const fs::path &path) {
    const auto manifest_path = find_manifest(path);
    Bundle bundle;
    bundle.path = path;
    bundle.manifest = read_manifest(manifest_path, kKind);
    read_description(bundle, ManifestReader(manifest_path, bundle.manifest, kExportAgain));
    if (bundle.manifest.contains("alignment")) {  // fused without it, sources would be misaligned without a warning
        fail_bundle(path.string(), "aligns its sources ('alignment' in bundle.json), and libtcmoa does not warp frames",
                    "warp them in the pipeline and use the bundle from before `tcmoa calibrate align`, or use the "
                    "Python runtime");
    }
    for (const auto &[name, entry] : bundle.files) {
        try {
            const RegularFile file(path / name);
        } catch (const FileError &error) {
            if (!error.missing()) {
                fail_bundle((path / name).string(), std::string("cannot be read: ") + error.what(), kCopyAll);
            }
            fail_bundle(path.string(), "the file '" + name + "' is missing; expected it because bundle.json lists it",
                        kCopyAll);
        }
    }
    return bundle;
}

void Bundle::verify_files() const {
    for (const auto &[name, entry] : files) {
        if (name != kGraph) verify_file(path / name, entry, kManifest, kExportAgain);
    }
    (void)read_graph();
}

std::string Bundle::read_graph() const {
    auto data = read_verified_file(graph_path(), files.at(kGraph), kManifest, kExportAgain);
    const auto weights = files.find(kGraphData);
    try {
        check_graph(data, contract, graph_name, kGraphData,
                    weights == files.end() ? std::nullopt : std::optional(weights->second.bytes));
    } catch (const GraphError &error) {
        fail_bundle(graph_path().string(), error.what(), kExportAgain);
    }
    return data;
}

void Bundle::copy_weights(const fs::path &target) const {
    copy_verified_file(path / kGraphData, files.at(kGraphData), kManifest, kExportAgain, target);
}

}  // namespace tcmoa
