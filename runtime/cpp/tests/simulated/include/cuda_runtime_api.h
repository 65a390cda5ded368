// A simulated header of CUDA's runtime: only what the simulated NvInfer.h needs.
#pragma once

typedef struct CUstream_st *cudaStream_t;
