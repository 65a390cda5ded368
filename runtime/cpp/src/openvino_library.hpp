// OpenVINO's C library, loaded when it is first needed, so that one binary of ours also serves where it is absent.
#pragma once

#include <openvino/c/openvino.h>

#include <string>

#include "error.hpp"

namespace tcmoa {

// The functions that are used, typed by OpenVINO's own header.
#define TCMOA_OPENVINO_FUNCTIONS(f)          \
    f(ov_get_openvino_version)               \
    f(ov_version_free)                       \
    f(ov_get_last_err_msg)                   \
    f(ov_get_error_info)                     \
    f(ov_free)                               \
    f(ov_core_create)                        \
    f(ov_core_free)                          \
    f(ov_core_get_property)                  \
    f(ov_core_read_model)                    \
    f(ov_core_read_model_from_memory_buffer) \
    f(ov_core_compile_model)                 \
    f(ov_model_free)                         \
    f(ov_model_get_friendly_name)            \
    f(ov_model_inputs_size)                  \
    f(ov_model_outputs_size)                 \
    f(ov_model_const_input_by_index)         \
    f(ov_model_const_output_by_index)        \
    f(ov_output_const_port_free)             \
    f(ov_port_get_any_name)                  \
    f(ov_port_get_element_type)              \
    f(ov_const_port_get_shape)               \
    f(ov_shape_free)                         \
    f(ov_compiled_model_create_infer_request) \
    f(ov_compiled_model_free)                \
    f(ov_infer_request_free)                 \
    f(ov_infer_request_set_tensor)           \
    f(ov_infer_request_start_async)          \
    f(ov_infer_request_wait)                 \
    f(ov_infer_request_wait_for)             \
    f(ov_tensor_create_from_host_ptr)        \
    f(ov_tensor_free)

struct OpenVino {
#define TCMOA_MEMBER(name) decltype(&::name) name = nullptr;
    TCMOA_OPENVINO_FUNCTIONS(TCMOA_MEMBER)
#undef TCMOA_MEMBER

    // The library of this process; Error (TCMOA_ERROR_MISSING) that says what to install when there is none. It is
    // looked for in TCMOA_OPENVINO_LIBRARY (a path), where CMake found it, and where the system's loader looks.
    static const OpenVino &get();

    // As "2026.4.1".
    [[nodiscard]] std::string version() const;

    // The reason of a failed call, in one line.
    [[nodiscard]] std::string reason(ov_status_e status) const;
};

}  // namespace tcmoa
