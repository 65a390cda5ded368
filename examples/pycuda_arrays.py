"""Fuse arrays of PyCUDA in a stream of PyCUDA, without a copy through the host.

    python examples/pycuda_arrays.py BUNDLE X.png Y.png OUT.png

PyCUDA is compiled when it is installed and needs a CUDA toolkit: `pip install '.[pycuda]'`. Import
`pycuda.autoprimaryctx`, not `pycuda.autoinit`: engines run in the primary context of the GPU.
"""

import sys

import numpy as np
import pycuda.autoprimaryctx  # noqa: F401  # makes the primary context current
import pycuda.driver as drv
from numpy.typing import NDArray
from pycuda import gpuarray

from tcmoa_runtime import Fuser
from tcmoa_runtime.images import read_frame, write_image
from tcmoa_runtime.typing import Frame


def fuse_in_stream(fuser: Fuser, x: Frame, y: Frame, stream: drv.Stream) -> NDArray[np.uint8]:
    """Fuse two frames [H, W, 3]; everything between the copies happens in `stream`, on the GPU."""
    x_gpu = gpuarray.to_gpu_async(x, stream=stream)
    y_gpu = gpuarray.to_gpu_async(y, stream=stream)

    # Arrays of PyCUDA do not name their stream. With `stream`, the frame waits for the copies above, and the work
    # that is queued below waits for the frame. The host does not wait.
    fused = fuser(x_gpu, y_gpu, stream=stream)

    # The result as an array of PyCUDA, at the same address; `base` keeps the memory valid.
    fused_gpu = gpuarray.GPUArray(fused.shape, np.uint8, base=fused, gpudata=fused.pointer)
    result = drv.pagelocked_empty(fused_gpu.shape, np.uint8)
    fused_gpu.get_async(stream=stream, ary=result)
    stream.synchronize()
    return result


def main(bundle: str, x_path: str, y_path: str, out_path: str) -> None:
    """Fuse two image files of the bundle's size."""
    stream = drv.Stream()  # must live as long as the fuser
    with Fuser.load(bundle, "tensorrt") as fuser:
        write_image(out_path, fuse_in_stream(fuser, read_frame(x_path), read_frame(y_path), stream))


if __name__ == "__main__":
    main(*sys.argv[1:])
