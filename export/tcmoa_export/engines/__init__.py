"""TensorRT engines: building one into a bundle, and auditing its kernels."""
