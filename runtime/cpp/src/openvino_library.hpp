// OpenVINO's C library, loaded when it is first needed.
#pragma once

#include <openvino/c/openvino.h>

#include <memory>
#include <string>

namespace tcmoa {

// The functions in use, with the types of OpenVINO's own header.
#define TCMOA_OPENVINO_FUNCTIONS(f)           \
    f(ov_get_openvino_version)                \
    f(ov_version_free)                        \
    f(ov_get_last_err_msg)                    \
    f(ov_get_error_info)                      \
    f(ov_free)                                \
    f(ov_core_create)                         \
    f(ov_core_get_property)                   \
    f(ov_core_read_model)                     \
    f(ov_core_read_model_from_memory_buffer)  \
    f(ov_core_compile_model)                  \
    f(ov_model_free)                          \
    f(ov_model_get_friendly_name)             \
    f(ov_model_inputs_size)                   \
    f(ov_model_outputs_size)                  \
    f(ov_model_const_input_by_index)          \
    f(ov_model_const_output_by_index)         \
    f(ov_output_const_port_free)              \
    f(ov_port_get_any_name)                   \
    f(ov_port_get_element_type)               \
    f(ov_const_port_get_shape)                \
    f(ov_shape_free)                          \
    f(ov_compiled_model_create_infer_request) \
    f(ov_compiled_model_free)                 \
    f(ov_infer_request_free)                  \
    f(ov_infer_request_set_tensor)            \
    f(ov_infer_request_start_async)           \
    f(ov_infer_request_wait)                  \
    f(ov_infer_request_wait_for)              \
    f(ov_tensor_create_from_host_ptr)         \
    f(ov_tensor_free)

struct OpenVinoLibrary {
#define TCMOA_MEMBER(name) decltype(&::name) name = nullptr;
    TCMOA_OPENVINO_FUNCTIONS(TCMOA_MEMBER)
#undef TCMOA_MEMBER

    // The library of this process. Throws Error (TCMOA_ERROR_MISSING) if there is none. Searched in the
    // environment variable TCMOA_OPENVINO_LIBRARY (a path), at the path that CMake found, and by the system's loader.
    static const OpenVinoLibrary &get();

    // E.g. "2026.4.1".
    [[nodiscard]] std::string version() const;

    // The one core of the process. Throws Error (TCMOA_ERROR_MISSING) if OpenVINO does not start. It is never freed: on a
    // CPU with AMX, each core gives the thread that makes it another stack for signal handlers, and unmaps that stack when
    // it is freed. It puts the previous stack back only if it is freed in the same thread and after all later cores.
    // Otherwise the next handler that runs on that stack, as those of Python, Go and Java do, ends the process.
    [[nodiscard]] ov_core_t *core() const;

    // Why a call failed, in one line.
    [[nodiscard]] std::string reason(ov_status_e status) const;

    // Throw Error (TCMOA_ERROR_INTERNAL) unless `status` is OK; `action` is for the message, e.g. "run the graph".
    void check(const char *action, ov_status_e status) const;
};

template <typename T, auto free>
struct OpenVinoDeleter {
    void operator()(T *object) const noexcept { (OpenVinoLibrary::get().*free)(object); }
};

// An object of OpenVINO, freed by its own function.
template <typename T, auto free>
using OpenVinoObject = std::unique_ptr<T, OpenVinoDeleter<T, free>>;
using OpenVinoModel = OpenVinoObject<ov_model_t, &OpenVinoLibrary::ov_model_free>;
using OpenVinoPort = OpenVinoObject<ov_output_const_port_t, &OpenVinoLibrary::ov_output_const_port_free>;
using OpenVinoCompiledModel = OpenVinoObject<ov_compiled_model_t, &OpenVinoLibrary::ov_compiled_model_free>;
using OpenVinoRequest = OpenVinoObject<ov_infer_request_t, &OpenVinoLibrary::ov_infer_request_free>;
using OpenVinoTensor = OpenVinoObject<ov_tensor_t, &OpenVinoLibrary::ov_tensor_free>;

}  // namespace tcmoa
