// tensorrt_runtime.cpp compiled with the simulated headers of TensorRT 10.0.
#include "tensorrt_runtime.cpp"
