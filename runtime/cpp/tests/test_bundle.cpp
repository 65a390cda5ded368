// Reading bundles: what is refused, with which words, and that hashes are those of the exporter.
#include <catch2/catch.hpp>
#include <functional>

#include "bundle.hpp"
#include "cache.hpp"
#include "error.hpp"
#include "fixtures.hpp"

using namespace tcmoa;
using namespace tcmoa::testing;

namespace {

// The message of what `step` throws, which must be a refusal of a bundle.
std::string refusal(const std::function<void()> &step) {
    try {
        step();
    } catch (const Error &error) {
        CHECK(error.status() == TCMOA_ERROR_BUNDLE);
        const std::string text = error.what();
        CHECK(text.find('\n') == std::string::npos);
        return text;
    }
    FAIL("nothing was refused");
    return "";
}

std::string opening(const fs::path &path) {
    return refusal([&] { (void)Bundle::open(path); });
}

// Change a manifest and give it the hash of its own that it then needs. `dump` writes floats as the exporter does for
// those that occur here.
void edit(const fs::path &bundle, const std::function<void(Manifest &)> &change) {
    auto manifest = Manifest::parse(read_text(bundle / "bundle.json"));
    change(manifest);
    manifest.erase("manifest_sha256");
    manifest["manifest_sha256"] = sha256(manifest.dump(-1, ' ', true));
    write_text(bundle / "bundle.json", manifest.dump(2));
}

using Catch::Matchers::Contains;

}  // namespace

TEST_CASE("a bundle of the exporter is read as it is") {
    const auto bundle = Bundle::open(bundle_folder("vif-small"));
    CHECK(bundle.task == "vif");
    CHECK(bundle.preset == "custom");
    CHECK(bundle.precision == "fp32");
    CHECK(bundle.channel_order == "rgb");
    CHECK(bundle.token_pixels == 16);
    CHECK(bundle.contract.width == 112);
    CHECK(bundle.contract.grid_width == 7);
    CHECK(bundle.contract.with_prompt);
    CHECK(bundle.contract.prompts == 2);
    CHECK(bundle.default_scale == 1.0F);
    bundle.check();
    CHECK(bundle.read_graph().size() == fs::file_size(bundle.graph_path()));
    const auto grey = Bundle::open(bundle_folder("vif-grey"));
    CHECK(grey.channel_order == "bgr");
    CHECK(grey.contract.y_channels == 1);
}

TEST_CASE("SHA-256 is the standard's") {
    CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("a manifest's own hash is over canonical JSON as Python writes it") {
    // Python: json.dumps({...}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    const std::string canonical =
        R"({"a":[1,-2,true,null,[],{}],"format":"f","format_version":1,"numbers":[1e-05,0.1,1e+16,123456789012345678901234567890],)"
        "\"text\":\"\\u00e9\\n\\\"\\\\\\u007f\\ud83d\\ude00/\"}";
    const std::string text = R"({ "text": "é\n\"\\)"
                             "\x7f"
                             R"(😀/", "numbers": [1e-05, 0.1, 1e+16, 123456789012345678901234567890],
        "manifest_sha256": ")" +
                             sha256(canonical) + R"(", "format_version": 1, "format": "f", "a": [1, -2, true, null, [], {}] })";
    CHECK_NOTHROW(parse_manifest(text, "m.json", "f", 1, "an f", "again"));
}

TEST_CASE("what is no bundle is refused with what it is") {
    const Scratch scratch;
    CHECK_THAT(opening(scratch.path() / "none"), Contains("no such bundle; make one with `tcmoa export"));
    write_text(scratch.path() / "file", "x");
    CHECK_THAT(opening(scratch.path() / "file"), Contains("is a file, expected a bundle folder"));
    CHECK_THAT(opening(scratch.path()), Contains("holds no bundle.json"));
    const auto text_of = [&](std::string_view text) {
        write_text(scratch.path() / "bundle.json", text);
        return opening(scratch.path());
    };
    CHECK_THAT(text_of(""), Contains("not valid JSON"));
    CHECK_THAT(text_of("{\"format\": \"tcmoa-bundle\""), Contains("not valid JSON"));
    CHECK_THAT(text_of("{\"format\": NaN}"), Contains("not valid JSON"));
    CHECK_THAT(text_of("\xff\xfe"), Contains("not valid JSON"));
    CHECK_THAT(text_of(std::string(100000, '[')), Contains("nested too deeply"));
    CHECK_THAT(text_of("[]"), Contains("not a TC-MoA bundle"));
    CHECK_THAT(text_of("{\"format\": \"other\"}"), Contains("not a TC-MoA bundle ('format' is not 'tcmoa-bundle')"));
    CHECK_THAT(text_of(R"({"format": "tcmoa-bundle"})"), Contains("'format_version' is absent"));
    CHECK_THAT(text_of(R"({"format": "tcmoa-bundle", "format_version": true})"), Contains("'format_version' is true"));
    CHECK_THAT(text_of(R"({"format": "tcmoa-bundle", "format_version": 2})"), Contains("format 2 is newer than this library reads (1)"));
    CHECK_THAT(text_of(R"({"format": "tcmoa-bundle", "format_version": 1})"), Contains("its own hash differs"));
    CHECK_THAT(text_of(std::string(1 << 21, ' ')), Contains("no bundle.json is that large"));
    fs::remove(scratch.path() / "bundle.json");
    fs::create_directory(scratch.path() / "bundle.json");
    CHECK_THAT(opening(scratch.path()), Contains("holds no bundle.json"));
}

TEST_CASE("a bundle that was edited, damaged or cut is refused") {
    const Scratch scratch;
    const auto bundle = scratch.copy("vif-small");
    auto text = read_text(bundle / "bundle.json");
    const auto original = text;
    text.replace(text.find("\"vif\""), 5, "\"mff\"");
    write_text(bundle / "bundle.json", text);
    CHECK_THAT(opening(bundle), Contains("was edited or damaged since it was written (its own hash differs)"));
    write_text(bundle / "bundle.json", original);

    auto graph = read_text(bundle / "fusion.onnx");
    graph[graph.size() / 2] = static_cast<char>(graph[graph.size() / 2] ^ 1);
    write_text(bundle / "fusion.onnx", graph);
    CHECK_THAT(refusal([&] { (void)Bundle::open(bundle).read_graph(); }), Contains("SHA-256 is ") && Contains("bundle.json says"));
    CHECK_THAT(refusal([&] { Bundle::open(bundle).check(); }), Contains("it was changed since it was written"));
    write_text(bundle / "fusion.onnx", graph.substr(10));
    CHECK_THAT(refusal([&] { (void)Bundle::open(bundle).read_graph(); }), Contains("it is truncated or another file"));
    CHECK_THAT(refusal([&] { Bundle::open(bundle).check(); }), Contains("it is truncated or another file"));
    fs::remove(bundle / "fusion.onnx");
    CHECK_THAT(opening(bundle), Contains("'fusion.onnx' is missing, bundle.json lists it"));
}

TEST_CASE("a manifest that is sound and wrong is refused with the key") {
    const Scratch scratch;
    const auto bundle = scratch.copy("vif-small");
    const auto with = [&](const std::function<void(Manifest &)> &change) {
        const auto original = read_text(bundle / "bundle.json");
        edit(bundle, change);
        auto message = opening(bundle);
        write_text(bundle / "bundle.json", original);
        return message;
    };
    edit(bundle, [](Manifest &) {});
    CHECK_NOTHROW(Bundle::open(bundle));  // or the rest would test nothing
    CHECK_THAT(with([](Manifest &m) { m.erase("task"); }), Contains("'task' is absent"));
    CHECK_THAT(with([](Manifest &m) { m["task"] = "xyz"; }), Contains("'task' is \"xyz\", expected 'vif', 'mef', 'mff'"));
    CHECK_THAT(with([](Manifest &m) { m["token_pixels"] = 7; }), Contains("'token_pixels' is 7, expected 8, 16"));
    CHECK_THAT(with([](Manifest &m) { m["graph"] = 1; }), Contains("'graph' is 1, expected an object"));
    CHECK_THAT(with([](Manifest &m) { m["prompt_default"]["shift"] = 1e9; }), Contains("'prompt_default.shift'"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["with_prompt"] = 1; }), Contains("'frame.with_prompt' is 1, expected true or false"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["width"] = 0; }), Contains("'frame.width' is 0"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["width"] = 1ULL << 63; }), Contains("'frame.width' is 9223372036854775808"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["height"] = 112.0; }), Contains("'frame.height' is 112.0, expected a whole number"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["grid"] = {7, 7, 7}; }), Contains("'frame.grid'"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["grid"] = 7; }), Contains("'frame.grid' is 7, expected a list"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["grid"] = {7, 8}; }), Contains("does not cover the frame in tokens of 16 pixels"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["batch"] = 3; }), Contains("'contract' is not the graph contract"));
    CHECK_THAT(with([](Manifest &m) { m.erase("contract"); }), Contains("'contract' is not the graph contract"));
    CHECK_THAT(with([](Manifest &m) { m["files"].erase("fusion.onnx"); }), Contains("'files.fusion.onnx' is absent"));
    CHECK_THAT(with([](Manifest &m) { m["files"]["../x"] = m["files"]["fusion.onnx"]; }), Contains("lists an unknown file '../x'"));
    CHECK_THAT(with([](Manifest &m) { m["task"] = "a\nb"; }), Contains("'task' is \"a\\nb\""));
}

TEST_CASE("a bundle that aligns its sources is refused, for nothing here would warp them") {
    const Scratch scratch;
    const auto bundle = scratch.copy("vif-small");
    edit(bundle, [](Manifest &m) { m["alignment"] = {{"source", "y"}, {"model", "identity"}}; });
    CHECK_THAT(opening(bundle), Contains("libtcmoa does not warp: warp in the pipeline") &&
                                    Contains("or use the Python runtime"));
    edit(bundle, [](Manifest &m) { m["alignment"] = nullptr; });  // whatever it holds
    CHECK_THAT(opening(bundle), Contains("libtcmoa does not warp"));
    edit(bundle, [](Manifest &m) { m.erase("alignment"); });
    CHECK_NOTHROW(Bundle::open(bundle));
}

TEST_CASE("what a backend compiled is deleted when it is not as it was left") {
    const Scratch scratch;
    const auto bundle = Bundle::open(scratch.copy("vif-small"));
    auto cache = Cache::open(bundle, "fake-1");
    REQUIRE(cache);
    CHECK(cache->folder().parent_path() == bundle.path / "engines");
    write_text(cache->folder() / "a", "first");
    write_text(cache->folder() / "b", "second");
    REQUIRE(cache->seal());
    write_text(cache->folder() / "b", "changed");
    write_text(cache->folder() / "c", "never sealed");
    fs::create_symlink("/etc/passwd", cache->folder() / "d");
    REQUIRE(Cache::open(bundle, "fake-1"));
    CHECK(read_text(cache->folder() / "a") == "first");
    CHECK_FALSE(fs::exists(cache->folder() / "b"));
    CHECK_FALSE(fs::exists(cache->folder() / "c"));
    CHECK_FALSE(fs::exists(fs::symlink_status(cache->folder() / "d")));

    write_text(cache->folder() / "cache.json", "{");
    REQUIRE(Cache::open(bundle, "fake-1"));
    CHECK_FALSE(fs::exists(cache->folder() / "a"));

    fs::remove_all(cache->folder());
    fs::create_directory(scratch.path() / "elsewhere");
    fs::create_directory_symlink(scratch.path() / "elsewhere", cache->folder());
    CHECK_FALSE(Cache::open(bundle, "fake-1"));
}

TEST_CASE("text of others cannot break a line") {
    CHECK(shown("a\nb\tc") == "a b c");
    CHECK(shown("ééé", 3) == "é…");
    CHECK(first_line("\n  \nfirst\nsecond") == "first");
    CHECK(std::string(Error(TCMOA_ERROR_INPUT, "a\nb").what()) == "a b");
    CHECK(first_line(nullptr) == "no reason was given");
}
