// A simulated header of TensorRT-RTX, of a version that does not exist. The minor number is an option of the compiler,
// for a library of another version.
#pragma once

#define TRT_MAJOR_RTX 1
#ifndef TRT_MINOR_RTX
#define TRT_MINOR_RTX 99
#endif
#define TRT_PATCH_RTX 2
#define TRT_BUILD_RTX 16
#define NV_TENSORRT_MAJOR TRT_MAJOR_RTX
#define NV_TENSORRT_MINOR TRT_MINOR_RTX
#define NV_TENSORRT_PATCH TRT_PATCH_RTX
#define NV_TENSORRT_BUILD TRT_BUILD_RTX
