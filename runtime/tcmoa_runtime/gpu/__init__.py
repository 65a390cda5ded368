"""CUDA, DLPack and arrays in GPU memory, as the TensorRT backend uses them."""
