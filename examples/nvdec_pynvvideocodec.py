"""Fuse two videos that the GPU decodes, with NVIDIA's PyNvVideoCodec.

    python examples/nvdec_pynvvideocodec.py BUNDLE X.mp4 Y.mp4 OUT_FOLDER

`pip install PyNvVideoCodec`. It converts NV12 to RGB on the GPU. Frames of both videos must have the bundle's size.
"""

import sys
from pathlib import Path

import PyNvVideoCodec as nvc  # noqa: N813

from tcmoa_runtime import Fuser
from tcmoa_runtime.images import write_image


def open_video(path: str) -> nvc.SimpleDecoder:
    """Open a video whose frames stay on the GPU, as uint8 RGB [H, W, 3]."""
    return nvc.SimpleDecoder(
        path, gpu_id=0, use_device_memory=True, output_color_type=nvc.OutputColorType.RGB
    )


def main(bundle: str, x_path: str, y_path: str, out_folder: str) -> None:
    """Fuse frame by frame until the shorter video ends, into numbered images."""
    x_video, y_video = open_video(x_path), open_video(y_path)
    Path(out_folder).mkdir(exist_ok=True)
    with Fuser.load(bundle, "tensorrt") as fuser:
        for index in range(min(len(x_video), len(y_video))):
            fused = fuser(x_video[index], y_video[index])  # taken by DLPack; stays on the GPU
            write_image(Path(out_folder) / f"{index:06}.png", fused.copy_to_host())


if __name__ == "__main__":
    main(*sys.argv[1:])
