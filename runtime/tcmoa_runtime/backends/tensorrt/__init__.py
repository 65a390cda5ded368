"""The backend for engines of TensorRT and TensorRT-RTX."""
