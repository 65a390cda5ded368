"""Fuse images of OpenCV's CUDA module (GpuMat), without a copy through the host.

    python examples/opencv_gpumat.py BUNDLE X.png Y.png OUT.png

You need an OpenCV 4.8 or newer that was compiled with CUDA; the packages on PyPI are not. OpenCV's images are BGR, so
export the bundle with `--channel-order bgr`.
"""

import sys

import cv2
from cv2.typing import MatLike

from tcmoa_runtime import Fuser
from tcmoa_runtime.gpu.cuda_memory import CudaMemory


def as_array(mat: cv2.cuda.GpuMat) -> CudaMemory:
    """Return the memory of an image of 8 bits, whose rows are padded, without a copy.

    From version 4.13 on, a GpuMat has DLPack, but names no stream, and always device 0.
    """
    width, height = mat.size()
    return CudaMemory(mat.cudaPtr(), (height, width, mat.channels()), row_pitch=mat.step, owner=mat)


def fuse_in_stream(fuser: Fuser, x: MatLike, y: MatLike, stream: cv2.cuda.Stream) -> MatLike:
    """Fuse two BGR images; everything between the copies happens in `stream`, on the GPU."""
    x_gpu, y_gpu = cv2.cuda.GpuMat(), cv2.cuda.GpuMat()
    x_gpu.upload(x, stream)
    y_gpu.upload(y, stream)
    fused = fuser(as_array(x_gpu), as_array(y_gpu), stream=stream)

    # A GpuMat at the same address. It does not own the memory: keep `fused` as long as `fused_gpu` is used.
    height, width, _ = fused.shape
    fused_gpu = cv2.cuda.createGpuMatFromCudaMemory(height, width, cv2.CV_8UC3, fused.pointer)
    result = fused_gpu.download(stream)
    stream.waitForCompletion()
    return result


def main(bundle: str, x_path: str, y_path: str, out_path: str) -> None:
    """Fuse two image files of the bundle's size."""
    stream = cv2.cuda.Stream()  # must live as long as the fuser
    with Fuser.load(bundle, "tensorrt") as fuser:
        if fuser.bundle.channel_order != "bgr":
            sys.exit(
                f"{bundle}: RGB; expected BGR, as OpenCV reads images. Export it with --channel-order bgr."
            )
        x, y = cv2.imread(x_path), cv2.imread(y_path)
        if x is None or y is None:
            sys.exit(f"{x_path if x is None else y_path}: cannot be read; expected an image file.")
        cv2.imwrite(out_path, fuse_in_stream(fuser, x, y, stream))


if __name__ == "__main__":
    main(*sys.argv[1:])
