// Engine descriptions: what is refused before anything of an engine is loaded.
#include <catch2/catch.hpp>

#include "engine.hpp"
#include "standin/toy.hpp"

using namespace tcmoa;
using namespace tcmoa::testing;

namespace {

// What opening the engine, with its description changed, is refused with.
std::string refused(const ToyBundle::Change &change) {
    const ToyBundle toy;
    const auto path = toy.add_engine(change);
    return refusal([&] { (void)Engine::open(toy.open(), path); });
}

}  // namespace

TEST_CASE("a good engine tells what it is") {
    const ToyBundle toy;
    const auto path = toy.add_engine([](Manifest &engine) {
        engine["targets"] = {"sm86", "sm120"};
        engine["hardware_compatibility"] = "same_compute_capability";
    });
    const auto engine = Engine::open(toy.open(), path);
    CHECK(engine.stem() == "tensorrt-10.99.0.7-sm86+sm120-fp16");
    CHECK(engine.flavour == Flavour::tensorrt);
    CHECK(engine.gpu == Capability{8, 9});
    CHECK(engine.gpu_name == "Simulated GPU 0");
    CHECK_FALSE(engine.stripped);
    CHECK(engine.read() == toy_engine(toy.contract));
    CHECK(has(engine.again, "tcmoa build " + toy.folder.string() + " --flavour tensorrt`"));
}

TEST_CASE("engines are found by name, and none without a folder") {
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

TEST_CASE("a wrong description with the right hash is refused") {
    const std::vector<std::pair<ToyBundle::Change, std::string>> cases = {
        {[](Manifest &m) { m["format"] = "other"; }, "not the description of an engine"},
        {[](Manifest &m) { m["format_version"] = 2; }, "newer"},
        {[](Manifest &m) { m["flavour"] = "other"; }, "'flavour' is \"other\""},
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
        {[](Manifest &m) { m["graph"]["files"]["fusion.onnx"] = "0"; }, "with other bytes"},
        {[](Manifest &m) { m["graph"]["files"]["fusion.data"] = "0"; }, "with other bytes"},
        {[](Manifest &m) { m["engine"]["bytes"] = "3"; }, "'engine.bytes'"},
        {[](Manifest &m) { m["stripped"] = 0; }, "'stripped'"},
        {[](Manifest &m) { m["contract"]["inputs"]["x"]["shape"][1] = 17; }, "'contract' is not the one"},
        {[](Manifest &m) { m["contract"] = nullptr; }, "'contract' is not the one"},
    };
    for (const auto &[change, words] : cases) {
        const auto text = refused(change);
        INFO(text << " / " << words);
        CHECK(has(text, words));
        CHECK(has(text, "build it again with `tcmoa build"));
    }
    for (const char *key : {"flavour", "version", "precision", "targets", "hardware_compatibility", "graph", "engine",
                            "stripped", "options", "contract"}) {
        INFO(key);
        CHECK(has(refused([&](Manifest &m) { m.erase(key); }), key));
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
    CHECK(has(refusal([&] { (void)engine.read(); }), "its JSON says"));
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
    CHECK(has(refusal([&] { (void)Engine::open(toy.open(), path); }), "beside it that tells what it is"));
}

TEST_CASE("an engine under another name is refused") {
    const ToyBundle toy;
    const auto path = toy.add_engine();
    const auto other = path.parent_path() / "tensorrt-10.99.0.7-local-fp32.engine";
    fs::rename(path, other);
    fs::rename(fs::path(path).replace_extension(".json"), fs::path(other).replace_extension(".json"));
    CHECK(has(refusal([&] { (void)Engine::open(toy.open(), other); }), "it was renamed"));
}

TEST_CASE("only engines inside the bundle are opened") {
    const ToyBundle toy, elsewhere;
    const auto path = toy.add_engine();
    const auto bundle = toy.open();

    SECTION("a path of another bundle") {
        const auto other = elsewhere.add_engine();
        CHECK(has(refusal([&] { (void)Engine::open(bundle, other); }), "lies outside of"));
    }
    SECTION("a link that leaves it") {
        const auto target = toy.scratch.path() / path.filename();
        fs::rename(path, target);
        fs::create_symlink(target, path);
        CHECK(has(refusal([&] { (void)Engine::open(bundle, path); }), "native code"));
    }
    SECTION("a folder that is a link that leaves it") {
        fs::rename(toy.folder / "engines", toy.scratch.path() / "moved");
        fs::create_directory_symlink(toy.scratch.path() / "moved", toy.folder / "engines");
        CHECK(has(refusal([&] { (void)Engine::open(bundle, path); }), "lies outside of"));
    }
    SECTION("links in a circle") {
        fs::remove(path);
        fs::create_symlink(path, path);
        CHECK(has(refusal([&] { (void)Engine::open(bundle, path); }), "cannot be read"));
    }
    SECTION("a link that is made after it was opened") {
        const auto engine = Engine::open(bundle, path);
        const auto target = toy.scratch.path() / path.filename();
        fs::rename(path, target);
        fs::create_symlink(target, path);
        CHECK(has(refusal([&] { (void)engine.read(); }), "lies outside of"));
    }
    SECTION("a bundle that is itself a link is fine") {
        fs::create_directory_symlink(toy.folder, toy.scratch.path() / "link");
        const auto linked = Bundle::open(toy.scratch.path() / "link");
        CHECK(Engine::open(linked, find_engines(linked).at(0)).precision == "fp16");
    }
    SECTION("a path that comes back into it is fine") {
        const auto around = toy.folder / "engines" / ".." / "engines" / path.filename();
        CHECK(Engine::open(bundle, around).precision == "fp16");
    }
}

TEST_CASE("engines run on the version and the GPUs that they were built for") {
    const auto opened = [](const ToyBundle::Change &change) {
        const ToyBundle toy;
        return Engine::open(toy.open(), toy.add_engine(change));
    };
    const auto local = opened({});
    CHECK(local.unfit(kTensorRtVersion, {8, 9}).empty());
    CHECK(local.unfit(kTensorRtVersion, {8, 6}) ==
          "it was built for Simulated GPU 0 (8.9), this GPU has compute capability 8.6");
    CHECK(local.unfit("10.99.0.8", {8, 9}) == "it was built by tensorrt 10.99.0.7, installed is 10.99.0.8");
    CHECK_FALSE(local.unfit("10.99.0", {8, 9}).empty());

    const auto ahead = opened([](Manifest &m) {
        m["targets"] = {"sm86", "sm120"};
        m["gpu"] = nullptr;
    });
    CHECK(ahead.unfit(kTensorRtVersion, {8, 6}).empty());
    CHECK(ahead.unfit(kTensorRtVersion, {12, 0}).empty());
    CHECK(ahead.unfit(kTensorRtVersion, {8, 9}) ==
          "it was built for SM86, SM120, this GPU has compute capability 8.9");

    const auto wide = opened([](Manifest &m) { m["hardware_compatibility"] = "ampere_plus"; });
    CHECK(wide.unfit(kTensorRtVersion, {12, 0}).empty());
    CHECK(wide.unfit(kTensorRtVersion, {8, 0}).empty());
    CHECK(has(wide.unfit(kTensorRtVersion, {7, 5}), "compute capability 8.0 and above"));

    const auto nowhere = opened([](Manifest &m) { m["gpu"] = nullptr; });
    CHECK(has(nowhere.unfit(kTensorRtVersion, {8, 9}), "no GPU that its JSON names"));
}
