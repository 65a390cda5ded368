// A simulated header, see ../include/simulated_nvinfer.h.
#pragma once

#include "NvInferVersion.h"
#include "simulated_nvinfer.h"
