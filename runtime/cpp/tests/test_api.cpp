// The shared library: real bundles on OpenVINO, and every error of the header.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "fixtures.hpp"
#include "tcmoa.h"

using namespace tcmoa::testing;
using Catch::Matchers::Contains;

extern "C" int tcmoa_header_alone(void);

namespace {

struct Handle {
    tcmoa_fuser *fuser = nullptr;

    explicit Handle(const fs::path &path, const char *backend = "openvino", int threads = 0) {
        tcmoa_options options;
        tcmoa_options_default(&options);
        options.backend = backend;
        options.threads = threads;
        INFO(error_of(nullptr));
        const int status = tcmoa_open(path.c_str(), &options, &fuser);
        if (status != TCMOA_OK) FAIL(error_of(nullptr));
    }
    ~Handle() { tcmoa_close(&fuser); }
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;
};

tcmoa_frame frame_of(int format, Bytes &bytes) {
    tcmoa_frame frame;
    tcmoa_frame_init(&frame, format, 112, 112, bytes.data());
    return frame;
}

// The message of opening a bundle with changed options.
template <typename Change>
std::string open_error(int status, Change change) {
    tcmoa_options options;
    tcmoa_options_default(&options);
    change(options);
    tcmoa_fuser *fuser = reinterpret_cast<tcmoa_fuser *>(1);
    CHECK(tcmoa_open(bundle_folder("vif-small").c_str(), &options, &fuser) == status);
    CHECK(fuser == nullptr);
    return error_of(nullptr);
}

std::size_t resident_kilobytes() {
    std::ifstream statm("/proc/self/statm");
    std::size_t total = 0, resident = 0;
    statm >> total >> resident;
    return resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) / 1024;
}

}  // namespace

TEST_CASE("the header compiles on its own as C, and every status has a name") {
    CHECK(tcmoa_header_alone() == 1);
    CHECK(std::string(tcmoa_version()) == "0.1.0");
    CHECK(std::string(tcmoa_status_name(TCMOA_OK)) == "TCMOA_OK");
    for (int status = -7; status < 0; ++status) {
        CHECK_THAT(std::string(tcmoa_status_name(status)), Contains("TCMOA_ERROR_"));
    }
    CHECK(std::string(tcmoa_status_name(-99)) == "unknown status");
}

TEST_CASE("results equal the bytes of the Python runtime on OpenVINO") {
    const std::string name = GENERATE("vif-small", "vif-gray");
    Reference reference(name);
    const Handle handle(bundle_folder(name));
    const bool gray = name == "vif-gray";
    Bytes out(reference.fused.size());
    const auto color = gray ? TCMOA_BGR8 : TCMOA_RGB8;
    const auto x = frame_of(color, reference.x), y = frame_of(gray ? TCMOA_GRAY8 : TCMOA_RGB8, reference.y);
    const auto fused = frame_of(color, out);
    REQUIRE(tcmoa_set_prompt(handle.fuser, 1.0F, 0.0F) == TCMOA_OK);
    REQUIRE(tcmoa_fuse(handle.fuser, &x, &y, &fused) == TCMOA_OK);
    CHECK(out == reference.fused);
    REQUIRE(tcmoa_set_prompt(handle.fuser, 1.5F, 0.25F) == TCMOA_OK);
    std::uint64_t ticket = 0;
    REQUIRE(tcmoa_submit(handle.fuser, &x, &y, &ticket) == TCMOA_OK);
    REQUIRE(tcmoa_wait(handle.fuser, ticket, &fused, -1) == TCMOA_OK);
    CHECK(out == reference.prompted);
    if (!gray) {
        const auto expected = read_bytes(bundle_folder(name + "-reference") / "prompt.raw");
        std::vector<float> prompt(expected.size() / sizeof(float));
        REQUIRE(tcmoa_set_prompt(handle.fuser, 1.0F, 0.0F) == TCMOA_OK);
        REQUIRE(tcmoa_fuse_with_prompt(handle.fuser, &x, &y, &fused, prompt.data(), prompt.size()) == TCMOA_OK);
        CHECK(std::memcmp(prompt.data(), expected.data(), expected.size()) == 0);
    }
}

TEST_CASE("a wrapped network gives the bytes of the Python runtime and refuses a prompt") {
    const Handle handle(bundle_folder("wrapped"));
    tcmoa_info info;
    REQUIRE(tcmoa_get_info(handle.fuser, &info) == TCMOA_OK);
    CHECK(std::string(info.preset) == "two-layers");
    CHECK((info.grid_width == 0 && info.grid_height == 0 && info.token_pixels == 0 && info.has_prompt == 0));
    CHECK((info.can_tile == 1 && info.y_channels == 1));
    auto x = read_bytes(bundle_folder("wrapped-reference") / "x.raw");
    auto y = read_bytes(bundle_folder("wrapped-reference") / "y.raw");
    const auto expected = read_bytes(bundle_folder("wrapped-reference") / "fused.raw");
    Bytes out(expected.size());
    const auto frame_x = frame_of(TCMOA_RGB8, x), frame_y = frame_of(TCMOA_GRAY8, y), fused = frame_of(TCMOA_RGB8, out);
    REQUIRE(tcmoa_fuse(handle.fuser, &frame_x, &frame_y, &fused) == TCMOA_OK);
    CHECK(out == expected);

    std::int32_t width = -1, height = -1;
    CHECK(tcmoa_get_grid(handle.fuser, 112, 112, &width, &height) == TCMOA_OK);
    CHECK((width == 0 && height == 0));
    float value = 0;
    const std::string rest = ": this network has no prompt; expected a bundle of `tcmoa export`. Leave it out.";
    CHECK(tcmoa_set_prompt(handle.fuser, 1, 0) == TCMOA_ERROR_INPUT);
    CHECK(error_of(handle.fuser) == "scale, shift" + rest);
    CHECK(tcmoa_set_prompt_maps(handle.fuser, &value, nullptr, 1) == TCMOA_ERROR_INPUT);
    CHECK(error_of(handle.fuser) == "prompt maps" + rest);
    CHECK(tcmoa_set_prompt_maps_for_size(handle.fuser, 112, 112, &value, nullptr, 1) == TCMOA_ERROR_INPUT);
    CHECK(tcmoa_get_prompt_maps(handle.fuser, &value, nullptr, 1) == TCMOA_ERROR_INPUT);
    CHECK(tcmoa_fuse_with_prompt(handle.fuser, &frame_x, &frame_y, &fused, &value, 1) == TCMOA_ERROR_INPUT);
    CHECK(error_of(handle.fuser) == "prompt" + rest);
}

TEST_CASE("the description of a handle") {
    const Handle handle(bundle_folder("vif-small"));
    tcmoa_info info;
    REQUIRE(tcmoa_get_info(handle.fuser, &info) == TCMOA_OK);
    CHECK(info.width == 112);
    CHECK(info.grid_height == 7);
    CHECK(info.token_pixels == 16);
    CHECK(info.num_prompts == 2);
    CHECK(info.has_prompt == 1);
    CHECK(info.slots == 2);
    CHECK(info.default_scale == 1.0F);
    CHECK(std::string(info.task) == "vif");
    CHECK(std::string(info.x_role) == "visible");
    CHECK(std::string(info.y_role) == "infrared");
    CHECK(std::string(info.channel_order) == "rgb");
    CHECK(std::string(info.precision) == "fp32");
    CHECK(std::string(info.preset) == "custom");
    CHECK(std::string(info.backend) == "openvino (CPU)");
}

TEST_CASE("invalid frames and arguments are refused in one line") {
    const Handle handle(bundle_folder("vif-small"));
    Bytes bytes(112 * 112 * 4);
    const auto good = frame_of(TCMOA_RGB8, bytes);
    const auto refusal = [&](auto change) {
        auto wrong = good;
        change(wrong);
        CHECK(tcmoa_fuse(handle.fuser, &wrong, &good, &good) == TCMOA_ERROR_INPUT);
        return error_of(handle.fuser);
    };
    CHECK(refusal([](tcmoa_frame &f) { f.width = 640; }) ==
          "x: 640x112; expected 112x112, the bundle's frame size. Set options.fit to TCMOA_FIT_TILE, TCMOA_FIT_PAD or "
          "TCMOA_FIT_RESIZE, or export a bundle for 640x112.");
    CHECK(refusal([](tcmoa_frame &f) { f.format = 8; }) == "x: format is 8; expected a tcmoa_format, 0 to 7");
    CHECK(refusal([](tcmoa_frame &f) { f.format = -1; }) == "x: format is -1; expected a tcmoa_format, 0 to 7");
    CHECK_THAT(refusal([](tcmoa_frame &f) { f.memory = 2; }), Contains("x: memory is 2; expected TCMOA_HOST (0)"));
    CHECK_THAT(refusal([](tcmoa_frame &f) { f.memory = TCMOA_CUDA; }),
               Contains("x: in CUDA memory; expected host memory, since openvino (CPU) runs this handle"));
    CHECK(refusal([](tcmoa_frame &f) { f.matrix = 4; }) == "x: matrix is 4; expected a tcmoa_matrix, 0 to 3");
    CHECK_THAT(refusal([](tcmoa_frame &f) { f.reserved[3] = 1; }), Contains("reserved fields are not 0"));
    CHECK_THAT(refusal([](tcmoa_frame &f) { f.reserved0 = 1; }), Contains("reserved fields are not 0"));
    CHECK_THAT(refusal([](tcmoa_frame &f) { f.planes[0] = nullptr; }), Contains("x: plane 0 is NULL"));
    CHECK_THAT(refusal([](tcmoa_frame &f) { f.format = TCMOA_NV12; }), Contains("x: plane 1 is NULL"));
    CHECK_THAT(refusal([](tcmoa_frame &f) { f.strides[0] = 335; }), Contains("plane 0 has a stride of 335 bytes; expected 336 or more"));
    CHECK_THAT(refusal([](tcmoa_frame &f) { f.strides[0] = SIZE_MAX; }), Contains("so that all rows fit into memory"));
    CHECK_THAT(refusal([&](tcmoa_frame &f) {
                   f = frame_of(TCMOA_GRAY16, bytes);
                   f.planes[0] = bytes.data() + 1;
               }),
               Contains("at an odd address"));
    CHECK(tcmoa_fuse(handle.fuser, &good, nullptr, &good) == TCMOA_ERROR_INPUT);
    CHECK_THAT(error_of(handle.fuser), Contains("y: NULL; expected a tcmoa_frame"));
    CHECK(tcmoa_fuse(handle.fuser, &good, &good, nullptr) == TCMOA_ERROR_INPUT);
    CHECK_THAT(error_of(handle.fuser), Contains("fused: NULL; expected a tcmoa_frame"));

    std::uint64_t ticket = 0;
    tcmoa_frame without_pixels;
    tcmoa_frame_init(&without_pixels, TCMOA_RGB8, 112, 112, nullptr);
    CHECK(tcmoa_submit(handle.fuser, &without_pixels, &good, &ticket) == TCMOA_ERROR_INPUT);
    CHECK(tcmoa_submit(handle.fuser, &good, &good, nullptr) == TCMOA_ERROR_INPUT);
    CHECK_THAT(error_of(handle.fuser), Contains("ticket is NULL"));
    CHECK(tcmoa_wait(handle.fuser, 1, nullptr, 0) == TCMOA_ERROR_INPUT);
    CHECK(tcmoa_get_info(handle.fuser, nullptr) == TCMOA_ERROR_INPUT);
    CHECK_THAT(error_of(handle.fuser), Contains("info is NULL"));
    CHECK(tcmoa_get_stats(handle.fuser, nullptr) == TCMOA_ERROR_INPUT);
    CHECK_THAT(error_of(handle.fuser), Contains("stats is NULL"));
}

TEST_CASE("invalid prompts are refused and change nothing") {
    const Handle handle(bundle_folder("vif-small"));
    std::vector<float> map(49, 1.0F);
    CHECK(tcmoa_set_prompt(handle.fuser, 16.5F, 0) == TCMOA_ERROR_INPUT);
    CHECK(error_of(handle.fuser) == "scale: 16.5; expected values from -16 to 16");
    CHECK(tcmoa_set_prompt(handle.fuser, 1, std::numeric_limits<float>::quiet_NaN()) == TCMOA_ERROR_INPUT);
    CHECK_THAT(error_of(handle.fuser), Contains("shift: nan"));
    map[48] = std::numeric_limits<float>::infinity();
    CHECK(tcmoa_set_prompt_maps(handle.fuser, nullptr, map.data(), 49) == TCMOA_ERROR_INPUT);
    CHECK_THAT(error_of(handle.fuser), Contains("shift: inf"));
    CHECK(tcmoa_set_prompt_maps(handle.fuser, map.data(), nullptr, 48) == TCMOA_ERROR_INPUT);
    CHECK(error_of(handle.fuser) == "count: 48; expected 49, the 7x7 tokens of the bundle");
    CHECK(tcmoa_get_prompt_maps(handle.fuser, map.data(), nullptr, 50) == TCMOA_ERROR_INPUT);
    REQUIRE(tcmoa_get_prompt_maps(handle.fuser, nullptr, map.data(), 49) == TCMOA_OK);
    CHECK(map == std::vector<float>(49, 0.0F));
}

TEST_CASE("a NULL handle is refused by every function, and tcmoa_close() ignores it") {
    tcmoa_info info;
    tcmoa_stats stats;
    std::uint64_t ticket = 0;
    float number = 0;
    tcmoa_frame frame;
    tcmoa_frame_init(&frame, TCMOA_RGB8, 1, 1, nullptr);
    for (const auto &[status, name] : std::initializer_list<std::pair<int, const char *>>{
             {tcmoa_get_info(nullptr, &info), "tcmoa_get_info"}}) {
        CHECK(status == TCMOA_ERROR_INPUT);
        CHECK(error_of(nullptr) == std::string(name) + ": the handle is NULL; expected a handle of tcmoa_open()");
    }
    CHECK(tcmoa_get_stats(nullptr, &stats) == TCMOA_ERROR_INPUT);
    CHECK(tcmoa_set_prompt(nullptr, 1, 0) == TCMOA_ERROR_INPUT);
    CHECK(tcmoa_set_prompt_maps(nullptr, &number, nullptr, 1) == TCMOA_ERROR_INPUT);
    CHECK(tcmoa_get_prompt_maps(nullptr, &number, nullptr, 1) == TCMOA_ERROR_INPUT);
    CHECK(tcmoa_fuse(nullptr, &frame, &frame, &frame) == TCMOA_ERROR_INPUT);
    CHECK(tcmoa_fuse_with_prompt(nullptr, &frame, &frame, &frame, &number, 1) == TCMOA_ERROR_INPUT);
    CHECK(tcmoa_submit(nullptr, &frame, &frame, &ticket) == TCMOA_ERROR_INPUT);
    CHECK(tcmoa_wait(nullptr, 1, &frame, 0) == TCMOA_ERROR_INPUT);
    CHECK(tcmoa_discard(nullptr, 1) == TCMOA_ERROR_INPUT);
    CHECK_THAT(error_of(nullptr), Contains("tcmoa_discard: the handle is NULL"));
    tcmoa_close(nullptr);
    tcmoa_fuser *none = nullptr;
    tcmoa_close(&none);
    tcmoa_options_default(nullptr);
}

TEST_CASE("invalid options are refused by name") {
    CHECK_THAT(open_error(TCMOA_ERROR_INPUT, [](tcmoa_options &o) { o.struct_size = 8; }), Contains("options.struct_size: 8; expected"));
    CHECK_THAT(open_error(TCMOA_ERROR_INPUT, [](tcmoa_options &o) { o.backend = "cuda"; }), Contains("options.backend: 'cuda'; expected auto"));
    CHECK_THAT(open_error(TCMOA_ERROR_INPUT, [](tcmoa_options &o) { o.threads = -1; }), Contains("options.threads: -1; expected 0 to"));
    CHECK_THAT(open_error(TCMOA_ERROR_INPUT, [](tcmoa_options &o) { o.slots = 0; }), Contains("options.slots: 0; expected 1 to 16"));
    CHECK_THAT(open_error(TCMOA_ERROR_INPUT, [](tcmoa_options &o) { o.slots = 17; }), Contains("options.slots: 17"));
    CHECK_THAT(open_error(TCMOA_ERROR_INPUT, [](tcmoa_options &o) { o.cuda_device = -1; }), Contains("options.cuda_device: -1"));
    CHECK_THAT(open_error(TCMOA_ERROR_INPUT, [](tcmoa_options &o) { o.cuda_graph = 2; }), Contains("options.cuda_graph: 2"));
    CHECK_THAT(open_error(TCMOA_ERROR_INPUT, [](tcmoa_options &o) { o.fit = 5; }), Contains("options.fit: 5; expected 0 to 4"));
    CHECK_THAT(open_error(TCMOA_ERROR_INPUT, [](tcmoa_options &o) { o.trust_engines = 2; }),
               Contains("options.trust_engines: 2; expected 0 to 1"));
    CHECK_THAT(open_error(TCMOA_ERROR_INPUT, [](tcmoa_options &o) { o.stretch_low = 99; }), Contains("expected percentiles 0 <= low < high <= 100"));
    CHECK_THAT(open_error(TCMOA_ERROR_INPUT, [](tcmoa_options &o) { o.stretch_high = std::nan(""); }), Contains("expected percentiles"));
    CHECK_THAT(open_error(TCMOA_ERROR_INPUT, [](tcmoa_options &o) { o.reserved[14] = 1; }), Contains("options.reserved: not 0"));
    tcmoa_fuser *fuser = nullptr;
    CHECK(tcmoa_open(nullptr, nullptr, &fuser) == TCMOA_ERROR_INPUT);
    CHECK_THAT(error_of(nullptr), Contains("path is NULL"));
    CHECK(tcmoa_open("x", nullptr, nullptr) == TCMOA_ERROR_INPUT);
    CHECK_THAT(error_of(nullptr), Contains("fuser is NULL"));
}

TEST_CASE("a child of fork() is refused with a handle of its parent, and opens its own") {
    Reference reference("vif-small");
    Handle handle(bundle_folder("vif-small"));
    Bytes out(reference.fused.size());
    const auto x = frame_of(TCMOA_RGB8, reference.x), y = frame_of(TCMOA_RGB8, reference.y);
    const auto fused = frame_of(TCMOA_RGB8, out);
    REQUIRE(tcmoa_fuse(handle.fuser, &x, &y, &fused) == TCMOA_OK);
    const auto parent = getpid();
    const auto child = fork();
    if (child == 0) {  // no Catch2 here: the child only returns how it went
        alarm(60);
        const std::string expected = "tcmoa_fuse: the handle is of process " + std::to_string(parent) +
                                     ", from before fork(); expected a handle of this process. Open the bundle in the "
                                     "child process.";
        tcmoa_stats stats;
        if (tcmoa_get_stats(handle.fuser, &stats) != TCMOA_ERROR_INPUT) _exit(1);
        if (tcmoa_fuse(handle.fuser, &x, &y, &fused) != TCMOA_ERROR_INPUT) _exit(2);
        if (error_of(handle.fuser) != expected) _exit(3);
        tcmoa_close(&handle.fuser);
        if (handle.fuser != nullptr) _exit(4);
        std::fill(out.begin(), out.end(), std::uint8_t{0});
        if (tcmoa_open(bundle_folder("vif-small").c_str(), nullptr, &handle.fuser) != TCMOA_OK) _exit(5);
        _exit(tcmoa_fuse(handle.fuser, &x, &y, &fused) == TCMOA_OK && out == reference.fused ? 0 : 6);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(tcmoa_fuse(handle.fuser, &x, &y, &fused) == TCMOA_OK);
}

TEST_CASE("bundles that cannot be loaded are refused") {
    tcmoa_fuser *fuser = nullptr;
    CHECK(tcmoa_open("/nowhere/bundle", nullptr, &fuser) == TCMOA_ERROR_BUNDLE);
    CHECK_THAT(error_of(nullptr), Contains("/nowhere/bundle: no such bundle"));
    CHECK(tcmoa_open(bundle_folder("vif-batch").c_str(), nullptr, &fuser) == TCMOA_ERROR_INPUT);
    CHECK_THAT(error_of(nullptr), Contains("fuses batches of 2 pairs; expected a batch of 1. Export a bundle with a batch of 1, or set options.fit to TCMOA_FIT_TILE, which fuses tiles in batches."));
    const TemporaryFolder temporary;
    const auto bundle = temporary.copy("vif-small");
    auto graph = read_text(bundle / "fusion.onnx");
    graph[1000] = static_cast<char>(graph[1000] ^ 1);
    write_text(bundle / "fusion.onnx", graph);
    CHECK(tcmoa_open(bundle.c_str(), nullptr, &fuser) == TCMOA_ERROR_BUNDLE);
    CHECK_THAT(error_of(nullptr), Contains("SHA-256 is "));
    CHECK(fuser == nullptr);
    char small[8];
    CHECK(tcmoa_error(nullptr, small, sizeof small) > 7);
    CHECK(std::strlen(small) == 7);
    CHECK(tcmoa_error(nullptr, nullptr, 100) > 7);
}

TEST_CASE("a bundle works without a private cache, and a damaged cache is not used") {
    const UserFolders users;
    const TemporaryFolder temporary;
    const auto bundle = temporary.copy("vif-small");
    Reference reference("vif-small");
    Bytes out(reference.fused.size());
    const auto x = frame_of(TCMOA_RGB8, reference.x), y = frame_of(TCMOA_RGB8, reference.y);
    const auto fused = frame_of(TCMOA_RGB8, out);
    const auto gives_reference = [&] {
        std::fill(out.begin(), out.end(), std::uint8_t{0});
        const Handle handle(bundle);
        return tcmoa_fuse(handle.fuser, &x, &y, &fused) == TCMOA_OK && out == reference.fused;
    };
    CHECK(gives_reference());
    std::vector<fs::path> compiled;
    for (const auto &entry : fs::recursive_directory_iterator(users.cache())) {
        if (entry.path().extension() == ".blob") compiled.push_back(entry.path());
    }
    REQUIRE(compiled.size() == 1);
    CHECK(gives_reference());  // from the cache
    write_text(compiled[0], "damaged");
    CHECK(gives_reference());
    CHECK_FALSE(fs::exists(bundle / "engines"));
    fs::permissions(users.cache(), fs::perms::others_write, fs::perm_options::add);
    CHECK(gives_reference());
    fs::remove_all(users.cache());
    write_text(users.cache(), "a file in place of the folder");
    CHECK(gives_reference());
}

TEST_CASE("frames at any address, with gaps, and results over sources give the same bytes") {
    Reference reference("vif-small");
    const Handle handle(bundle_folder("vif-small"));
    Bytes out(reference.fused.size());
    const auto x = frame_of(TCMOA_RGB8, reference.x), y = frame_of(TCMOA_RGB8, reference.y);
    const auto packed = frame_of(TCMOA_RGB8, out);
    for (std::size_t i = 0; i < 12; ++i) {  // more buffers than a slot caches, at odd addresses, each twice
        Bytes buffer(out.size() + 12, 0);
        std::copy(reference.x.begin(), reference.x.end(), buffer.begin() + static_cast<std::ptrdiff_t>(i % 6));
        auto moved = x;
        moved.planes[0] = buffer.data() + i % 6;
        REQUIRE(tcmoa_fuse(handle.fuser, &moved, &y, &packed) == TCMOA_OK);
        REQUIRE(out == reference.fused);
        std::fill(out.begin(), out.end(), std::uint8_t{0});
        REQUIRE(tcmoa_fuse(handle.fuser, &moved, &y, &moved) == TCMOA_OK);  // over its source
        REQUIRE(std::equal(out.begin(), out.end(), buffer.begin() + static_cast<std::ptrdiff_t>(i % 6)) == false);
        REQUIRE(std::equal(reference.fused.begin(), reference.fused.end(),
                           buffer.begin() + static_cast<std::ptrdiff_t>(i % 6)));
        std::uint64_t ticket = 0;  // a copied frame after one that was not copied
        REQUIRE(tcmoa_submit(handle.fuser, &x, &y, &ticket) == TCMOA_OK);
        REQUIRE(tcmoa_wait(handle.fuser, ticket, &packed, -1) == TCMOA_OK);
        REQUIRE(out == reference.fused);
    }
    Bytes gaps(112 * 350, 0);
    auto wide = frame_of(TCMOA_RGB8, gaps);
    wide.strides[0] = 350;
    for (std::size_t row = 0; row < 112; ++row) std::copy_n(&reference.x[row * 336], 336, &gaps[row * 350]);
    REQUIRE(tcmoa_fuse(handle.fuser, &wide, &y, &packed) == TCMOA_OK);
    CHECK(out == reference.fused);
}

TEST_CASE("two handles on two threads") {
    Reference reference("vif-small");
    std::atomic<int> wrong = 0;
    const auto work = [&] {
        const Handle handle(bundle_folder("vif-small"));
        Bytes x = reference.x, y = reference.y, out(reference.fused.size());
        const auto fx = frame_of(TCMOA_RGB8, x), fy = frame_of(TCMOA_RGB8, y), fused = frame_of(TCMOA_RGB8, out);
        for (int i = 0; i < 50; ++i) {
            wrong += tcmoa_fuse(handle.fuser, &fx, &fy, &fused) != TCMOA_OK || out != reference.fused;
        }
    };
    std::thread other(work);
    work();
    other.join();
    CHECK(wrong == 0);
}

TEST_CASE("threads that share a handle get the results of their own frames") {
    Reference reference("vif-small");
    const Handle handle(bundle_folder("vif-small"));
    std::atomic<int> wrong = 0;
    const auto work = [&](bool swapped) {
        Bytes x = swapped ? reference.y : reference.x, out(reference.fused.size()), first;
        Bytes y = swapped ? reference.x : reference.y;
        const auto fx = frame_of(TCMOA_RGB8, x), fy = frame_of(TCMOA_RGB8, y), fused = frame_of(TCMOA_RGB8, out);
        for (int i = 0; i < 50; ++i) {
            wrong += tcmoa_fuse(handle.fuser, &fx, &fy, &fused) != TCMOA_OK;
            if (first.empty()) first = out;
            wrong += out != first;
        }
        wrong += (first == reference.fused) == swapped;
    };
    std::thread other(work, true), third(work, false);
    work(false);
    other.join();
    third.join();
    CHECK(wrong == 0);
}

TEST_CASE("ten thousand frames do not grow the memory", "[long]") {
    Reference reference("vif-small");
    const Handle handle(bundle_folder("vif-small"), "openvino", 1);  // more threads do not speed up such a small model
    Bytes out(reference.fused.size());
    const auto x = frame_of(TCMOA_RGB8, reference.x), y = frame_of(TCMOA_RGB8, reference.y);
    const auto fused = frame_of(TCMOA_RGB8, out);
    std::size_t early = 0;
    bool good = true;
    for (int i = 0; i < 10000; ++i) {
        good = good && tcmoa_fuse(handle.fuser, &x, &y, &fused) == TCMOA_OK;
        if (i == 1000) early = resident_kilobytes();
    }
    CHECK(good);
    CHECK(out == reference.fused);
    CHECK(resident_kilobytes() <= early + 512);
    tcmoa_stats stats;
    REQUIRE(tcmoa_get_stats(handle.fuser, &stats) == TCMOA_OK);
    CHECK(stats.frames == 10000);
    CHECK(stats.backend_ns > stats.convert_ns);
}
