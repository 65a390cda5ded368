"""CUDA, DLPack and arrays in device memory: what the TensorRT backend needs of a GPU."""
