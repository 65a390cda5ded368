# Finds the headers of TensorRT, TensorRT-RTX and CUDA; for TensorRT.cmake.
#
#   TCMOA_TENSORRT_INCLUDE       folder of TensorRT's NvInfer.h
#   TCMOA_TENSORRT_RTX_INCLUDE   folder of TensorRT-RTX's NvInfer.h
#   TCMOA_CUDA_INCLUDE           folder of cuda_runtime_api.h
#
# A folder that is set must have the header. It may also be the one above, e.g. the unpacked TensorRT. The usual folders
# are searched for those that are not set.
include_guard()

set(TCMOA_TENSORRT_INCLUDE "" CACHE PATH "Folder of TensorRT's headers; searched for if it is not set")
set(TCMOA_TENSORRT_RTX_INCLUDE "" CACHE PATH "Folder of TensorRT-RTX's headers; searched for if it is not set")
set(TCMOA_CUDA_INCLUDE "" CACHE PATH "Folder of CUDA's headers; searched for if it is not set")

# Set `result` to the folder of `header`: in the one that `variable` names, or else where find_path finds it with the
# other arguments. Empty if there is none.
function(_tcmoa_find_header result variable header)
  set(_suffixes PATH_SUFFIXES include targets/x86_64-linux-gnu/include targets/aarch64-linux-gnu/include)
  if(${variable})
    find_path(_found ${header} PATHS ${${variable}} ${_suffixes} NO_DEFAULT_PATH NO_CACHE)
    if(NOT _found)
      message(FATAL_ERROR "${variable}: ${${variable}} has no ${header}; expected the folder of the headers, or the "
        "one above it. Correct the path, or leave the option out to search the usual folders.")
    endif()
  else()
    find_path(_found ${header} ${ARGN} ${_suffixes} NO_CACHE)
  endif()
  if(_found)
    string(REGEX REPLACE "/+$" "" _found ${_found})
    set(${result} ${_found} PARENT_SCOPE)
  else()
    set(${result} "" PARENT_SCOPE)
  endif()
endfunction()

# Set `include` and `cuda_include` to the folders of the headers of a flavor, TCMOA_TENSORRT or TCMOA_TENSORRT_RTX, or
# `problem` to what is missing. Stops if a folder that is set is a wrong one.
function(tcmoa_find_tensorrt_headers include cuda_include problem flavor title)
  file(GLOB _rtx_roots LIST_DIRECTORIES true /opt/TensorRT-RTX* /usr/local/TensorRT-RTX* /opt/tensorrt_rtx*)
  file(GLOB _roots LIST_DIRECTORIES true /opt/TensorRT-[0-9]* /usr/local/TensorRT-[0-9]* /usr/local/tensorrt)
  if(flavor STREQUAL "TCMOA_TENSORRT_RTX")
    _tcmoa_find_header(_include ${flavor}_INCLUDE NvInfer.h
      HINTS ENV TENSORRT_RTX_ROOT PATHS ${_rtx_roots} NO_DEFAULT_PATH)
  else()
    _tcmoa_find_header(_include ${flavor}_INCLUDE NvInfer.h HINTS ENV TENSORRT_ROOT PATHS ${_roots})
  endif()
  _tcmoa_find_header(_cuda_include TCMOA_CUDA_INCLUDE cuda_runtime_api.h HINTS ENV CUDA_PATH PATHS /usr/local/cuda)
  set(_problem "")
  if(NOT _include)
    set(_problem "NvInfer.h was not found, set ${flavor}_INCLUDE")
  elseif(NOT EXISTS ${_include}/NvInferVersion.h)
    set(_wrong "${_include} has no NvInferVersion.h")
  else()
    # Both flavors name their header NvInfer.h; this macro distinguishes them.
    file(STRINGS ${_include}/NvInferVersion.h _rtx REGEX "define TRT_MAJOR_RTX ")
    if(_rtx AND flavor STREQUAL "TCMOA_TENSORRT")
      set(_wrong "${_include} has the headers of TensorRT-RTX")
    elseif(NOT _rtx AND flavor STREQUAL "TCMOA_TENSORRT_RTX")
      set(_wrong "${_include} has the headers of TensorRT")
    elseif(NOT _cuda_include)
      set(_problem "cuda_runtime_api.h was not found, set TCMOA_CUDA_INCLUDE")
    endif()
  endif()
  if(_wrong AND ${flavor}_INCLUDE)
    message(FATAL_ERROR "${flavor}_INCLUDE: ${_wrong}; expected those of ${title}. Correct the path, or leave the "
      "option out to search the usual folders.")
  elseif(_wrong)
    set(_problem "${_wrong}, set ${flavor}_INCLUDE")
  elseif(_problem AND ${flavor}_INCLUDE)
    message(FATAL_ERROR "${title}: ${_problem}")
  endif()
  set(${include} "${_include}" PARENT_SCOPE)
  set(${cuda_include} "${_cuda_include}" PARENT_SCOPE)
  set(${problem} "${_problem}" PARENT_SCOPE)
endfunction()
