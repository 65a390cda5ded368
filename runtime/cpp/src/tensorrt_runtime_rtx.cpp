// tensorrt_runtime.cpp with the headers of TensorRT-RTX.
#define TCMOA_FLAVOUR_RTX
#include "tensorrt_runtime.cpp"
