// What goes wrong with engines, TensorRT, memory and CUDA, on the simulated GPU of standin/: never on a real one.
#include <catch2/catch.hpp>

#include "standin/rig.hpp"

using namespace tcmoa;
using namespace tcmoa::testing;

namespace {

std::unique_ptr<Backend> load(const ToyBundle &toy, std::unique_ptr<Error> &unfit) {
    return load_tensorrt(toy.open(), {}, unfit);
}

// The reason for which no engine of the bundle runs here.
std::string unfit_reason(const ToyBundle &toy, int status = TCMOA_ERROR_BUNDLE) {
    std::unique_ptr<Error> unfit;
    CHECK(load(toy, unfit) == nullptr);
    REQUIRE(unfit);
    CHECK(unfit->status() == status);
    const std::string text = unfit->what();
    CHECK(text.find('\n') == std::string::npos);
    return text;
}

std::string load_refusal(const ToyBundle &toy, int status = TCMOA_ERROR_BUNDLE) {
    return refusal(
        [&] {
            std::unique_ptr<Error> unfit;
            const auto backend = load(toy, unfit);
            REQUIRE(backend);
            (void)backend->new_slot();
        },
        status);
}

ToyBundle::Change with(const char *key, Manifest value) {
    return [key, value](Manifest &engine) { engine[key] = value; };
}

}  // namespace

TEST_CASE("the preferred engine is tensorrt, then fp16, bf16, fp32") {
    const Watch watch;
    const ToyBundle toy;
    std::unique_ptr<Error> unfit;
    const auto rtx = [](const char *precision) {
        return [precision](Manifest &engine) {
            as_rtx(engine);
            engine["precision"] = precision;
        };
    };
    const std::vector<std::pair<ToyBundle::Change, std::string>> rising = {
        {rtx("fp32"), "rtx 1.99.2.16, Simulated GPU 0, fp32"},
        {rtx("bf16"), "rtx 1.99.2.16, Simulated GPU 0, bf16"},
        {rtx("fp16"), "rtx 1.99.2.16, Simulated GPU 0, fp16"},
        {with("precision", "fp32"), "tensorrt 10.99.0.7, Simulated GPU 0, fp32"},
        {with("precision", "bf16"), "tensorrt 10.99.0.7, Simulated GPU 0, bf16"},
        {with("precision", "fp16"), "tensorrt 10.99.0.7, Simulated GPU 0, fp16"},
    };
    for (const auto &[change, name] : rising) {
        toy.add_engine(change);
        const auto backend = load(toy, unfit);
        REQUIRE(backend);
        CHECK(backend->name() == "tensorrt (" + name + ")");
    }
}

TEST_CASE("a bundle without an engine says how to build one") {
    const Watch watch;
    const ToyBundle toy;
    CHECK(has(unfit_reason(toy), "holds no engine; make one with `tcmoa build"));
    CHECK(standin::counts().calls == 0);  // CUDA was not even looked for
}

TEST_CASE("engines that do not fit are passed over") {
    const Watch watch;
    const ToyBundle toy;
    toy.add_engine(with("version", "9.0.0.1"));
    CHECK(has(unfit_reason(toy), "it was built by tensorrt 9.0.0.1, installed is 10.99.0.7"));
    toy.add_engine([](Manifest &engine) {
        engine["precision"] = "bf16";
        engine["gpu"]["compute_capability"] = "7.5";
    });
    CHECK(has(unfit_reason(toy), "installed is 10.99.0.7"));  // the reason of the preferred one
    toy.add_engine([](Manifest &engine) {
        engine["precision"] = "fp32";
        engine["stripped"] = true;
        engine["weights"] = nullptr;
    });
    toy.add_engine(as_rtx);
    std::unique_ptr<Error> unfit;
    const auto backend = load(toy, unfit);
    REQUIRE(backend);
    CHECK_FALSE(unfit);
    CHECK(has(backend->name(), "rtx"));
}

TEST_CASE("a stripped engine is refused with what to do") {
    const Watch watch;
    const ToyBundle toy;
    toy.add_engine(with("stripped", true));
    CHECK(has(unfit_reason(toy), "leave --stripped out"));
}

TEST_CASE("without a GPU it is missing") {
    const Watch watch;
    const ToyBundle toy;
    toy.add_engine();
    standin::control().devices = 0;
    CHECK(has(unfit_reason(toy, TCMOA_ERROR_MISSING), "there is no CUDA device"));
    standin::control().devices = 2;
    BackendOptions options;
    options.cuda_device = 2;
    std::unique_ptr<Error> unfit;
    CHECK(has(refusal([&] { (void)load_tensorrt(toy.open(), options, unfit); }, TCMOA_ERROR_INPUT),
              "cuda_device is 2, expected 0 to 1"));
    options.cuda_device = 1;
    CHECK(load_tensorrt(toy.open(), options, unfit));
}

TEST_CASE("a damaged engine is refused before TensorRT sees a byte of it") {
    const Watch watch;
    const ToyBundle toy;
    const auto path = toy.add_engine();
    write_text(path, toy_engine(toy.contract) + "#");
    standin::control().refuse = "start";  // which nothing comes to
    CHECK(has(load_refusal(toy), "truncated or another file"));
    CHECK(standin::control().refuse != nullptr);
    write_text(fs::path(path).replace_extension(".json"), "{}");
    CHECK(has(load_refusal(toy), "not the description of an engine"));
}

TEST_CASE("an engine with other tensors is refused") {
    const auto refused = [](const std::string &from, const std::string &to) {
        const Watch watch;
        const ToyBundle toy;
        auto text = toy_engine(toy.contract);
        text.replace(text.find(from), from.size(), to);
        toy.add_engine({}, text);
        return load_refusal(toy);
    };
    CHECK(has(refused("input x uint8 1 16 24 3", "input x uint8 1 16 25 3"),
              "input 'x' is uint8 [1, 16, 25, 3], bundle.json says uint8 [1, 16, 24, 3]"));
    CHECK(has(refused("input x uint8", "input x float32"), "input 'x' is float32"));
    CHECK(has(refused("input x uint8", "input x half"), "input 'x' is type 1 [1"));
    CHECK(has(refused("input y", "input z"), "input 'y' is absent"));
    CHECK(has(refused("input x", "output x"), "input 'x' is absent"));
    CHECK(has(refused("scratch", "output more uint8 1\nscratch"),
              "output 'more' is uint8 [1], bundle.json says absent"));
    CHECK(has(refused("24 3\ninput y", "24 3 host\ninput y"), "tensor 'x' is not linear memory of the GPU"));
    CHECK(has(refused("24 3\ninput y", "24 3 chw2\ninput y"), "tensor 'x' is not linear memory of the GPU"));
    CHECK(has(refused("toy engine", "a real engine"), "could not load (no toy engine)"));
}

TEST_CASE("what TensorRT logged first becomes the error, at every step") {
    for (const char *step : {"load", "configure", "cache", "set cache", "context", "bind", "queue"}) {
        INFO(step);
        const Watch watch;
        const ToyBundle toy;
        toy.add_engine(as_rtx);
        standin::control().refuse = step;
        const auto text = load_refusal(toy, std::string(step) == "load" ? TCMOA_ERROR_BUNDLE : TCMOA_ERROR_INTERNAL);
        CHECK(has(text, "tensorrt_rtx 1.99.2.16 could not "));
        CHECK(has(text, "(a reason of TensorRT)"));
        CHECK(has(text, "build it again"));
        standin::control().refuse = step;
        standin::control().refuse_after = 0;
        standin::control().reason = "CUDA error: Out of\nMemory";
        CHECK(has(load_refusal(toy, TCMOA_ERROR_MEMORY), "export a smaller frame"));
    }
    const Watch watch;
    const ToyBundle toy;
    toy.add_engine();
    standin::control().refuse = "start";
    CHECK(has(unfit_reason(toy, TCMOA_ERROR_MISSING), "could not start (a reason of TensorRT)"));
}

TEST_CASE("any call of CUDA may fail while loading, and nothing is left") {
    {  // the one start of the driver and of TensorRT in a process is not among them
        const ToyBundle toy;
        toy.add_engine();
        std::unique_ptr<Error> unfit;
        REQUIRE(load(toy, unfit));
    }
    int call = 0;
    for (bool loaded = false; !loaded; ++call) {
        REQUIRE(call < 200);
        INFO("call " << call);
        const Watch watch;
        const ToyBundle toy;
        toy.add_engine();
        standin::control().fail_call = call + 1;
        standin::control().fail_result = call % 2 == 0 ? 999 : cuda::kOutOfMemory;
        std::unique_ptr<Error> unfit;
        try {
            const auto backend = load(toy, unfit);
            REQUIRE(backend);
            const auto slot = backend->new_slot();
            loaded = standin::counts().calls < standin::control().fail_call;
            standin::control().fail_call = 0;  // a GPU that is lost at the end keeps what is on it
        } catch (const Error &error) {
            CHECK(error.status() == (call % 2 == 0 ? TCMOA_ERROR_INTERNAL : TCMOA_ERROR_MEMORY));
            CHECK(has(error.what(), call % 2 == 0 ? "CUDA" : "memory"));
        }
    }
    CHECK(call > 25);
}

TEST_CASE("any call of CUDA may fail during a frame, and the slot goes on") {
    for (const bool eager : {false, true}) {
        int call = 0;
        for (bool done = false; !done; ++call) {
            REQUIRE(call < 200);
            INFO("call " << call);
            Rig rig;
            standin::control().eager = eager;
            const auto slot = rig.backend->new_slot();
            Owner owner(*rig.device);
            const Frame failing(1), good(2);
            failing.put(*slot);
            cuda::DeviceMemory source;
            {
                const cuda::Current current(*rig.device);
                source = cuda::device_memory(failing.x.size());
            }
            void *x = reinterpret_cast<void *>(source.get());
            const int before = standin::counts().calls;
            standin::control().fail_call = before + call + 1;
            try {
                slot->start({x, owner.stream()}, {});
                (void)slot->ready(std::chrono::milliseconds(-1));
                slot->collect();
                slot->collect_to(owner.memory(2), owner.stream());
                done = standin::counts().calls - before <= call;
            } catch (const Error &error) {
                CHECK(error.status() != TCMOA_ERROR_MEMORY);
            }
            standin::control().fail_call = 0;
            {
                const cuda::Current current(*rig.device);
                source.reset();  // the caller's again: nothing of the frame may still read it
            }
            good.put(*slot);
            slot->start({}, {});
            CHECK(slot->ready(std::chrono::milliseconds(-1)));
            slot->collect();
            good.check(*slot);
        }
        CHECK(call > 10);
    }
}

TEST_CASE("out of memory at each allocation in turn leaves nothing") {
    bool loaded = false;
    for (std::size_t room = 64; !loaded; room += 64) {
        REQUIRE(room < 1 << 20);
        const Watch watch;
        const ToyBundle toy;
        toy.add_engine();
        standin::control().memory = room;
        std::unique_ptr<Error> unfit;
        try {
            const auto backend = load(toy, unfit);
            const auto slot = backend->new_slot();
            loaded = true;
        } catch (const Error &error) {
            CHECK(error.status() == TCMOA_ERROR_MEMORY);
        }
    }
}

TEST_CASE("the kernels that TensorRT-RTX compiled are kept beside the engine") {
    const Watch watch;
    const ToyBundle toy;
    const auto path = toy.add_engine(as_rtx);
    const auto cache = fs::path(path).replace_extension(".runtime_cache");
    const auto run = [&] {
        std::unique_ptr<Error> unfit;
        const int before = standin::counts().compiled;
        const auto backend = load(toy, unfit);
        REQUIRE(backend);
        const auto one = backend->new_slot(), two = backend->new_slot();
        return standin::counts().compiled - before;
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
    fs::create_directory(cache);  // cannot be written to
    CHECK(run() == 1);
}

TEST_CASE("plain TensorRT keeps no kernels") {
    const Rig rig;
    (void)rig.backend->new_slot();
    for (const auto &entry : fs::directory_iterator(rig.toy.folder / "engines")) {
        CHECK(entry.path().extension() != ".runtime_cache");
    }
}
