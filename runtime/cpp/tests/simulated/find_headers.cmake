# Prints the folders that the options -DTCMOA_TENSORRT_INCLUDE and so on lead to.
cmake_minimum_required(VERSION 3.22)
include(${CMAKE_CURRENT_LIST_DIR}/../../cmake/TensorRTHeaders.cmake)
tcmoa_find_tensorrt_headers(_include _cuda_include _problem TCMOA_TENSORRT TensorRT)
message("TensorRT: ${_include} and ${_cuda_include} ${_problem}")
