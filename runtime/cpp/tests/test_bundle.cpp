// Reading bundles: faults and their messages, and hashes that equal the exporter's.
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <functional>

#include "bundle.hpp"
#include "compile_cache.hpp"
#include "error.hpp"
#include "fixtures.hpp"
#include "sha256.hpp"

using namespace tcmoa;
using namespace tcmoa::testing;

namespace {

// The message of the Error that `step` throws.
std::string refusal(const std::function<void()> &step) {
    try {
        step();
    } catch (const Error &error) {
        CHECK(error.status() == TCMOA_ERROR_BUNDLE);
        const std::string text = error.what();
        CHECK(text.find('\n') == std::string::npos);
        return text;
    }
    FAIL("no error was thrown");
    return "";
}

// The message of opening a bundle.
std::string open_error(const fs::path &path) {
    return refusal([&] { (void)Bundle::open(path); });
}

// Change a manifest and update its own hash. `dump` writes the floats in it as the exporter does.
void edit(const fs::path &bundle, const std::function<void(Manifest &)> &change) {
    auto manifest = Manifest::parse(read_text(bundle / "bundle.json"));
    change(manifest);
    manifest.erase(kManifestHash);
    manifest[kManifestHash] = sha256(manifest.dump(-1, ' ', true));
    write_text(bundle / "bundle.json", manifest.dump(2));
}

using Catch::Matchers::Contains;

}  // namespace

TEST_CASE("a bundle of the exporter is read") {
    const auto bundle = Bundle::open(bundle_folder("vif-small"));
    CHECK(bundle.task == "vif");
    CHECK(bundle.preset == "custom");
    CHECK(bundle.precision == "fp32");
    CHECK(bundle.channel_order == "rgb");
    CHECK(bundle.token_pixels == 16);
    CHECK(bundle.contract.width == 112);
    CHECK(bundle.contract.grid_width == 7);
    CHECK(bundle.contract.with_prompt);
    CHECK(bundle.contract.num_prompts == 2);
    CHECK(bundle.default_scale == 1.0F);
    bundle.verify_files();
    CHECK(bundle.read_graph().size() == fs::file_size(bundle.graph_path()));
    const auto gray = Bundle::open(bundle_folder("vif-gray"));
    CHECK(gray.channel_order == "bgr");
    CHECK(gray.contract.y_channels == 1);
}

TEST_CASE("SHA-256 gives the digests of FIPS 180-4") {
    CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("the hash of a manifest is over canonical JSON as Python writes it") {
    // Python: json.dumps({...}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    const std::string canonical =
        R"({"a":[1,-2,true,null,[],{}],"format":"f","format_version":1,"numbers":[1e-05,0.1,1e+16,12345678901234567890],)"
        "\"text\":\"\\u00e9\\n\\\"\\\\\\u007f\\ud83d\\ude00/\"}";
    const std::string text = R"({ "text": "é\n\"\\)"
                             "\x7f"
                             R"(😀/", "numbers": [1e-05, 0.1, 1e+16, 12345678901234567890],
        "manifest_sha256": ")" +
                             sha256(canonical) + R"(", "format_version": 1, "format": "f", "a": [1, -2, true, null, [], {}] })";
    CHECK_NOTHROW(parse_manifest(text, "m.json", {"f", 1, "an f", "write it again"}));
}

TEST_CASE("a path that is not a bundle is refused with the reason") {
    const TemporaryFolder temporary;
    CHECK_THAT(open_error(temporary.path() / "none"), Contains("no such bundle. Make one with `tcmoa export"));
    write_text(temporary.path() / "file", "x");
    CHECK_THAT(open_error(temporary.path() / "file"), Contains("a file; expected the folder of a bundle"));
    CHECK_THAT(open_error(temporary.path()), Contains("not a bundle; expected a bundle.json in it"));
    const auto text_of = [&](std::string_view text) {
        write_text(temporary.path() / "bundle.json", text);
        return open_error(temporary.path());
    };
    CHECK_THAT(text_of(""), Contains("not valid JSON"));
    CHECK_THAT(text_of("{\"format\": \"tcmoa-bundle\""), Contains("not valid JSON"));
    CHECK_THAT(text_of("{\"format\": NaN}"), Contains("not valid JSON"));
    CHECK_THAT(text_of("\xff\xfe"), Contains("not valid JSON"));
    CHECK_THAT(text_of(std::string(100000, '[')), Contains("nested too deeply"));
    CHECK_THAT(text_of("[]"), Contains("not a TC-MoA bundle"));
    CHECK_THAT(text_of("{\"format\": \"other\"}"), Contains("not a TC-MoA bundle; expected 'format' to be 'tcmoa-bundle'"));
    CHECK_THAT(text_of(R"({"format": "tcmoa-bundle"})"), Contains("'format_version' is absent"));
    CHECK_THAT(text_of(R"({"format": "tcmoa-bundle", "format_version": true})"), Contains("'format_version' is true"));
    CHECK_THAT(text_of(R"({"format": "tcmoa-bundle", "format_version": 3})"), Contains("format version 3 is newer than this library; expected at most 2"));
    CHECK_THAT(text_of(R"({"format": "tcmoa-bundle", "format_version": 1})"), Contains("edited or damaged since it was written"));
    CHECK_THAT(text_of(std::string(1 << 21, ' ')), Contains("2097152 bytes; expected at most 1048576"));
    fs::remove(temporary.path() / "bundle.json");
    fs::create_directory(temporary.path() / "bundle.json");
    CHECK_THAT(open_error(temporary.path()), Contains("not a bundle; expected a bundle.json in it"));
}

TEST_CASE("a bundle that was edited, damaged or cut is refused") {
    const TemporaryFolder temporary;
    const auto bundle = temporary.copy("vif-small");
    auto text = read_text(bundle / "bundle.json");
    const auto original = text;
    text.replace(text.find("\"vif\""), 5, "\"mff\"");
    write_text(bundle / "bundle.json", text);
    CHECK_THAT(open_error(bundle), Contains("edited or damaged since it was written; expected the hash in 'manifest_sha256'"));
    write_text(bundle / "bundle.json", original);

    auto graph = read_text(bundle / "fusion.onnx");
    graph[graph.size() / 2] = static_cast<char>(graph[graph.size() / 2] ^ 1);
    write_text(bundle / "fusion.onnx", graph);
    CHECK_THAT(refusal([&] { (void)Bundle::open(bundle).read_graph(); }), Contains("SHA-256 is ") && Contains("as in bundle.json"));
    CHECK_THAT(refusal([&] { Bundle::open(bundle).verify_files(); }), Contains("so the file was changed since it was written"));
    write_text(bundle / "fusion.onnx", graph.substr(10));
    CHECK_THAT(refusal([&] { (void)Bundle::open(bundle).read_graph(); }), Contains("truncated or another file"));
    CHECK_THAT(refusal([&] { Bundle::open(bundle).verify_files(); }), Contains("truncated or another file"));
    fs::remove(bundle / "fusion.onnx");
    CHECK_THAT(open_error(bundle), Contains("the file 'fusion.onnx' is missing; expected it because bundle.json lists it"));
}

TEST_CASE("a manifest with a valid hash and a wrong value is refused with the key") {
    const TemporaryFolder temporary;
    const auto bundle = temporary.copy("vif-small");
    const auto with = [&](const std::function<void(Manifest &)> &change) {
        const auto original = read_text(bundle / "bundle.json");
        edit(bundle, change);
        auto message = open_error(bundle);
        write_text(bundle / "bundle.json", original);
        return message;
    };
    edit(bundle, [](Manifest &) {});
    CHECK_NOTHROW(Bundle::open(bundle));  // or the rest would test nothing
    CHECK_THAT(with([](Manifest &m) { m.erase("task"); }), Contains("'task' is absent"));
    CHECK_THAT(with([](Manifest &m) { m["task"] = "xyz"; }), Contains("'task' is \"xyz\"; expected 'vif', 'mef', 'mff'"));
    CHECK_THAT(with([](Manifest &m) { m["token_pixels"] = 7; }), Contains("'token_pixels' is 7; expected 8 or 16"));
    CHECK_THAT(with([](Manifest &m) { m["graph"] = 1; }), Contains("'graph' is 1; expected an object"));
    CHECK_THAT(with([](Manifest &m) { m["prompt_default"]["shift"] = 1e9; }), Contains("'prompt_default.shift'"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["with_prompt"] = 1; }), Contains("'frame.with_prompt' is 1; expected true or false"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["width"] = 0; }), Contains("'frame.width' is 0"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["width"] = 1ULL << 63; }), Contains("'frame.width' is 9223372036854775808"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["height"] = 112.0; }), Contains("'frame.height' is 112.0; expected an integer"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["grid"] = {7, 7, 7}; }), Contains("'frame.grid'"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["grid"] = 7; }), Contains("'frame.grid' is 7; expected a list"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["grid"] = {7, 8}; }), Contains("expected a grid that covers the frame with tokens of 16 pixels"));
    CHECK_THAT(with([](Manifest &m) { m["frame"]["batch"] = 3; }), Contains("'contract' does not match 'frame'"));
    CHECK_THAT(with([](Manifest &m) { m.erase("contract"); }), Contains("'contract' does not match 'frame'"));
    CHECK_THAT(with([](Manifest &m) { m["files"].erase("fusion.onnx"); }), Contains("'files.fusion.onnx' is absent"));
    CHECK_THAT(with([](Manifest &m) { m["files"]["../x"] = m["files"]["fusion.onnx"]; }), Contains("lists an unknown file '../x'"));
    CHECK_THAT(with([](Manifest &m) { m["files"]["fusion.onnx"]["bytes"] = 1LL << 40; }),
               Contains("lists 'fusion.onnx' with 1099511627776 bytes; expected at most 2147483647"));
    CHECK_THAT(with([](Manifest &m) { m["task"] = "a\nb"; }), Contains("'task' is \"a\\nb\""));
}

TEST_CASE("a bundle that aligns its sources is refused, since libtcmoa does not warp frames") {
    const TemporaryFolder temporary;
    const auto bundle = temporary.copy("vif-small");
    edit(bundle, [](Manifest &m) { m["alignment"] = {{"source", "y"}, {"model", "identity"}}; });
    CHECK_THAT(open_error(bundle), Contains("libtcmoa does not warp frames. Warp them in the pipeline") &&
                                    Contains("or use the Python runtime"));
    edit(bundle, [](Manifest &m) { m["alignment"] = nullptr; });  // any value
    CHECK_THAT(open_error(bundle), Contains("libtcmoa does not warp"));
    edit(bundle, [](Manifest &m) { m.erase("alignment"); });
    CHECK_NOTHROW(Bundle::open(bundle));
}

TEST_CASE("files of a compile cache that changed are deleted") {
    const TemporaryFolder temporary;
    const auto bundle = Bundle::open(temporary.copy("vif-small"));
    const UserFolders users;
    const auto open = [&bundle] { return CompileCache::open(bundle, "fake", "library 1", "a CPU"); };
    auto cache = open();
    REQUIRE(cache);
    CHECK(cache->folder().parent_path() == users.cache() / "compiled");
    CHECK_FALSE(fs::exists(bundle.path / "engines"));
    for (const auto &folder : {cache->folder(), users.cache()}) {
        CHECK(fs::status(folder).permissions() == fs::perms::owner_all);
    }
    CHECK(CompileCache::open(bundle, "fake", "library 2", "a CPU")->folder() != cache->folder());
    CHECK(CompileCache::open(bundle, "fake", "library 1", "another CPU")->folder() != cache->folder());
    write_text(cache->folder() / "a", "first");
    write_text(cache->folder() / "b", "second");
    REQUIRE(cache->seal());
    write_text(cache->folder() / "b", "changed");
    write_text(cache->folder() / "c", "never sealed");
    write_text(cache->folder() / ".cache.json.XXXXXX", "another process writes it");
    fs::create_symlink("/etc/passwd", cache->folder() / "d");
    REQUIRE(mkfifo((cache->folder() / "e").c_str(), 0600) == 0);
    CHECK(fs::status(cache->folder() / "a").permissions() == (fs::perms::owner_read | fs::perms::owner_write));
    const auto folder = cache->folder();
    cache.reset();  // one session at a time uses the folder
    REQUIRE(open());
    CHECK(read_text(folder / "a") == "first");
    CHECK_FALSE(fs::exists(folder / "b"));
    CHECK_FALSE(fs::exists(folder / "c"));
    CHECK(fs::exists(folder / ".cache.json.XXXXXX"));
    CHECK_FALSE(fs::exists(fs::symlink_status(folder / "d")));
    CHECK_FALSE(fs::exists(fs::symlink_status(folder / "e")));

    write_text(folder / "cache.json", "{");
    REQUIRE(open());
    CHECK_FALSE(fs::exists(folder / "a"));
    fs::remove(folder / "cache.json");
    REQUIRE(mkfifo((folder / "cache.json").c_str(), 0600) == 0);
    REQUIRE(open());

    fs::remove_all(folder);
    fs::create_directory(temporary.path() / "elsewhere");
    fs::create_directory_symlink(temporary.path() / "elsewhere", folder);
    CHECK_FALSE(open());
    fs::remove(folder);
    fs::permissions(users.cache() / "compiled", fs::perms::others_write, fs::perm_options::add);
    CHECK_FALSE(open());
}

TEST_CASE("foreign text cannot break the line of a message") {
    CHECK(printable("a\nb\tc") == "a b c");
    CHECK(printable("ééé", 3) == "é…");
    CHECK(first_line("\n  \nfirst\nsecond") == "first");
    CHECK(std::string(Error(TCMOA_ERROR_INPUT, "", "a\nb").what()) == "a b");
    CHECK(first_line(nullptr) == "no reason given");
    CHECK(last_reason("Exception from src/core.cpp:105:\nException from src/plugin.cpp:7:\nCheck 'a > b' failed at "
                      "src/x.cpp:9:\n  cannot allocate 5 bytes \n\n") == "cannot allocate 5 bytes");
    CHECK(last_reason("Exception from src/core.cpp:105:\n") == "Exception from src/core.cpp:105:");
    CHECK(last_reason(nullptr) == "no reason given");
}
