# The backend tensorrt, added to tcmoa_objects. Building it needs TensorRT's headers and CUDA's, which they include. The
# libraries and the driver are loaded when an engine is first needed. Without the headers the backend is still built; it
# then refuses engines with a message.
#
#   TCMOA_TENSORRT, TCMOA_TENSORRT_RTX   AUTO, ON or OFF, per flavor
#
# TensorRTHeaders.cmake lists the options that name folders of headers.
include_guard()
include(${CMAKE_CURRENT_LIST_DIR}/TensorRTHeaders.cmake)

set(TCMOA_TENSORRT AUTO CACHE STRING "Engines of TensorRT 10 or newer: AUTO, ON or OFF")
set(TCMOA_TENSORRT_RTX AUTO CACHE STRING "Engines of TensorRT-RTX: AUTO, ON or OFF")

target_sources(tcmoa_objects PRIVATE
  src/cuda.cpp src/cuda_driver.cpp src/engine.cpp src/engine_trust.cpp src/kernel_cache.cpp src/tensorrt.cpp src/tensorrt_library.cpp
  src/tensorrt_session.cpp src/tensorrt_slot.cpp)
# TensorRT and the driver keep pointers to code of libtcmoa until the process exits.
target_link_options(tcmoa_objects INTERFACE LINKER:-z,nodelete)

# Add the source file of a flavor if its headers were found.
function(_tcmoa_add_flavor option title source)
  string(REPLACE TCMOA_ TCMOA_HAS_ _definition ${option})
  if(${option} STREQUAL "OFF")
    return()
  endif()
  tcmoa_find_tensorrt_headers(_include _cuda_include _problem ${option} "${title}")
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
    COMPILE_OPTIONS "-isystem;${_include};-isystem;${_cuda_include};-fno-sanitize=vptr")
  set_property(SOURCE src/tensorrt_library.cpp APPEND PROPERTY COMPILE_DEFINITIONS ${_definition})
  message(STATUS "Backend tensorrt: built with ${title}, headers in ${_include}")
endfunction()

_tcmoa_add_flavor(TCMOA_TENSORRT "TensorRT" src/tensorrt_runtime.cpp)
_tcmoa_add_flavor(TCMOA_TENSORRT_RTX "TensorRT-RTX" src/tensorrt_runtime_rtx.cpp)
