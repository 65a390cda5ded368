// tensorrt_runtime.cpp compiled with the headers of TensorRT-RTX.
#define TCMOA_FLAVOR_RTX
#include "tensorrt_runtime.cpp"
