// A simulated header of TensorRT, of a version that does not exist.
#pragma once

#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_MINOR 99
#define NV_TENSORRT_PATCH 0
#define NV_TENSORRT_BUILD 7
