// A simulated header of TensorRT 10.0, which lacks functions of later versions.
#pragma once

#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_MINOR 0
#define NV_TENSORRT_PATCH 1
#define NV_TENSORRT_BUILD 6
