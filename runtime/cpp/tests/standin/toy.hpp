// Bundles with toy engines (see nvinfer.cpp), written without the exporter: small enough to be counted by hand.
#pragma once

#include <functional>
#include <string>

#include "bundle.hpp"
#include "fixtures.hpp"
#include "error.hpp"
#include "manifest.hpp"

namespace tcmoa::testing {

inline constexpr const char *kTensorRtVersion = "10.99.0.7";  // of the stand-ins
inline constexpr const char *kRtxVersion = "1.99.2.16";

// What a JSON file of ours holds, with its own hash. Only for texts and whole numbers, or numbers such as 1.0.
inline std::string sealed(Manifest values) {
    values.erase("manifest_sha256");
    values["manifest_sha256"] = sha256(values.dump(-1, ' ', true));
    return values.dump(2);
}

inline Manifest described(const std::vector<TensorSpec> &specs) {
    auto object = Manifest::object();
    for (const auto &spec : specs) {
        object[spec.name] = {{"dtype", spec.element == Element::uint8 ? "uint8" : "float32"}, {"shape", spec.shape}};
    }
    return object;
}

// 16 x 24 pixels in tokens of 8: a grid of 2 x 3.
inline Contract toy_contract() {
    Contract contract;
    contract.height = 16;
    contract.width = 24;
    contract.grid_height = 2;
    contract.grid_width = 3;
    contract.prompts = 2;
    contract.y_channels = 1;
    contract.with_prompt = true;
    return contract;
}

inline std::string toy_engine(const Contract &contract) {
    std::string text = "toy engine\n";
    const auto add = [&](const char *kind, const std::vector<TensorSpec> &specs) {
        for (const auto &spec : specs) {
            text += std::string(kind) + " " + spec.name + (spec.element == Element::uint8 ? " uint8" : " float32");
            for (auto side : spec.shape) text += " " + std::to_string(side);
            text += "\n";
        }
    };
    add("input", contract.inputs());
    add("output", contract.outputs());
    return text + "scratch " + std::to_string(contract.outputs()[0].bytes()) + "\n";
}

struct ToyBundle {
    Scratch scratch;
    fs::path folder = scratch.path() / "toy";
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
                     {{"inputs", described(contract.inputs())}, {"outputs", described(contract.outputs())}}}};
        write_text(folder / "bundle.json", sealed(manifest));
    }

    [[nodiscard]] Bundle open() const { return Bundle::open(folder); }

    // The description of an engine; `change` edits it before it gets its name and its hash.
    using Change = std::function<void(Manifest &)>;
    fs::path add_engine(const Change &change = {}, std::string text = "") const {
        if (text.empty()) text = toy_engine(contract);
        Manifest engine = {{"format", "tcmoa-engine"},
                           {"format_version", 1},
                           {"flavour", "tensorrt"},
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
                const bool plain = target.is_string() && target.dump().find('\\') == std::string::npos;
                targets += (targets.empty() ? "" : "+") + (plain ? target.get<std::string>() : "odd");
            }
        }
        const auto word = [&](const char *key) {
            return engine.contains(key) && engine[key].is_string() ? engine[key].get<std::string>() : "odd";
        };
        const auto stem = word("flavour") + "-" + word("version") + "-" + (targets.empty() ? "local" : targets) + "-" +
                          word("precision");
        const auto path = folder / "engines" / (stem + ".engine");
        write_text(path, text);
        write_description(path, engine);
        return path;
    }

    static void write_description(fs::path path, const Manifest &engine) {
        write_text(path.replace_extension(".json"), sealed(engine));
    }
};

inline void as_rtx(Manifest &engine) {
    engine["flavour"] = "rtx";
    engine["version"] = kRtxVersion;
}

// What the call refuses with; fails the test where it does not.
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
    FAIL_CHECK("it was not refused");
    return "";
}

inline bool has(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

}  // namespace tcmoa::testing
