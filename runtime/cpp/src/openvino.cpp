#include "openvino.hpp"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "compile_cache.hpp"
#include "error.hpp"
#include "openvino_library.hpp"
#include "openvino_slot.hpp"
#include "private_copy.hpp"

namespace tcmoa {
namespace {

constexpr const char *kBf16 = "openvino-bf16";

class OpenVinoBackend final : public Backend {
public:
    OpenVinoBackend(const Bundle &bundle, const BackendOptions &options)
        : library_(OpenVinoLibrary::get()), core_(library_.core()), bundle_(bundle), name_(options.name),
          note_(options.note), contract_(bundle.contract) {
        if (name_ == kBf16) check_bf16();
        const auto cache = CompileCache::open(bundle, name_, "openvino " + library_.version(), cpu_identity());
        compile(options, cache ? cache->folder().string() : "");
        if (cache) cache->seal();
    }

    [[nodiscard]] std::string name() const override { return name_ + " (CPU" + note_ + ")"; }
    [[nodiscard]] bool accepts_cuda() const noexcept override { return false; }
    [[nodiscard]] bool accepts_external_buffers() const noexcept override { return true; }
    [[nodiscard]] std::unique_ptr<Slot> new_slot() override {
        return std::make_unique<OpenVinoSlot>(library_, compiled_.get(), contract_);
    }

private:
    const OpenVinoLibrary &library_;
    ov_core_t *const core_;
    const Bundle &bundle_;
    const std::string name_, note_;
    const Contract contract_;
    std::string graph_;  // the graph's bytes, as long as `model_` may use them
    std::unique_ptr<PrivateCopy> copy_;  // likewise, where the weights are in a file of their own
    OpenVinoModel model_;
    OpenVinoCompiledModel compiled_;

    // Return the text that a function of OpenVINO allocated, and free it.
    [[nodiscard]] std::string take_text(char *text) const {
        const std::string copy = text == nullptr ? "" : text;
        library_.ov_free(text);
        return copy;
    }

    void check_bf16() const {
        char *text = nullptr;
        const auto status = library_.ov_core_get_property(core_, "CPU", "OPTIMIZATION_CAPABILITIES", &text);
        const std::string capabilities = take_text(text);
        if (status != OK || capabilities.find("BF16") == std::string::npos) {
            fail_missing(std::string("backend ") + kBf16, "this CPU has no bfloat16 arithmetic",
                         "use the backend openvino");
        }
    }

    // Throw Error (TCMOA_ERROR_BUNDLE) unless `status` is OK.
    void check(ov_status_e status) const {
        if (status == OK) return;
        fail_bundle(bundle_.graph_path().string(),
                    "OpenVINO " + library_.version() + " cannot load it (" + library_.reason(status) + ")",
                    std::string("use a newer OpenVINO, or ") + kExportAgain);
    }

    void compile(const BackendOptions &options, const std::string &cache_folder) {
        read_model();
        check_graph();
        using Property = std::pair<std::string, std::string>;
        const Property hint{"PERFORMANCE_HINT", "LATENCY"};
        const Property precision{"INFERENCE_PRECISION_HINT", name_ == kBf16 ? "bf16" : "f32"};
        // The C function takes a fixed number of properties and has no value for "unset": repeat one that is set.
        const Property threads =
            options.threads > 0 ? Property{"INFERENCE_NUM_THREADS", std::to_string(options.threads)} : hint;
        const Property cache = cache_folder.empty() ? hint : Property{"CACHE_DIR", cache_folder};
        ov_compiled_model_t *compiled = nullptr;
        check(library_.ov_core_compile_model(core_, model_.get(), "CPU", 8, &compiled, hint.first.c_str(),
                                             hint.second.c_str(), precision.first.c_str(), precision.second.c_str(),
                                             threads.first.c_str(), threads.second.c_str(), cache.first.c_str(),
                                             cache.second.c_str()));
        compiled_.reset(compiled);
        model_.reset();
        graph_ = {};
        copy_.reset();
    }

    void read_model() {
        ov_model_t *model = nullptr;
        if (bundle_.has_external_data()) {
            copy_ = std::make_unique<PrivateCopy>(bundle_);
            check(library_.ov_core_read_model(core_, copy_->graph_path().c_str(), nullptr, &model));
        } else {
            graph_ = bundle_.read_graph();
            check(library_.ov_core_read_model_from_memory_buffer(core_, graph_.data(), graph_.size(), nullptr,
                                                                 &model));
        }
        model_.reset(model);
    }

    // The graph must be the one that bundle.json describes: its name, and its tensors' names, types and shapes.
    void check_graph() const {
        const std::string where = bundle_.graph_path().string();
        std::size_t num_inputs = 0, num_outputs = 0;
        check(library_.ov_model_inputs_size(model_.get(), &num_inputs));
        check(library_.ov_model_outputs_size(model_.get(), &num_outputs));
        check_tensors("input", describe_ports(num_inputs, library_.ov_model_const_input_by_index), contract_.inputs(),
                      where, kExportAgain);
        check_tensors("output", describe_ports(num_outputs, library_.ov_model_const_output_by_index),
                      contract_.outputs(), where, kExportAgain);
        char *text = nullptr;
        check(library_.ov_model_get_friendly_name(model_.get(), &text));
        const std::string name = take_text(text);
        // OpenVINO gives a graph that it reads from a path another name.
        if (name != bundle_.graph_name && !bundle_.has_external_data()) {
            fail_bundle(where,
                        "the graph is named '" + printable(name) + "'; expected '" + printable(bundle_.graph_name) +
                            "' as in bundle.json",
                        kExportAgain);
        }
    }

    template <typename ByIndex>
    [[nodiscard]] std::vector<ReportedTensor> describe_ports(std::size_t count, ByIndex by_index) const {
        std::vector<ReportedTensor> tensors;
        for (std::size_t i = 0; i < count; ++i) {
            ov_output_const_port_t *port = nullptr;
            check(by_index(model_.get(), i, &port));
            tensors.push_back(describe_port(OpenVinoPort(port).get()));
        }
        return tensors;
    }

    [[nodiscard]] ReportedTensor describe_port(const ov_output_const_port_t *port) const {
        char *text = nullptr;
        check(library_.ov_port_get_any_name(port, &text));
        const std::string name = take_text(text);
        ov_element_type_e type{};
        check(library_.ov_port_get_element_type(port, &type));
        const std::string type_name = type == U8    ? name_of(ElementType::uint8)
                                      : type == F32 ? name_of(ElementType::float32)
                                                    : "type " + std::to_string(static_cast<int>(type));
        ov_shape_t shape{};
        if (library_.ov_const_port_get_shape(port, &shape) != OK) return {name, type_name + " of dynamic shape"};
        const std::vector<std::int64_t> sides(shape.dims, shape.dims + shape.rank);
        library_.ov_shape_free(&shape);
        return {name, describe_tensor(type_name, sides)};
    }
};

}  // namespace

std::unique_ptr<Backend> load_openvino(const Bundle &bundle, const BackendOptions &options) {
    return std::make_unique<OpenVinoBackend>(bundle, options);
}

}  // namespace tcmoa
