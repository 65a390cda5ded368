# The backend tensorrt, into tcmoa_objects. Only TensorRT's headers are needed to build it, and CUDA's, which they
# include; the libraries and the driver are loaded when a bundle's engine first asks for them. Without the headers the
# backend is there, too, and says that it cannot run anything.
#
#   TCMOA_TENSORRT, TCMOA_TENSORRT_RTX                           AUTO, ON or OFF, for each flavour
#   TCMOA_TENSORRT_INCLUDE_DIR, TCMOA_TENSORRT_RTX_INCLUDE_DIR   folders with NvInfer.h, where they are not found
#   TCMOA_CUDA_INCLUDE_DIR                                       folder with cuda_runtime_api.h, likewise
include_guard()

set(TCMOA_TENSORRT AUTO CACHE STRING "Engines of TensorRT 10 or newer: AUTO, ON or OFF")
set(TCMOA_TENSORRT_RTX AUTO CACHE STRING "Engines of TensorRT-RTX: AUTO, ON or OFF")

target_sources(tcmoa_objects PRIVATE
  src/cuda.cpp src/engine.cpp src/tensorrt.cpp src/tensorrt_cache.cpp src/tensorrt_library.cpp
  src/tensorrt_slot.cpp)
# TensorRT and the driver keep pointers to code of ours until the process ends.
target_link_options(tcmoa_objects INTERFACE LINKER:-z,nodelete)

file(GLOB _rtx_roots LIST_DIRECTORIES true /opt/TensorRT-RTX* /usr/local/TensorRT-RTX* /opt/tensorrt_rtx*)
file(GLOB _tensorrt_roots LIST_DIRECTORIES true /opt/TensorRT-[0-9]* /usr/local/TensorRT-[0-9]* /usr/local/tensorrt)
find_path(TCMOA_TENSORRT_INCLUDE_DIR NvInfer.h HINTS ENV TENSORRT_ROOT PATHS ${_tensorrt_roots}
  PATH_SUFFIXES include targets/x86_64-linux-gnu/include)
find_path(TCMOA_TENSORRT_RTX_INCLUDE_DIR NvInfer.h HINTS ENV TENSORRT_RTX_ROOT PATHS ${_rtx_roots}
  PATH_SUFFIXES include NO_DEFAULT_PATH)
find_path(TCMOA_CUDA_INCLUDE_DIR cuda_runtime_api.h HINTS ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES include)

# Add the source file of a flavour, where its headers are there and fit. The version macro tells whose they are: both
# libraries name their header NvInfer.h.
function(_tcmoa_add_flavour option title source definition include_dir wanted)
  if(${option} STREQUAL "OFF")
    return()
  endif()
  set(_problem "")
  if(NOT include_dir)
    set(_problem "its NvInfer.h was not found, set ${option}_INCLUDE_DIR")
  else()
    file(STRINGS ${include_dir}/NvInferVersion.h _rtx REGEX "define TRT_MAJOR_RTX ")
    if(_rtx)
      set(_found rtx)
    else()
      set(_found tensorrt)
    endif()
    if(NOT _found STREQUAL wanted)
      set(_problem "${include_dir} holds the headers of the other flavour, set ${option}_INCLUDE_DIR")
    elseif(NOT TCMOA_CUDA_INCLUDE_DIR)
      set(_problem "its headers want cuda_runtime_api.h, set TCMOA_CUDA_INCLUDE_DIR")
    endif()
  endif()
  if(_problem)
    if(${option} STREQUAL "ON")
      message(FATAL_ERROR "${title}: ${_problem}")
    endif()
    message(STATUS "Backend tensorrt: without engines of ${title}: ${_problem}")
    return()
  endif()
  target_sources(tcmoa_objects PRIVATE ${source})
  # The source gives TensorRT's namespace another name, which a sanitizer would complain of.
  set_source_files_properties(${source} PROPERTIES
    COMPILE_OPTIONS "-isystem;${include_dir};-isystem;${TCMOA_CUDA_INCLUDE_DIR};-fno-sanitize=vptr")
  set_property(SOURCE src/tensorrt_library.cpp APPEND PROPERTY COMPILE_DEFINITIONS ${definition})
  message(STATUS "Backend tensorrt: engines of ${title}, headers in ${include_dir}")
endfunction()

_tcmoa_add_flavour(TCMOA_TENSORRT "TensorRT" src/tensorrt_runtime.cpp TCMOA_HAS_TENSORRT
  "${TCMOA_TENSORRT_INCLUDE_DIR}" tensorrt)
_tcmoa_add_flavour(TCMOA_TENSORRT_RTX "TensorRT-RTX" src/tensorrt_runtime_rtx.cpp TCMOA_HAS_TENSORRT_RTX
  "${TCMOA_TENSORRT_RTX_INCLUDE_DIR}" rtx)
