// OpenVINO on the CPU, in float32 or in bfloat16 where the CPU has it; mirrors tcmoa_runtime/backends/openvino.py.
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "backend.hpp"
#include "cache.hpp"
#include "error.hpp"
#include "openvino_library.hpp"

namespace tcmoa {
namespace {

constexpr std::size_t kAlignment = 64;  // of a cache line, and of the widest vectors

struct Free {
    void operator()(void *memory) const noexcept { std::free(memory); }
};
using Memory = std::unique_ptr<void, Free>;

Memory new_memory(std::size_t bytes) {
    const std::size_t whole = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    Memory memory(std::aligned_alloc(kAlignment, whole));
    if (!memory) throw std::bad_alloc();
    std::memset(memory.get(), 0, whole);
    return memory;
}

template <typename T, auto member>
struct Deleter {
    void operator()(T *object) const noexcept { (OpenVino::get().*member)(object); }
};
template <typename T, auto member>
using Owned = std::unique_ptr<T, Deleter<T, member>>;
using Core = Owned<ov_core_t, &OpenVino::ov_core_free>;
using Model = Owned<ov_model_t, &OpenVino::ov_model_free>;
using Compiled = Owned<ov_compiled_model_t, &OpenVino::ov_compiled_model_free>;
using Request = Owned<ov_infer_request_t, &OpenVino::ov_infer_request_free>;
using Tensor = Owned<ov_tensor_t, &OpenVino::ov_tensor_free>;
using Port = Owned<ov_output_const_port_t, &OpenVino::ov_output_const_port_free>;

class OpenVinoSlot final : public Slot {
public:
    OpenVinoSlot(const OpenVino &library, ov_compiled_model_t *compiled, const Contract &contract)
        : library_(library), inputs_(contract.inputs()), outputs_(contract.outputs()) {
        ov_infer_request_t *request = nullptr;
        check("make a request", library_.ov_compiled_model_create_infer_request(compiled, &request));
        request_.reset(request);
        for (const auto *specs : {&inputs_, &outputs_}) {
            for (const auto &spec : *specs) bind(spec);
        }
    }

    [[nodiscard]] const Tensors &tensors() const noexcept override { return views_; }

    void borrow(const Borrowed &borrowed) override {
        // OpenVINO takes no memory that it may only read; it does only read its inputs.
        x_.rebind(*this, const_cast<std::uint8_t *>(borrowed.x));
        y_.rebind(*this, const_cast<std::uint8_t *>(borrowed.y));
        fused_.rebind(*this, borrowed.fused);
    }

    void start(const DeviceFrame &, const DeviceFrame &) override {
        check("start the graph", library_.ov_infer_request_start_async(request_.get()));
    }

    bool ready(std::chrono::milliseconds timeout) override {
        if (timeout.count() < 0) {
            check("run the graph", library_.ov_infer_request_wait(request_.get()));
            return true;
        }
        const auto status = library_.ov_infer_request_wait_for(request_.get(), timeout.count());
        if (status == RESULT_NOT_READY) return false;
        check("run the graph", status);
        return true;
    }

    void collect() override {}

    void collect_to(void *, void *) override { fail_internal("OpenVINO on the CPU has no GPU memory"); }

private:
    // A port of the images: which memory it is bound to, and the tensors around the caller's latest ones. Callers go
    // round a few buffers, and a tensor that is known costs no allocation.
    class ImagePort {
    public:
        void rebind(OpenVinoSlot &slot, void *memory) {
            if (memory == bound_) return;
            slot.set(*spec_, memory == nullptr ? own_ : tensor_of(slot, memory));
            bound_ = memory;
        }
        void own(const TensorSpec &spec, ov_tensor_t *tensor) {
            spec_ = &spec;
            own_ = tensor;
        }

    private:
        struct Known {
            void *memory = nullptr;
            Tensor tensor;
        };
        const TensorSpec *spec_ = nullptr;
        ov_tensor_t *own_ = nullptr;
        void *bound_ = nullptr;  // nullptr: the slot's own
        std::array<Known, 8> known_;
        std::size_t oldest_ = 0;

        ov_tensor_t *tensor_of(OpenVinoSlot &slot, void *memory) {
            for (const auto &known : known_) {
                if (known.memory == memory) return known.tensor.get();
            }
            Tensor tensor = slot.wrap(*spec_, memory);
            auto &place = known_[oldest_];
            oldest_ = (oldest_ + 1) % known_.size();
            place = {memory, std::move(tensor)};
            return place.tensor.get();
        }
    };

    const OpenVino &library_;
    const std::vector<TensorSpec> inputs_, outputs_;
    std::vector<Memory> memory_;
    std::vector<Tensor> tensors_;
    ImagePort x_, y_, fused_;
    Tensors views_;
    Request request_;  // goes first: it holds the tensors

    void check(const char *what, ov_status_e status) const {
        if (status != OK) fail_internal(std::string("OpenVINO could not ") + what + " (" + library_.reason(status) + ")");
    }

    [[nodiscard]] Tensor wrap(const TensorSpec &spec, void *data) const {
        auto dimensions = spec.shape;
        const ov_shape_t shape{static_cast<std::int64_t>(dimensions.size()), dimensions.data()};
        ov_tensor_t *tensor = nullptr;
        const auto type = spec.element == Element::uint8 ? U8 : F32;
        check("wrap memory", library_.ov_tensor_create_from_host_ptr(type, shape, data, &tensor));
        return Tensor(tensor);
    }

    void set(const TensorSpec &spec, const ov_tensor_t *tensor) const {
        check("bind a tensor", library_.ov_infer_request_set_tensor(request_.get(), spec.name.c_str(), tensor));
    }

    void bind(const TensorSpec &spec) {
        memory_.push_back(new_memory(spec.bytes()));
        void *data = memory_.back().get();
        tensors_.push_back(wrap(spec, data));
        ov_tensor_t *tensor = tensors_.back().get();
        set(spec, tensor);
        const std::span bytes(static_cast<std::uint8_t *>(data), spec.elements());
        const std::span numbers(static_cast<float *>(data), spec.elements());
        if (spec.name == kX) x_.own(spec, tensor), views_.x = bytes;
        if (spec.name == kY) y_.own(spec, tensor), views_.y = bytes;
        if (spec.name == kFused) fused_.own(spec, tensor), views_.fused = bytes;
        if (spec.name == kScale) views_.scale = numbers;
        if (spec.name == kShift) views_.shift = numbers;
        if (spec.name == kPrompt) views_.prompt = numbers;
    }
};

class OpenVinoBackend final : public Backend {
public:
    OpenVinoBackend(const Bundle &bundle, const BackendOptions &options)
        : library_(OpenVino::get()), bundle_(bundle), name_(options.name), contract_(bundle.contract) {
        ov_core_t *core = nullptr;
        if (const auto status = library_.ov_core_create(&core); status != OK) {
            fail_missing("OpenVINO " + library_.version() + " could not start (" + library_.reason(status) +
                         "); install it anew");
        }
        core_.reset(core);
        if (name_ == "openvino-bf16") check_bf16();
        const auto cache = Cache::open(bundle, name_ + "-" + library_.version());
        compile(options, cache ? cache->folder().string() : "");
        if (cache) cache->seal();
    }

    [[nodiscard]] std::string name() const override { return name_ + " (CPU)"; }
    [[nodiscard]] bool takes_cuda() const noexcept override { return false; }
    [[nodiscard]] bool borrows() const noexcept override { return true; }
    [[nodiscard]] std::unique_ptr<Slot> new_slot() override {
        return std::make_unique<OpenVinoSlot>(library_, compiled_.get(), contract_);
    }

private:
    const OpenVino &library_;
    const Bundle &bundle_;
    const std::string name_;
    const Contract contract_;
    Core core_;
    std::string data_;  // the graph's bytes
    Model model_;
    Compiled compiled_;

    void check_bf16() const {
        char *text = nullptr;
        const auto status = library_.ov_core_get_property(core_.get(), "CPU", "OPTIMIZATION_CAPABILITIES", &text);
        const std::string abilities = status == OK && text != nullptr ? text : "";
        library_.ov_free(text);
        if (abilities.find("BF16") == std::string::npos) {
            fail_missing("openvino-bf16 needs a CPU with bfloat16 arithmetic, this one has none; use the backend openvino");
        }
    }

    [[noreturn]] void refuse(ov_status_e status) const {
        fail_bundle(bundle_.graph_path().string() + ": OpenVINO " + library_.version() + " cannot load it (" +
                    library_.reason(status) + "); use a newer OpenVINO, or export it again with `tcmoa export`");
    }

    void compile(const BackendOptions &options, const std::string &cache) {
        ov_model_t *model = nullptr;
        ov_status_e status{};
        if (bundle_.has_external_data()) {
            // The weights are found through the graph's own path, so it cannot come from memory.
            bundle_.check();
            status = library_.ov_core_read_model(core_.get(), bundle_.graph_path().c_str(), nullptr, &model);
        } else {
            data_ = bundle_.read_graph();
            status = library_.ov_core_read_model_from_memory_buffer(core_.get(), data_.data(), data_.size(), nullptr,
                                                                    &model);
        }
        if (status != OK) refuse(status);
        model_.reset(model);
        check_graph();
        using Setting = std::pair<std::string, std::string>;
        const Setting hint{"PERFORMANCE_HINT", "LATENCY"};
        const Setting precision{"INFERENCE_PRECISION_HINT", name_ == "openvino-bf16" ? "bf16" : "f32"};
        // There is no setting for "unset", so what is not asked for repeats another.
        const Setting threads =
            options.threads > 0 ? Setting{"INFERENCE_NUM_THREADS", std::to_string(options.threads)} : hint;
        const Setting folder = cache.empty() ? hint : Setting{"CACHE_DIR", cache};
        ov_compiled_model_t *compiled = nullptr;
        status = library_.ov_core_compile_model(
            core_.get(), model_.get(), "CPU", 8, &compiled, hint.first.c_str(), hint.second.c_str(),
            precision.first.c_str(), precision.second.c_str(), threads.first.c_str(), threads.second.c_str(),
            folder.first.c_str(), folder.second.c_str());
        if (status != OK) refuse(status);
        compiled_.reset(compiled);
        model_.reset();
        data_ = {};
    }

    // The graph must be the one that bundle.json describes: names, types and shapes, and its own name.
    void check_graph() const {
        std::size_t inputs = 0, outputs = 0;
        if (auto status = library_.ov_model_inputs_size(model_.get(), &inputs); status != OK) refuse(status);
        if (auto status = library_.ov_model_outputs_size(model_.get(), &outputs); status != OK) refuse(status);
        check_ports("input", inputs, library_.ov_model_const_input_by_index, contract_.inputs());
        check_ports("output", outputs, library_.ov_model_const_output_by_index, contract_.outputs());
        char *text = nullptr;
        if (auto status = library_.ov_model_get_friendly_name(model_.get(), &text); status != OK) refuse(status);
        const std::string name = text == nullptr ? "" : text;
        library_.ov_free(text);
        // Read from a path, it gets another name.
        if (name != bundle_.graph_name && !bundle_.has_external_data()) {
            fail_bundle(bundle_.graph_path().string() + ": the graph is named '" + shown(name) + "', bundle.json says '" +
                        shown(bundle_.graph_name) + "'; it is another bundle's graph: export it again");
        }
    }

    template <typename By>
    void check_ports(const char *kind, std::size_t count, By by_index, const std::vector<TensorSpec> &wanted) const {
        std::vector<TensorSpec> arrived;
        for (std::size_t i = 0; i < count; ++i) arrived.push_back(describe(by_index, i));
        const auto differ = [&](const TensorSpec &spec, const std::vector<TensorSpec> &others) {
            for (const auto &other : others) {
                if (other == spec) return;
            }
            std::string there = "absent", here = "there is none";
            for (const auto &other : arrived) {
                if (other.name == spec.name) there = shown(other);
            }
            for (const auto &other : wanted) {
                if (other.name == spec.name) here = shown(other);
            }
            fail_bundle(bundle_.graph_path().string() + ": " + kind + " '" + shown(spec.name) + "' is " + there +
                        ", bundle.json says " + here + "; it is not this bundle's graph: export it again");
        };
        for (const auto &spec : wanted) differ(spec, arrived);
        for (const auto &spec : arrived) differ(spec, wanted);
    }

    template <typename By>
    TensorSpec describe(By by_index, std::size_t index) const {
        ov_output_const_port_t *raw = nullptr;
        if (auto status = by_index(model_.get(), index, &raw); status != OK) refuse(status);
        const Port port(raw);
        char *name = nullptr;
        if (auto status = library_.ov_port_get_any_name(port.get(), &name); status != OK) refuse(status);
        TensorSpec spec{name == nullptr ? "" : name, Element::uint8, {}};
        library_.ov_free(name);
        ov_element_type_e type{};
        if (auto status = library_.ov_port_get_element_type(port.get(), &type); status != OK) refuse(status);
        ov_shape_t shape{};
        // Fails where the shape is not static; then no shape of the contract equals it.
        if (library_.ov_const_port_get_shape(port.get(), &shape) == OK) {
            spec.shape.assign(shape.dims, shape.dims + shape.rank);
            library_.ov_shape_free(&shape);
        }
        spec.element = type == F32 ? Element::float32 : Element::uint8;
        if (type != F32 && type != U8) spec.shape.clear();
        return spec;
    }
};

}  // namespace

std::unique_ptr<Backend> load_openvino(const Bundle &bundle, const BackendOptions &options) {
    return std::make_unique<OpenVinoBackend>(bundle, options);
}

}  // namespace tcmoa
