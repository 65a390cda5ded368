// A stand-in, see ../include/standin_nvinfer.h.
#pragma once

#include "NvInferVersion.h"
#include "standin_nvinfer.h"
