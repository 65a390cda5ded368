# The backend tensorrt, added to tcmoa_objects. Building it needs TensorRT's headers and CUDA's, which they include. The
# libraries and the driver are loaded when an engine is first needed. Without the headers the backend is still built; it
# then refuses engines with a message.
#
#   TCMOA_TENSORRT, TCMOA_TENSORRT_RTX                           AUTO, ON or OFF, per flavor
#   TCMOA_TENSORRT_INCLUDE_DIR, TCMOA_TENSORRT_RTX_INCLUDE_DIR   folders of NvInfer.h if they are not found
#   TCMOA_CUDA_INCLUDE_DIR                                       folder of cuda_runtime_api.h if it is not found
include_guard()

set(TCMOA_TENSORRT AUTO CACHE STRING "Engines of TensorRT 10 or newer: AUTO, ON or OFF")
set(TCMOA_TENSORRT_RTX AUTO CACHE STRING "Engines of TensorRT-RTX: AUTO, ON or OFF")

target_sources(tcmoa_objects PRIVATE
  src/cuda.cpp src/cuda_driver.cpp src/engine.cpp src/engine_trust.cpp src/kernel_cache.cpp src/tensorrt.cpp src/tensorrt_library.cpp
  src/tensorrt_session.cpp src/tensorrt_slot.cpp)
# TensorRT and the driver keep pointers to code of libtcmoa until the process exits.
target_link_options(tcmoa_objects INTERFACE LINKER:-z,nodelete)

file(GLOB _rtx_roots LIST_DIRECTORIES true /opt/TensorRT-RTX* /usr/local/TensorRT-RTX* /opt/tensorrt_rtx*)
file(GLOB _tensorrt_roots LIST_DIRECTORIES true /opt/TensorRT-[0-9]* /usr/local/TensorRT-[0-9]* /usr/local/tensorrt)
find_path(TCMOA_TENSORRT_INCLUDE_DIR NvInfer.h HINTS ENV TENSORRT_ROOT PATHS ${_tensorrt_roots}
  PATH_SUFFIXES include targets/x86_64-linux-gnu/include)
find_path(TCMOA_TENSORRT_RTX_INCLUDE_DIR NvInfer.h HINTS ENV TENSORRT_RTX_ROOT PATHS ${_rtx_roots}
  PATH_SUFFIXES include NO_DEFAULT_PATH)
find_path(TCMOA_CUDA_INCLUDE_DIR cuda_runtime_api.h HINTS ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES include)

# Add the source file of a flavor if its headers were found. Both flavors name their header NvInfer.h; a macro in
# NvInferVersion.h distinguishes them.
function(_tcmoa_add_flavor option title source definition include_dir expected)
  if(${option} STREQUAL "OFF")
    return()
  endif()
  set(_problem "")
  if(NOT include_dir)
    set(_problem "NvInfer.h was not found, set ${option}_INCLUDE_DIR")
  else()
    file(STRINGS ${include_dir}/NvInferVersion.h _rtx REGEX "define TRT_MAJOR_RTX ")
    if(_rtx)
      set(_found rtx)
    else()
      set(_found tensorrt)
    endif()
    if(NOT _found STREQUAL expected)
      set(_problem "${include_dir} has the headers of the other flavor, set ${option}_INCLUDE_DIR")
    elseif(NOT TCMOA_CUDA_INCLUDE_DIR)
      set(_problem "cuda_runtime_api.h was not found, set TCMOA_CUDA_INCLUDE_DIR")
    endif()
  endif()
  if(_problem)
    if(${option} STREQUAL "ON")
      message(FATAL_ERROR "${title}: ${_problem}")
    endif()
    message(STATUS "Backend tensorrt: built without ${title}, ${_problem}")
    return()
  endif()
  target_sources(tcmoa_objects PRIVATE ${source})
  # The source renames TensorRT's namespace, which the vptr sanitizer would report.
  set_source_files_properties(${source} PROPERTIES
    COMPILE_OPTIONS "-isystem;${include_dir};-isystem;${TCMOA_CUDA_INCLUDE_DIR};-fno-sanitize=vptr")
  set_property(SOURCE src/tensorrt_library.cpp APPEND PROPERTY COMPILE_DEFINITIONS ${definition})
  message(STATUS "Backend tensorrt: built with ${title}, headers in ${include_dir}")
endfunction()

_tcmoa_add_flavor(TCMOA_TENSORRT "TensorRT" src/tensorrt_runtime.cpp TCMOA_HAS_TENSORRT
  "${TCMOA_TENSORRT_INCLUDE_DIR}" tensorrt)
_tcmoa_add_flavor(TCMOA_TENSORRT_RTX "TensorRT-RTX" src/tensorrt_runtime_rtx.cpp TCMOA_HAS_TENSORRT_RTX
  "${TCMOA_TENSORRT_RTX_INCLUDE_DIR}" rtx)
