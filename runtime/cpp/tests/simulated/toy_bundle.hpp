// Bundles with toy engines (see nvinfer.cpp), written without the exporter and small enough to compute by hand.
#pragma once

#include <functional>
#include <string>

#include "bundle.hpp"
#include "error.hpp"
#include "fixtures.hpp"
#include "manifest.hpp"
#include "sha256.hpp"
#include "user_folders.hpp"

namespace tcmoa::testing {

inline constexpr const char *kTensorRtVersion = "10.99.0.7";  // of the simulated libraries
inline constexpr const char *kRtxVersion = "1.99.2.16";

// The text of a manifest with its own hash. Only for values that JSON libraries write alike: strings, integers, 1.0.
inline std::string with_hash(Manifest values) {
    values.erase(kManifestHash);
    values[kManifestHash] = sha256(values.dump(-1, ' ', true));
    return values.dump(2);
}

inline Manifest tensors_to_json(const std::vector<TensorSpec> &specs) {
    auto object = Manifest::object();
    for (const auto &spec : specs) {
        object[spec.name] = {{"dtype", name_of(spec.type)}, {"shape", spec.shape}};
    }
    return object;
}

// 16x24 pixels (height x width) in tokens of 8 pixels: a grid of 2x3.
inline Contract toy_contract() {
    Contract contract;
    contract.height = 16;
    contract.width = 24;
    contract.grid_height = 2;
    contract.grid_width = 3;
    contract.num_prompts = 2;
    contract.y_channels = 1;
    contract.with_prompt = true;
    return contract;
}

// The bytes of an engine with the tensors of the contract.
inline std::string toy_engine(const Contract &contract) {
    std::string text = "toy engine\n";
    const auto add = [&](const char *kind, const std::vector<TensorSpec> &specs) {
        for (const auto &spec : specs) {
            text += std::string(kind) + " " + spec.name + " " + name_of(spec.type);
            for (auto side : spec.shape) text += " " + std::to_string(side);
            text += "\n";
        }
    };
    add("input", contract.inputs());
    add("output", contract.outputs());
    return text + "scratch " + std::to_string(contract.outputs()[0].num_bytes()) + "\n";
}

struct ToyBundle {
    UserFolders users;
    TemporaryFolder temporary;
    fs::path folder = temporary.path() / "toy";
    Contract contract = toy_contract();
    Manifest manifest;

    explicit ToyBundle(const std::string &graph = "toy graph") {
        fs::create_directories(folder / "engines");
        write_text(folder / "fusion.onnx", graph);
        manifest = {{"format", "tcmoa-bundle"},
                    {"format_version", 1},
                    {"task", "vif"},
                    {"channel_order", "rgb"},
                    {"precision", "fp32"},
                    {"preset", "tiny"},
                    {"fit", "pad"},
                    {"token_pixels", 8},
                    {"x_role", "infrared"},
                    {"y_role", "visible"},
                    {"graph", {{"name", "toy"}}},
                    {"prompt_default", {{"scale", 1}, {"shift", 0}}},
                    {"files", {{"fusion.onnx", {{"sha256", sha256(graph)}, {"bytes", graph.size()}}}}},
                    {"frame",
                     {{"height", 16}, {"width", 24}, {"batch", 1}, {"x_channels", 3}, {"y_channels", 1},
                      {"prompts", 2}, {"with_prompt", true}, {"grid", {2, 3}}}},
                    {"contract",
                     {{"inputs", tensors_to_json(contract.inputs())}, {"outputs", tensors_to_json(contract.outputs())}}}};
        write_text(folder / "bundle.json", with_hash(manifest));
    }

    [[nodiscard]] Bundle open() const { return Bundle::open(folder); }

    // Add an engine, built by this user. `change` edits its description before that gets its name and its hash.
    using Change = std::function<void(Manifest &)>;
    fs::path add_engine(const Change &change = {}, std::string text = "") const {
        if (text.empty()) text = toy_engine(contract);
        Manifest engine = {{"format", "tcmoa-engine"},
                           {"format_version", 1},
                           {"flavor", "tensorrt"},
                           {"version", kTensorRtVersion},
                           {"precision", "fp16"},
                           {"targets", Manifest::array()},
                           {"hardware_compatibility", "none"},
                           {"gpu", {{"name", "Simulated GPU 0"}, {"compute_capability", "8.9"}}},
                           {"graph",
                            {{"name", "toy"},
                             {"files", {{"fusion.onnx", manifest["files"]["fusion.onnx"]["sha256"]}}}}},
                           {"engine", {{"sha256", sha256(text)}, {"bytes", text.size()}}},
                           {"stripped", false},
                           {"weights", nullptr},
                           {"contract", manifest["contract"]},
                           {"options", Manifest::object()}};
        if (change) change(engine);
        std::string targets;
        if (engine["targets"].is_array()) {
            for (const auto &target : engine["targets"]) {
                const bool printable = target.is_string() && target.dump().find('\\') == std::string::npos;
                targets += (targets.empty() ? "" : "+") + (printable ? target.get<std::string>() : "wrong");
            }
        }
        const auto word = [&](const char *key) {
            return engine.contains(key) && engine[key].is_string() ? engine[key].get<std::string>() : "wrong";
        };
        const auto stem = word("flavor") + "-" + word("version") + "-" + (targets.empty() ? "local" : targets) + "-" +
                          word("precision");
        const auto path = folder / "engines" / (stem + ".engine");
        write_text(path, text);
        write_description(path, engine);
        write_text(open_user_folder(UserFolder::data, {"built-engines"}, true).value() / sha256(text), "{}");
        return path;
    }

    static void write_description(fs::path path, const Manifest &engine) {
        write_text(path.replace_extension(".json"), with_hash(engine));
    }
};

inline void as_rtx(Manifest &engine) {
    engine["flavor"] = "rtx";
    engine["version"] = kRtxVersion;
}

// The message of the Error that the call throws; fails the test if it throws none.
template <typename Call>
std::string refusal(Call &&call, int status = TCMOA_ERROR_BUNDLE) {
    try {
        call();
    } catch (const Error &error) {
        CHECK(error.status() == status);
        const std::string text = error.what();
        CHECK(text.find('\n') == std::string::npos);
        return text;
    }
    FAIL_CHECK("no error was thrown");
    return "";
}

inline bool has(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

}  // namespace tcmoa::testing
