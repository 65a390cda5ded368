#include "tensorrt.hpp"

#include <algorithm>

#include "tensorrt_slot.hpp"

namespace tcmoa {
namespace {

std::string described(const EngineTensor *tensor) {
    if (tensor == nullptr) return "absent";
    std::string text = tensor->type + " [";
    for (std::size_t i = 0; i < tensor->shape.size(); ++i) {
        text += (i != 0 ? ", " : "") + std::to_string(tensor->shape[i]);
    }
    return text + "]";
}

// Inputs or outputs against what they should be; tensors that should not be there come last.
void compare(const Engine &engine, const std::vector<EngineTensor> &arrived, const std::vector<TensorSpec> &wanted,
             bool input) {
    const auto refuse = [&](const std::string &name, const std::string &is, const std::string &expected) {
        fail_bundle(engine.path.string() + ": " + (input ? "input '" : "output '") + shown(name) +
                    "' is " + is + ", bundle.json says " + expected + "; it is not this bundle's engine: " +
                    engine.again);
    };
    for (const auto &spec : wanted) {
        const auto found = std::find_if(arrived.begin(), arrived.end(), [&](const EngineTensor &tensor) {
            return tensor.input == input && tensor.name == spec.name;
        });
        const auto *tensor = found == arrived.end() ? nullptr : &*found;
        if (described(tensor) != shown(spec)) refuse(spec.name, described(tensor), shown(spec));
    }
    for (const auto &tensor : arrived) {
        const auto known = [&](const TensorSpec &spec) { return spec.name == tensor.name; };
        if (tensor.input == input && std::none_of(wanted.begin(), wanted.end(), known)) {
            refuse(tensor.name, described(&tensor), "absent");
        }
    }
}

}  // namespace

std::optional<ChosenEngine> choose_engine(const Bundle &bundle, int cuda_device, std::unique_ptr<Error> &unfit) {
    std::vector<Engine> engines;
    for (const auto &path : find_engines(bundle)) engines.push_back(Engine::open(bundle, path));
    if (engines.empty()) {
        unfit = std::make_unique<Error>(
            TCMOA_ERROR_BUNDLE, bundle.path.string() + ": holds no engine; make one with `tcmoa build " +
                                    bundle.path.string() + " --flavour tensorrt|rtx`, or use the backend openvino");
        return std::nullopt;
    }
    std::stable_sort(engines.begin(), engines.end(),
                     [](const Engine &a, const Engine &b) { return a.rank() < b.rank(); });
    std::unique_ptr<Error> missing;
    for (auto &engine : engines) {
        const auto pass_over = [&](const std::string &reason) {
            if (!unfit) {
                unfit = std::make_unique<Error>(TCMOA_ERROR_BUNDLE,
                                                engine.path.string() + ": " + reason + "; " + engine.again);
            }
        };
        if (engine.stripped) {
            pass_over("it holds no weights (it was built with --stripped), which only the Python runtime puts back; "
                      "for this library leave --stripped out");
            continue;
        }
        try {
            TensorRt &library = tensorrt_library(engine.flavour);
            const auto gpu = cuda::Device::properties(cuda_device);
            const auto reason = engine.unfit(library.version(), {gpu.major, gpu.minor});
            if (reason.empty()) {
                unfit.reset();
                return ChosenEngine{std::move(engine), &library, gpu};
            }
            pass_over(reason);
        } catch (const Error &error) {
            if (error.status() != TCMOA_ERROR_MISSING) throw;
            if (!missing) missing = std::make_unique<Error>(error);
        }
    }
    if (!unfit) unfit = std::move(missing);
    return std::nullopt;
}

void check_tensors(const Engine &engine, const LoadedEngine &loaded, const Contract &contract) {
    const auto arrived = loaded.tensors();
    compare(engine, arrived, contract.inputs(), true);
    compare(engine, arrived, contract.outputs(), false);
    for (const auto &tensor : arrived) {
        if (!tensor.plain) {
            fail_bundle(engine.path.string() + ": tensor '" + tensor.name + "' is not linear memory of the GPU; " +
                        engine.again);
        }
    }
}

TensorRtBackend::TensorRtBackend(const ChosenEngine &chosen, const Contract &contract,
                                 std::shared_ptr<cuda::Device> device, bool cuda_graph)
    : contract_(contract),
      name_(name_of(chosen.engine.flavour) + " " + chosen.engine.version + ", " + chosen.gpu.name + ", " +
            chosen.engine.precision),
      cuda_graph_(cuda_graph),
      device_(std::move(device)) {
    parts_.engine = chosen.library->load(chosen.engine, chosen.engine.read());
    check_tensors(chosen.engine, *parts_.engine, contract_);
    if (chosen.engine.flavour == Flavour::rtx) {
        kernels_ = std::make_unique<KernelCache>(chosen.engine);
        kernels_->load(*parts_.engine);
    }
    parts_.copy_in = cuda::new_stream();
    parts_.compute = cuda::new_stream();
    parts_.copy_out = cuda::new_stream();
    parts_.scratch_bytes = std::max<std::size_t>(parts_.engine->scratch_bytes(), 1);
    parts_.scratch = cuda::device_memory(parts_.scratch_bytes);
}

TensorRtBackend::~TensorRtBackend() {
    try {
        const cuda::Current current(*device_);
        if (kernels_) kernels_->save(*parts_.engine);
        Parts freed = std::move(parts_);
    } catch (...) {  // the device is lost, and all on it
    }
}

std::string TensorRtBackend::name() const {
    return "tensorrt (" + name_ + (lacks_graph_ ? ", without a CUDA graph)" : ")");
}

std::unique_ptr<Slot> TensorRtBackend::new_slot() {
    const cuda::Current current(*device_);
    return std::make_unique<TensorRtSlot>(*this);
}

std::unique_ptr<Backend> load_tensorrt(const Bundle &bundle, const BackendOptions &options,
                                       std::unique_ptr<Error> &unfit) {
    unfit.reset();
    const auto chosen = choose_engine(bundle, options.cuda_device, unfit);
    if (!chosen) return nullptr;
    try {
        auto device = std::make_shared<cuda::Device>(options.cuda_device);
        const cuda::Current current(*device);
        return std::make_unique<TensorRtBackend>(*chosen, bundle.contract, device, options.cuda_graph);
    } catch (const Error &error) {
        if (error.status() != TCMOA_ERROR_MISSING) throw;
        unfit = std::make_unique<Error>(error);  // the library is there, and does not start
        return nullptr;
    }
}

}  // namespace tcmoa
