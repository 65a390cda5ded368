// The file in the user's cache folder that keeps the kernels which TensorRT-RTX compiled at the first start of an engine.
// The Python runtime uses the same file in the same format. A cache that is damaged or of another engine is ignored and
// written again.
#pragma once

#include <string>
#include <string_view>

#include "engine.hpp"
#include "tensorrt_runtime.hpp"

namespace tcmoa {

class KernelCache {
public:
    // gpu_name, capability: the GPU that the engine runs on.
    KernelCache(const Engine &engine, const std::string &gpu_name, Capability capability);

    void load(LoadedEngine &loaded);

    // Write the kernels if they changed. A failure is ignored: it only costs time at the next start.
    void save(const LoadedEngine &loaded) noexcept;

private:
    [[nodiscard]] std::string header(std::string_view kernels) const;

    std::string name_, engine_hash_, loaded_kernels_;
};

}  // namespace tcmoa
