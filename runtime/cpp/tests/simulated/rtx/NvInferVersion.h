// A simulated header of TensorRT-RTX, of a version that does not exist.
#pragma once

#define TRT_MAJOR_RTX 1
#define TRT_MINOR_RTX 99
#define TRT_PATCH_RTX 2
#define TRT_BUILD_RTX 16
#define NV_TENSORRT_MAJOR TRT_MAJOR_RTX
#define NV_TENSORRT_MINOR TRT_MINOR_RTX
#define NV_TENSORRT_PATCH TRT_PATCH_RTX
#define NV_TENSORRT_BUILD TRT_BUILD_RTX
