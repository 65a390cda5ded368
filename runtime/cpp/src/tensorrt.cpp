#include "tensorrt.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "engine.hpp"
#include "engine_trust.hpp"
#include "tensorrt_session.hpp"
#include "tensorrt_slot.hpp"

namespace tcmoa {
namespace {

std::optional<ChosenEngine> choose_engine(const Bundle &bundle, const BackendOptions &options,
                                          std::unique_ptr<Error> &reason) {
    std::vector<Engine> engines;
    for (const auto &path : find_engines(bundle)) engines.push_back(Engine::open(bundle, path));
    if (engines.empty()) {
        reason = std::make_unique<Error>(
            TCMOA_ERROR_BUNDLE, bundle.path.string(), "has no engine",
            "build one with " + build_command(bundle.path) + ", or " + cuda::kUseOpenVino);
        return std::nullopt;
    }
    std::stable_sort(engines.begin(), engines.end(),
                     [](const Engine &a, const Engine &b) { return a.rank() < b.rank(); });
    std::unique_ptr<Error> not_trusted, incompatible, missing;  // the first of each
    for (auto &engine : engines) {
        if (engine.stripped) {
            if (!incompatible) {
                incompatible = std::make_unique<Error>(
                    TCMOA_ERROR_BUNDLE, engine.path.string(),
                    "stripped of its weights; expected an engine with weights (only the Python runtime can add them)",
                    engine.remedy);
            }
            continue;
        }
        try {
            TensorRt &library = tensorrt_library(engine.flavor);
            const auto gpu = cuda::Device::properties(options.cuda_device);
            const auto problem = engine.incompatibility(library.version(), {gpu.major, gpu.minor});
            if (problem.empty() && (options.trust_engines || is_built_here(engine))) {
                return ChosenEngine{std::move(engine), &library, gpu};
            }
            if (problem.empty()) {
                if (!not_trusted) not_trusted = std::make_unique<UntrustedError>(engine);
            } else if (!incompatible) {
                incompatible =
                    std::make_unique<Error>(TCMOA_ERROR_BUNDLE, engine.path.string(), problem, engine.remedy);
            }
        } catch (const Error &error) {
            if (error.status() != TCMOA_ERROR_MISSING) throw;
            if (!missing) missing = std::make_unique<Error>(error);
        }
    }
    reason = not_trusted ? std::move(not_trusted) : incompatible ? std::move(incompatible) : std::move(missing);
    return std::nullopt;
}

class TensorRtBackend final : public Backend {
public:
    // `device` is current.
    TensorRtBackend(const ChosenEngine &chosen, const Contract &contract, std::shared_ptr<cuda::Device> device,
                    bool cuda_graph)
        : name_(std::string(name_of(chosen.engine.flavor)) + " " + chosen.engine.version + ", " + chosen.gpu.name +
                ", " + chosen.engine.precision),
          session_(chosen, contract, std::move(device), cuda_graph) {}

    [[nodiscard]] std::string name() const override {
        return "tensorrt (" + name_ + (session_.cuda_graph_failed ? ", without a CUDA graph)" : ")");
    }

    [[nodiscard]] bool accepts_cuda() const noexcept override { return true; }

    [[nodiscard]] std::unique_ptr<Slot> new_slot() override {
        const cuda::CurrentDevice current(*session_.device);
        return std::make_unique<TensorRtSlot>(session_);
    }

private:
    const std::string name_;
    TensorRtSession session_;
};

}  // namespace

std::unique_ptr<Backend> load_tensorrt(const Bundle &bundle, const BackendOptions &options,
                                       std::unique_ptr<Error> &reason) {
    reason.reset();
    const auto chosen = choose_engine(bundle, options, reason);
    if (!chosen) return nullptr;
    try {
        auto device = std::make_shared<cuda::Device>(options.cuda_device);
        const cuda::CurrentDevice current(*device);
        return std::make_unique<TensorRtBackend>(*chosen, bundle.contract, device, options.cuda_graph);
    } catch (const Error &error) {
        if (error.status() != TCMOA_ERROR_MISSING) throw;
        reason = std::make_unique<Error>(error);  // the library was found but does not start
        return nullptr;
    }
}

}  // namespace tcmoa
