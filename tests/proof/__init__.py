"""Checks of the GPU code against NVIDIA's real wheels, headers and driver library, on a machine without a GPU.

`make gpu-proof` runs all of them: `python -m proof`.
"""
