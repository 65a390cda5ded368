// A stand-in for CUDA's header of this name: only what NvInfer.h here needs of it.
#pragma once

typedef struct CUstream_st *cudaStream_t;
