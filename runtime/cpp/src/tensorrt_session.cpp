#include "tensorrt_session.hpp"

#include <algorithm>

#include "error.hpp"

namespace tcmoa {
namespace {

// The engine's inputs and outputs must be those of the contract, in linear GPU memory.
void check_engine_tensors(const Engine &engine, const LoadedEngine &loaded, const Contract &contract) {
    const auto tensors = loaded.tensors();
    const std::string where = engine.path.string();
    check_tensors("input", tensors.inputs, contract.inputs(), where, engine.remedy);
    check_tensors("output", tensors.outputs, contract.outputs(), where, engine.remedy);
    if (!tensors.unsupported.empty()) {
        fail_bundle(where, "tensor '" + printable(tensors.unsupported) + "' is elsewhere; expected linear GPU memory",
                    engine.remedy);
    }
}

}  // namespace

TensorRtSession::TensorRtSession(const ChosenEngine &chosen, const Contract &graph_contract,
                                 std::shared_ptr<cuda::Device> gpu, bool use_cuda_graph)
    : contract(graph_contract), cuda_graph(use_cuda_graph), device(std::move(gpu)) {
    // Before TensorRT, so that it finds a context that works, and an error of CUDA is not taken for one of the engine.
    resources.copy_in = cuda::new_stream();
    resources.compute = cuda::new_stream();
    resources.copy_out = cuda::new_stream();
    resources.engine = chosen.library->load(chosen.engine, chosen.engine.read());
    check_engine_tensors(chosen.engine, *resources.engine, contract);
    if (chosen.engine.flavor == Flavor::rtx) {
        kernel_cache_ = std::make_unique<KernelCache>(chosen.engine, chosen.gpu.name,
                                                      Capability{chosen.gpu.major, chosen.gpu.minor});
        kernel_cache_->load(*resources.engine);
    }
    resources.scratch_bytes = std::max<std::size_t>(resources.engine->scratch_bytes(), 1);
    resources.scratch = cuda::new_device_memory(resources.scratch_bytes);
}

TensorRtSession::~TensorRtSession() {
    try {
        const cuda::CurrentDevice current(*device);
        if (kernel_cache_) kernel_cache_->save(*resources.engine);
        Resources freed = std::move(resources);
    } catch (...) {  // the GPU is lost, with everything on it
    }
}

}  // namespace tcmoa
