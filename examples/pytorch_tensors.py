"""Fuse CUDA tensors of PyTorch, without a copy through the host.

python examples/pytorch_tensors.py BUNDLE X.png Y.png OUT.png
"""

import sys

import torch

from tcmoa_runtime import Fuser
from tcmoa_runtime.images import read_frame, write_image


def to_frame(image: torch.Tensor) -> torch.Tensor:
    """Return uint8 [H, W, 3] of float [3, H, W] in 0..1, the layout that PyTorch models use."""
    return (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()


def to_image(frame: torch.Tensor) -> torch.Tensor:
    """Return float [3, H, W] in 0..1 of uint8 [H, W, 3]."""
    return frame.permute(2, 0, 1).float() / 255


def fuse_images(fuser: Fuser, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Fuse float [3, H, W] in 0..1 on the GPU and return the same, in the current stream of PyTorch.

    DLPack orders the work on both sides, so no stream is named: the frame waits for what is queued in the current
    stream, and `torch.from_dlpack` makes the current stream wait for the frame. It copies nothing; the memory is used
    for another frame once no tensor refers to it.
    """
    return to_image(torch.from_dlpack(fuser(to_frame(x), to_frame(y))))


def main(bundle: str, x_path: str, y_path: str, out_path: str) -> None:
    """Fuse two image files of the bundle's size."""
    stream = torch.cuda.Stream()  # must live as long as the fuser
    with Fuser.load(bundle, "tensorrt") as fuser, torch.cuda.stream(stream), torch.inference_mode():
        x, y = (to_image(torch.from_numpy(read_frame(path)).to("cuda")) for path in (x_path, y_path))
        write_image(out_path, to_frame(fuse_images(fuser, x, y)).cpu().numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
