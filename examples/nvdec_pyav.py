"""Fuse two videos that the GPU decodes, with PyAV; PyTorch converts NV12 to RGB on the GPU.

    python examples/nvdec_pyav.py BUNDLE X.mp4 Y.mp4 OUT_FOLDER

You need PyAV 17 or newer (frames with DLPack) whose FFmpeg has CUDA (`python -m av --hwdevices`), and PyTorch. With a
bundle whose y has one channel (`tcmoa export --gray y`), the luma of the second video is fused as it is decoded.
Frames of both videos must have the bundle's size.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import av
import torch
from av.codec.hwaccel import HWAccel
from av.video.plane import VideoPlane

from tcmoa_runtime import Fuser
from tcmoa_runtime.images import write_image


def decode(path: str) -> Iterator[av.VideoFrame]:
    """Decode a video; frames of a GPU's decoder stay there, in NV12."""
    hwaccel = HWAccel("cuda", allow_software_fallback=False, is_hw_owned=True)
    with av.open(path, hwaccel=hwaccel) as container:
        yield from container.decode(video=0)


def as_tensor(plane: VideoPlane) -> torch.Tensor:
    """Return a plane without a copy: luma [H, W], chroma [H/2, W/2, 2].

    PyAV names no stream. FFmpeg decodes into the default stream, which is also PyTorch's current one here.
    """
    return torch.from_dlpack(plane.__dlpack__())


def nv12_to_rgb(luma: torch.Tensor, chroma: torch.Tensor) -> torch.Tensor:
    """Return uint8 RGB [H, W, 3] of NV12 in BT.709 with luma 16 to 235, as HD video has it."""
    height, width = luma.shape
    u, v = (chroma.float() - 128).repeat_interleave(2, 0).repeat_interleave(2, 1)[:height, :width].unbind(-1)
    y = (luma.float() - 16) * (255 / 219)
    scale = 255 / 224
    red = y + 1.5748 * scale * v
    green = y - scale * (0.1873 * u + 0.4681 * v)
    blue = y + 1.8556 * scale * u
    return torch.stack((red, green, blue), dim=-1).round().clamp(0, 255).to(torch.uint8)


def main(bundle: str, x_path: str, y_path: str, out_folder: str) -> None:
    """Fuse frame by frame until the shorter video ends, into numbered images."""
    Path(out_folder).mkdir(exist_ok=True)
    with Fuser.load(bundle, "tensorrt") as fuser, torch.inference_mode():
        takes_luma = fuser.bundle.contract.y_channels == 1
        for index, (x, y) in enumerate(zip(decode(x_path), decode(y_path), strict=False)):
            x_rgb = nv12_to_rgb(*map(as_tensor, x.planes))
            y_source = y.planes[0] if takes_luma else nv12_to_rgb(*map(as_tensor, y.planes))
            fused = fuser(x_rgb, y_source)
            write_image(Path(out_folder) / f"{index:06}.png", fused.copy_to_host())


if __name__ == "__main__":
    main(*sys.argv[1:])
