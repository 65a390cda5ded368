"""A simulated CUDA and a simulated TensorRT: the backend's own code runs, but no GPU does.

This machine-independent stand-in exists because the tests have to run where there is no GPU. It shows that the
backend calls the two libraries in an order and with addresses and sizes that give the right frames, and that it
gives everything back. It shows nothing about speed, about real kernels, or about a driver's moods:
`test_tensorrt_gpu.py` is for that and runs where a GPU is.

`cuda_runtime` stands in for `cuda.bindings.runtime`, stricter than the real thing: memory is poisoned and
guarded, streams run as late as they may (or in random turns, from a seed), and what real CUDA lets pass to fail
later (a double free, a use after free, a copy that is one byte too long, a stream destroyed while it has work,
a wait in the middle of a capture) is a `Misuse` at once. What is still held at the end is a leak.

`tensorrt_module` stands in for `tensorrt` and `tensorrt_rtx_bindings`: an "engine" is the bundle's ONNX graph
with a header, and running it is ONNX Runtime, in the order of the stream it was queued in.
"""
