// The file beside a TensorRT-RTX engine that keeps the kernels compiled at its first start. The Python runtime uses the
// same file in the same format. A cache that is damaged or of another engine is ignored and written again.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "engine.hpp"
#include "tensorrt_runtime.hpp"

namespace tcmoa {

class KernelCache {
public:
    explicit KernelCache(const Engine &engine);

    void load(LoadedEngine &loaded);

    // Write the kernels if they changed. A failure is ignored: it only costs time at the next start.
    void save(const LoadedEngine &loaded) noexcept;

private:
    [[nodiscard]] std::string header(std::string_view kernels) const;

    std::filesystem::path path_;
    std::string engine_hash_, loaded_kernels_;
};

}  // namespace tcmoa
