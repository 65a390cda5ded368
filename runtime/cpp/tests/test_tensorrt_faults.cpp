// Faults of engines, TensorRT, memory and CUDA, on the simulated GPU; never on a real one.
#include <catch2/catch.hpp>

#include <sys/stat.h>

#include "compile_cache.hpp"
#include "engine.hpp"
#include "simulated/gpu_fixture.hpp"

using namespace tcmoa;
using namespace tcmoa::testing;

namespace {

std::unique_ptr<Backend> load(const ToyBundle &toy, std::unique_ptr<Error> &reason) {
    return load_tensorrt(toy.open(), {}, reason);
}

// Why no engine of the bundle runs here.
std::string no_engine_reason(const ToyBundle &toy, int status = TCMOA_ERROR_BUNDLE) {
    std::unique_ptr<Error> reason;
    CHECK(load(toy, reason) == nullptr);
    REQUIRE(reason);
    CHECK(reason->status() == status);
    const std::string text = reason->what();
    CHECK(text.find('\n') == std::string::npos);
    return text;
}

std::string load_refusal(const ToyBundle &toy, int status = TCMOA_ERROR_BUNDLE) {
    return refusal(
        [&] {
            std::unique_ptr<Error> reason;
            const auto backend = load(toy, reason);
            REQUIRE(backend);
            (void)backend->new_slot();
        },
        status);
}

ToyBundle::Change with(const char *key, Manifest value) {
    return [key, value](Manifest &engine) { engine[key] = value; };
}

}  // namespace

TEST_CASE("tensorrt is preferred to rtx, then fp16 to bf16 to fp32") {
    const LeakCheck leak_check;
    const ToyBundle toy;
    std::unique_ptr<Error> reason;
    const auto rtx = [](const char *precision) {
        return [precision](Manifest &engine) {
            as_rtx(engine);
            engine["precision"] = precision;
        };
    };
    const std::vector<std::pair<ToyBundle::Change, std::string>> increasing = {
        {rtx("fp32"), "rtx 1.99.2.16, Simulated GPU 0, fp32"},
        {rtx("bf16"), "rtx 1.99.2.16, Simulated GPU 0, bf16"},
        {rtx("fp16"), "rtx 1.99.2.16, Simulated GPU 0, fp16"},
        {with("precision", "fp32"), "tensorrt 10.99.0.7, Simulated GPU 0, fp32"},
        {with("precision", "bf16"), "tensorrt 10.99.0.7, Simulated GPU 0, bf16"},
        {with("precision", "fp16"), "tensorrt 10.99.0.7, Simulated GPU 0, fp16"},
    };
    for (const auto &[change, name] : increasing) {
        toy.add_engine(change);
        const auto backend = load(toy, reason);
        REQUIRE(backend);
        CHECK(backend->name() == "tensorrt (" + name + ")");
    }
}

TEST_CASE("a bundle without an engine says how to build one") {
    const LeakCheck leak_check;
    const ToyBundle toy;
    CHECK(has(no_engine_reason(toy), "has no engine. Build one with `tcmoa build"));
    CHECK(simulated::counts().calls == 0);  // CUDA was not loaded
}

TEST_CASE("engines that do not run here are skipped") {
    const LeakCheck leak_check;
    const ToyBundle toy;
    toy.add_engine(with("version", "9.0.0.1"));
    CHECK(has(no_engine_reason(toy), "built by tensorrt 9.0.0.1; expected the installed version 10.99.0.7"));
    toy.add_engine([](Manifest &engine) {
        engine["precision"] = "bf16";
        engine["gpu"]["compute_capability"] = "7.5";
    });
    CHECK(has(no_engine_reason(toy), "installed version 10.99.0.7"));  // the reason of the preferred engine
    toy.add_engine([](Manifest &engine) {
        engine["precision"] = "fp32";
        engine["stripped"] = true;
        engine["weights"] = nullptr;
    });
    toy.add_engine(as_rtx);
    std::unique_ptr<Error> reason;
    const auto backend = load(toy, reason);
    REQUIRE(backend);
    CHECK_FALSE(reason);
    CHECK(has(backend->name(), "rtx"));
}

TEST_CASE("a stripped engine is refused") {
    const LeakCheck leak_check;
    const ToyBundle toy;
    toy.add_engine(with("stripped", true));
    const auto text = no_engine_reason(toy);
    CHECK(has(text, "stripped of its weights; expected an engine with weights"));
    CHECK(has(text, "Build it again with `tcmoa build"));
}

TEST_CASE("a missing GPU is reported") {
    const LeakCheck leak_check;
    const ToyBundle toy;
    toy.add_engine();
    simulated::control().devices = 0;
    CHECK(has(no_engine_reason(toy, TCMOA_ERROR_MISSING), "no GPU found"));
    simulated::control().devices = 2;
    BackendOptions options;
    options.cuda_device = 2;
    std::unique_ptr<Error> reason;
    CHECK(has(refusal([&] { (void)load_tensorrt(toy.open(), options, reason); }, TCMOA_ERROR_INPUT),
              "options.cuda_device: 2; expected 0 to 1"));
    options.cuda_device = 1;
    CHECK(load_tensorrt(toy.open(), options, reason));
}

TEST_CASE("an engine that this user did not build is not loaded unless it is trusted") {
    const LeakCheck leak_check;
    const ToyBundle toy;
    const auto path = toy.add_engine();
    const auto record = toy.users.data() / "built-engines";
    BackendOptions options;
    std::unique_ptr<Error> reason;
    const auto is_loaded = [&] { return load_tensorrt(toy.open(), options, reason) != nullptr; };
    CHECK(is_loaded());

    SECTION("a record that others may have written does not count") {
        fs::permissions(record, fs::perms::group_write, fs::perm_options::add);
        CHECK_FALSE(is_loaded());
    }
    SECTION("nor one through a link") {
        fs::rename(record, toy.users.data() / "moved");
        fs::create_directory_symlink(toy.users.data() / "moved", record);
        CHECK_FALSE(is_loaded());
    }
    SECTION("a pipe in place of the record is not waited for") {
        for (const auto &entry : fs::directory_iterator(record)) {
            fs::remove(entry.path());
            REQUIRE(mkfifo(entry.path().c_str(), 0600) == 0);
        }
        CHECK_FALSE(is_loaded());
    }
    SECTION("without a record") {
        fs::remove_all(record);
        CHECK_FALSE(is_loaded());
        CHECK(reason->status() == TCMOA_ERROR_BUNDLE);
        CHECK(std::string(reason->what()) ==
              path.string() + ": this user did not build this engine, and an engine is native code; expected one that "
                              "was built here. Build it again with `tcmoa build " + toy.folder.string() +
                  " --flavor tensorrt`, or set trust_engines (GStreamer: trust-engines) if you trust whoever built it.");
        const auto mine = toy.add_engine(with("precision", "bf16"), toy_engine(toy.contract) + "\n");
        const auto backend = load_tensorrt(toy.open(), options, reason);
        REQUIRE(backend);  // the trusted one, though the other precision is preferred
        CHECK(has(backend->name(), "bf16"));
        fs::remove(mine);
    }
    options.trust_engines = true;
    CHECK(is_loaded());
}

TEST_CASE("engines of an installed bundle are in the user's data folder") {
    const LeakCheck leak_check;
    const ToyBundle toy;
    const auto path = toy.add_engine();
    const auto folder = open_user_folder(UserFolder::data, {"engines", graph_key(toy.open())}, true).value();
    for (const auto &entry : fs::directory_iterator(path.parent_path())) {
        fs::rename(entry.path(), folder / entry.path().filename());
    }
    fs::remove(path.parent_path());
    CHECK(find_engines(toy.open()) == std::vector<fs::path>{folder / path.filename()});
    std::unique_ptr<Error> reason;
    CHECK(load(toy, reason));
    fs::permissions(folder, fs::perms::others_write, fs::perm_options::add);
    CHECK(find_engines(toy.open()).empty());
}

TEST_CASE("a damaged engine is refused before TensorRT reads it") {
    const LeakCheck leak_check;
    const ToyBundle toy;
    const auto path = toy.add_engine();
    write_text(path, toy_engine(toy.contract) + "#");
    simulated::control().refuse = "start";  // is not reached
    CHECK(has(load_refusal(toy), "truncated or another file"));
    CHECK(simulated::control().refuse != nullptr);
    write_text(fs::path(path).replace_extension(".json"), "{}");
    CHECK(has(load_refusal(toy), "not the description of an engine"));
}

TEST_CASE("an engine with other tensors is refused") {
    const auto refused = [](const std::string &from, const std::string &to) {
        const LeakCheck leak_check;
        const ToyBundle toy;
        auto text = toy_engine(toy.contract);
        text.replace(text.find(from), from.size(), to);
        toy.add_engine({}, text);
        return load_refusal(toy);
    };
    CHECK(has(refused("input x uint8 1 16 24 3", "input x uint8 1 16 25 3"),
              "input 'x' is uint8 [1, 16, 25, 3]; expected uint8 [1, 16, 24, 3] as in bundle.json"));
    CHECK(has(refused("input x uint8", "input x float32"), "input 'x' is float32"));
    CHECK(has(refused("input x uint8", "input x half"), "input 'x' is type 1 [1"));
    CHECK(has(refused("input y", "input z"), "input 'y' is absent"));
    CHECK(has(refused("input x", "output x"), "input 'x' is absent"));
    CHECK(has(refused("scratch", "output more uint8 1\nscratch"),
              "output 'more' is uint8 [1]; expected absent as in bundle.json"));
    CHECK(has(refused("24 3\ninput y", "24 3 host\ninput y"), "tensor 'x' is elsewhere; expected linear GPU memory"));
    CHECK(has(refused("24 3\ninput y", "24 3 chw2\ninput y"), "tensor 'x' is elsewhere; expected linear GPU memory"));
    CHECK(has(refused("toy engine", "a real engine"), "failed to load it (not a toy engine)"));
}

TEST_CASE("the first error that TensorRT logs is in the message, at every step") {
    for (const char *step : {"load", "configure", "cache", "set cache", "context", "bind", "enqueue"}) {
        INFO(step);
        const LeakCheck leak_check;
        const ToyBundle toy;
        toy.add_engine(as_rtx);
        simulated::control().refuse = step;
        const auto text = load_refusal(toy, std::string(step) == "load" ? TCMOA_ERROR_BUNDLE : TCMOA_ERROR_INTERNAL);
        CHECK(has(text, "TensorRT-RTX 1.99.2.16 failed to "));
        CHECK(has(text, "(a reason of TensorRT)"));
        CHECK(has(text, "Build it again"));
        simulated::control().refuse = step;
        simulated::control().refuse_after = 0;
        simulated::control().reason = "CUDA error: Out of\nMemory";
        CHECK(has(load_refusal(toy, TCMOA_ERROR_MEMORY), "Export a smaller frame"));
    }
    const LeakCheck leak_check;
    const ToyBundle toy;
    toy.add_engine();
    simulated::control().refuse = "start";
    CHECK(has(no_engine_reason(toy, TCMOA_ERROR_MISSING), "failed to start (a reason of TensorRT)"));
}

TEST_CASE("any CUDA call may fail while loading, and nothing leaks") {
    {  // the driver and TensorRT start once per process; these calls are not tested here
        const ToyBundle toy;
        toy.add_engine();
        std::unique_ptr<Error> reason;
        REQUIRE(load(toy, reason));
    }
    int call = 0;
    for (bool loaded = false; !loaded; ++call) {
        REQUIRE(call < 200);
        INFO("call " << call);
        const LeakCheck leak_check;
        const ToyBundle toy;
        toy.add_engine();
        simulated::control().fail_call = call + 1;
        simulated::control().fail_result = call % 2 == 0 ? 999 : cuda::kOutOfMemory;
        std::unique_ptr<Error> reason;
        try {
            const auto backend = load(toy, reason);
            REQUIRE(backend);
            const auto slot = backend->new_slot();
            loaded = simulated::counts().calls < simulated::control().fail_call;
            simulated::control().fail_call = 0;  // a GPU that is lost keeps what is on it
        } catch (const Error &error) {
            CHECK(error.status() == (call % 2 == 0 ? TCMOA_ERROR_INTERNAL : TCMOA_ERROR_MEMORY));
            CHECK(has(error.what(), call % 2 == 0 ? "CUDA" : "memory"));
        }
    }
    CHECK(call > 25);
}

TEST_CASE("any CUDA call may fail during a frame, and the slot remains usable") {
    for (const bool eager : {false, true}) {
        int call = 0;
        for (bool done = false; !done; ++call) {
            REQUIRE(call < 200);
            INFO("call " << call);
            GpuFixture gpu;
            simulated::control().eager = eager;
            const auto slot = gpu.backend->new_slot();
            GpuCaller caller(*gpu.device);
            const Frame failing(1), good(2);
            failing.put(*slot);
            cuda::DeviceMemory source;
            {
                const cuda::CurrentDevice current(*gpu.device);
                source = cuda::new_device_memory(failing.x.size());
            }
            void *x = reinterpret_cast<void *>(source.get());
            const int before = simulated::counts().calls;
            simulated::control().fail_call = before + call + 1;
            try {
                slot->start({x, caller.stream()}, {});
                (void)slot->wait_for(std::chrono::milliseconds(-1));
                slot->collect();
                slot->collect_to(caller.memory(2), caller.stream());
                done = simulated::counts().calls - before <= call;
            } catch (const Error &error) {
                CHECK(error.status() != TCMOA_ERROR_MEMORY);
            }
            simulated::control().fail_call = 0;
            {
                const cuda::CurrentDevice current(*gpu.device);
                source.reset();  // no pending work of the frame may read it
            }
            good.put(*slot);
            slot->start({}, {});
            CHECK(slot->wait_for(std::chrono::milliseconds(-1)));
            slot->collect();
            good.check(*slot);
        }
        CHECK(call > 10);
    }
}

TEST_CASE("running out of memory at any allocation leaks nothing") {
    bool loaded = false;
    for (std::size_t memory = 64; !loaded; memory += 64) {
        REQUIRE(memory < 1 << 20);
        const LeakCheck leak_check;
        const ToyBundle toy;
        toy.add_engine();
        simulated::control().memory = memory;
        std::unique_ptr<Error> reason;
        try {
            const auto backend = load(toy, reason);
            const auto slot = backend->new_slot();
            loaded = true;
        } catch (const Error &error) {
            CHECK(error.status() == TCMOA_ERROR_MEMORY);
        }
    }
}

TEST_CASE("kernels that TensorRT-RTX compiled are cached in the user's cache folder") {
    const LeakCheck leak_check;
    const ToyBundle toy;
    toy.add_engine(as_rtx);
    const auto key = cache_key({sha256(toy_engine(toy.contract)), "Simulated GPU 0", "8.9"});
    const auto cache = toy.users.cache() / "kernels" / ("rtx-" + key + ".runtime_cache");
    const auto run = [&] {
        std::unique_ptr<Error> reason;
        const int before = simulated::counts().compiled;
        const auto backend = load(toy, reason);
        REQUIRE(backend);
        const auto one = backend->new_slot(), two = backend->new_slot();
        return simulated::counts().compiled - before;
    };
    CHECK(run() == 1);
    const auto text = read_text(cache);
    CHECK(text.substr(0, 22) == "tcmoa runtime cache 1\n");
    CHECK(text.substr(22 + 64) == "toy kernels");
    const auto written = fs::last_write_time(cache);
    CHECK(run() == 0);
    CHECK(fs::last_write_time(cache) == written);

    for (const std::string &damaged : {std::string(), text.substr(0, 50), text + "x", "T" + text.substr(1),
                                       text.substr(0, 30) + "!" + text.substr(31)}) {
        write_text(cache, damaged);
        CHECK(run() == 1);
        CHECK(read_text(cache) == text);
    }
    fs::remove(cache);
    REQUIRE(mkfifo(cache.c_str(), 0600) == 0);  // is not waited for
    CHECK(run() == 1);
    CHECK(run() == 0);
    fs::permissions(cache.parent_path(), fs::perms::others_write, fs::perm_options::add);  // not private: not used
    CHECK(run() == 1);
    fs::permissions(cache.parent_path(), fs::perms::owner_all);
    fs::remove(cache);
    fs::create_directory(cache);  // cannot be written to
    CHECK(run() == 1);
}

TEST_CASE("TensorRT has no kernel cache") {
    const GpuFixture gpu;
    (void)gpu.backend->new_slot();
    CHECK_FALSE(fs::exists(gpu.toy.users.cache()));
}
