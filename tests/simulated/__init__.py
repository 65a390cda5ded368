"""A simulated CUDA and a simulated TensorRT, for testing the TensorRT backend without a GPU.

The simulation shows that the backend calls the two libraries in an order, and with addresses and sizes, that give the
right frames, and that it frees everything. It shows nothing about speed, real kernels or drivers: that is what
`test_tensorrt_gpu.py` is for, which runs where a GPU is.

`cuda_runtime` replaces `cuda.bindings.runtime` and `cuda.bindings.driver` and is stricter: memory is poisoned and
guarded, streams run as late as they may (or in random turns, from a seed), and what real CUDA accepts only to fail
later is a `Misuse` at once: a double free, a use after free, a copy that is one byte too long, a stream destroyed while
it has work, a wait inside a capture. Whatever is not freed at the end is a leak.

As in the documentation of CUDA: an event is recorded in streams of its own device only; each device has its own default
stream, and each thread its own per-thread one; a call makes the primary context of the device that it uses, and
`cudaSetDevice` does so at once; after an error that ends a context, every later call returns it; memory is aligned to
256 bytes, which TensorRT demands of the addresses that it is given.

`tensorrt_module` replaces `tensorrt` and `tensorrt_rtx_bindings`: an "engine" is the bundle's ONNX graph with a header,
and running it is ONNX Runtime, in the order of the stream in which it was enqueued.
"""
