"""Fuse arrays of CuPy, without a copy through the host.

    python examples/cupy_arrays.py BUNDLE X.png Y.png OUT.png

Install CuPy for the CUDA version of the driver, e.g. `pip install cupy-cuda13x`.
"""

import sys

import cupy

from tcmoa_runtime import Fuser
from tcmoa_runtime.images import read_frame, write_image


def fuse_arrays(fuser: Fuser, x: cupy.ndarray, y: cupy.ndarray) -> cupy.ndarray:
    """Fuse uint8 [H, W, 3] and return the same, in the current stream of CuPy.

    DLPack orders the work on both sides: the frame waits for what is queued in the current stream, and
    `cupy.from_dlpack` makes the current stream wait for the frame. The result is not copied; its memory is used for
    another frame once no array refers to it.
    """
    return cupy.from_dlpack(fuser(x, y))


def main(bundle: str, x_path: str, y_path: str, out_path: str) -> None:
    """Fuse two image files of the bundle's size."""
    stream = cupy.cuda.Stream(non_blocking=True)  # must live as long as the fuser
    with Fuser.load(bundle, "tensorrt") as fuser, stream:
        x, y = (cupy.asarray(read_frame(path)) for path in (x_path, y_path))
        # x[..., ::-1] or x.transpose(1, 2, 0) of [3, H, W] is a view in another order: cupy.ascontiguousarray(...)
        write_image(out_path, cupy.asnumpy(fuse_arrays(fuser, x, y)))


if __name__ == "__main__":
    main(*sys.argv[1:])
