// Descriptions of engines: faults are found before anything of an engine is loaded.
#include <catch2/catch.hpp>

#include "engine.hpp"
#include "simulated/toy_bundle.hpp"

using namespace tcmoa;
using namespace tcmoa::testing;

namespace {

// The message of opening an engine whose description was changed.
std::string error_of_changed(const ToyBundle::Change &change) {
    const ToyBundle toy;
    const auto path = toy.add_engine(change);
    return refusal([&] { (void)Engine::open(toy.open(), path); });
}

}  // namespace

TEST_CASE("a description is read") {
    const ToyBundle toy;
    const auto path = toy.add_engine([](Manifest &engine) {
        engine["targets"] = {"sm86", "sm120"};
        engine["hardware_compatibility"] = "same_compute_capability";
    });
    const auto engine = Engine::open(toy.open(), path);
    CHECK(engine.stem() == "tensorrt-10.99.0.7-sm86+sm120-fp16");
    CHECK(engine.flavor == Flavor::tensorrt);
    CHECK(engine.gpu == Capability{8, 9});
    CHECK(engine.gpu_name == "Simulated GPU 0");
    CHECK_FALSE(engine.stripped);
    CHECK(engine.read() == toy_engine(toy.contract));
    CHECK(has(engine.remedy, "tcmoa build " + toy.folder.string() + " --flavor tensorrt`"));
}

TEST_CASE("engines are found by name, and none without their folder") {
    const ToyBundle toy;
    CHECK(find_engines(toy.open()).empty());
    const auto rtx = toy.add_engine(as_rtx), plain = toy.add_engine();
    const auto found = find_engines(toy.open());
    REQUIRE(found.size() == 2);
    CHECK(found[0] == rtx);
    CHECK(found[1] == plain);
    fs::remove_all(toy.folder / "engines");
    CHECK(find_engines(toy.open()).empty());
}

TEST_CASE("a description with a valid hash and a wrong value is refused") {
    const std::vector<std::pair<ToyBundle::Change, std::string>> cases = {
        {[](Manifest &m) { m["format"] = "other"; }, "not the description of an engine"},
        {[](Manifest &m) { m["format_version"] = 2; }, "newer"},
        {[](Manifest &m) { m["flavor"] = "other"; }, "'flavor' is \"other\""},
        {[](Manifest &m) { m["precision"] = "int8"; }, "'precision'"},
        {[](Manifest &m) { m["hardware_compatibility"] = "all"; }, "'hardware_compatibility'"},
        {[](Manifest &m) { m["version"] = 10; }, "'version' is 10"},
        {[](Manifest &m) { m["version"] = "10 1"; }, "'version'"},
        {[](Manifest &m) { m["targets"] = {"sm8"}; }, "'targets' holds \"sm8\""},
        {[](Manifest &m) { m["targets"] = {"sm8\n"}; }, "'targets' holds"},
        {[](Manifest &m) { m["targets"] = {"gfx86"}; }, "'targets' holds"},
        {[](Manifest &m) { m["targets"] = {86}; }, "'targets' holds 86"},
        {[](Manifest &m) { m["targets"] = "sm86"; }, "'targets'"},
        {[](Manifest &m) { m["gpu"] = "a GPU"; }, "'gpu'"},
        {[](Manifest &m) { m["gpu"]["compute_capability"] = "8.10"; }, "'gpu.compute_capability'"},
        {[](Manifest &m) { m["gpu"]["compute_capability"] = ".9"; }, "'gpu.compute_capability'"},
        {[](Manifest &m) { m["graph"]["name"] = "another"; }, "built from the graph 'another'"},
        {[](Manifest &m) { m["graph"]["files"]["fusion.onnx"] = "0"; }, "with the same bytes"},
        {[](Manifest &m) { m["graph"]["files"]["fusion.data"] = "0"; }, "with the same bytes"},
        {[](Manifest &m) { m["engine"]["bytes"] = "3"; }, "'engine.bytes'"},
        {[](Manifest &m) { m["stripped"] = 0; }, "'stripped'"},
        {[](Manifest &m) { m["contract"]["inputs"]["x"]["shape"][1] = 17; }, "'contract' differs"},
        {[](Manifest &m) { m["contract"] = nullptr; }, "'contract' differs"},
    };
    for (const auto &[change, expected] : cases) {
        const auto text = error_of_changed(change);
        INFO(text << " / " << expected);
        CHECK(has(text, expected));
        CHECK(has(text, "it again with `tcmoa build"));
    }
    for (const char *key : {"flavor", "version", "precision", "targets", "hardware_compatibility", "graph", "engine",
                            "stripped", "options", "contract"}) {
        INFO(key);
        CHECK(has(error_of_changed([&](Manifest &m) { m.erase(key); }), key));
    }
}

TEST_CASE("a damaged or swapped engine is refused") {
    const ToyBundle toy;
    const auto path = toy.add_engine();
    const auto engine = Engine::open(toy.open(), path);
    const auto text = read_text(path);
    write_text(path, text + " ");
    CHECK(has(refusal([&] { (void)engine.read(); }), "truncated or another file"));
    write_text(path, text.substr(0, text.size() - 1) + "x");
    CHECK(has(refusal([&] { (void)engine.read(); }), "as in its JSON"));
    fs::remove(path);
    CHECK(has(refusal([&] { (void)engine.read(); }), "no such engine"));
}

TEST_CASE("a damaged or missing description is refused") {
    const ToyBundle toy;
    const auto path = toy.add_engine();
    auto description = path;
    description.replace_extension(".json");
    const auto text = read_text(description);
    for (const std::string &wrong : {text.substr(0, 40), std::string("[]"), std::string(), "x" + text,
                                     std::string(text).replace(text.find("fp16"), 4, "bf16")}) {
        write_text(description, wrong);
        (void)refusal([&] { (void)Engine::open(toy.open(), path); });
    }
    fs::remove(description);
    CHECK(has(refusal([&] { (void)Engine::open(toy.open(), path); }), "beside it; expected one that describes the engine"));
}

TEST_CASE("an engine under another name is refused") {
    const ToyBundle toy;
    const auto path = toy.add_engine();
    const auto other = path.parent_path() / "tensorrt-10.99.0.7-local-fp32.engine";
    fs::rename(path, other);
    fs::rename(fs::path(path).replace_extension(".json"), fs::path(other).replace_extension(".json"));
    CHECK(has(refusal([&] { (void)Engine::open(toy.open(), other); }), "was renamed; expected "));
}

TEST_CASE("only engines inside the bundle are opened") {
    const ToyBundle toy, elsewhere;
    const auto path = toy.add_engine();
    const auto bundle = toy.open();

    SECTION("a path of another bundle") {
        const auto other = elsewhere.add_engine();
        CHECK(has(refusal([&] { (void)Engine::open(bundle, other); }), "outside of its bundle"));
    }
    SECTION("a link out of the bundle") {
        const auto target = toy.temporary.path() / path.filename();
        fs::rename(path, target);
        fs::create_symlink(target, path);
        CHECK(has(refusal([&] { (void)Engine::open(bundle, path); }), "native code"));
    }
    SECTION("a folder that is a link out of the bundle") {
        fs::rename(toy.folder / "engines", toy.temporary.path() / "moved");
        fs::create_directory_symlink(toy.temporary.path() / "moved", toy.folder / "engines");
        CHECK(has(refusal([&] { (void)Engine::open(bundle, path); }), "outside of its bundle"));
    }
    SECTION("a circular link") {
        fs::remove(path);
        fs::create_symlink(path, path);
        CHECK(has(refusal([&] { (void)Engine::open(bundle, path); }), "cannot be read"));
    }
    SECTION("a link that is created after the engine was opened") {
        const auto engine = Engine::open(bundle, path);
        const auto target = toy.temporary.path() / path.filename();
        fs::rename(path, target);
        fs::create_symlink(target, path);
        CHECK(has(refusal([&] { (void)engine.read(); }), "outside of its bundle"));
    }
    SECTION("a bundle that is itself a link is accepted") {
        fs::create_directory_symlink(toy.folder, toy.temporary.path() / "link");
        const auto linked = Bundle::open(toy.temporary.path() / "link");
        CHECK(Engine::open(linked, find_engines(linked).at(0)).precision == "fp16");
    }
    SECTION("a path that returns to the bundle is accepted") {
        const auto around = toy.folder / "engines" / ".." / "engines" / path.filename();
        CHECK(Engine::open(bundle, around).precision == "fp16");
    }
}

TEST_CASE("engines run with the version and on the GPUs that they were built for") {
    const auto opened = [](const ToyBundle::Change &change) {
        const ToyBundle toy;
        return Engine::open(toy.open(), toy.add_engine(change));
    };
    const auto local = opened({});
    CHECK(local.incompatibility(kTensorRtVersion, {8, 9}).empty());
    CHECK(local.incompatibility(kTensorRtVersion, {8, 6}) ==
          "built for Simulated GPU 0 (8.9); expected this GPU's compute capability 8.6");
    CHECK(local.incompatibility("10.99.0.8", {8, 9}) == "built by tensorrt 10.99.0.7; expected the installed version 10.99.0.8");
    CHECK_FALSE(local.incompatibility("10.99.0", {8, 9}).empty());

    const auto ahead = opened([](Manifest &m) {
        m["targets"] = {"sm86", "sm120"};
        m["gpu"] = nullptr;
    });
    CHECK(ahead.incompatibility(kTensorRtVersion, {8, 6}).empty());
    CHECK(ahead.incompatibility(kTensorRtVersion, {12, 0}).empty());
    CHECK(ahead.incompatibility(kTensorRtVersion, {8, 9}) ==
          "built for SM86, SM120; expected this GPU's compute capability 8.9");

    const auto wide = opened([](Manifest &m) { m["hardware_compatibility"] = "ampere_plus"; });
    CHECK(wide.incompatibility(kTensorRtVersion, {12, 0}).empty());
    CHECK(wide.incompatibility(kTensorRtVersion, {8, 0}).empty());
    CHECK(has(wide.incompatibility(kTensorRtVersion, {7, 5}), "compute capability 8.0 and above"));

    const auto nowhere = opened([](Manifest &m) { m["gpu"] = nullptr; });
    CHECK(has(nowhere.incompatibility(kTensorRtVersion, {8, 9}), "no GPU that its JSON names"));
}
