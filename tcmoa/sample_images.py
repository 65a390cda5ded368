"""Contact sheets of a model's results: x, y, fused and prompt maps side by side."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from tcmoa.model import TCMoA
from tcmoa.reference import fuse_frames
from tcmoa_runtime.demo import prompt_image
from tcmoa_runtime.images import write_bytes
from tcmoa_runtime.typing import Frame


def write_contact_sheet(
    model: TCMoA, rows: list[tuple[str, Frame, Frame]], target: Path, *, max_px: int = 336
) -> None:
    """Fuse one pair per row and write the results as one JPEG.

    Columns: x, y, fused, prompt_x of the first TC-MoA, prompt_x of the last one. The model's mode is restored.

    Args:
        model: The model.
        rows: (task, x, y), with frames uint8 [H, W, 3].
        target: The file to write.
        max_px: Largest side of an image; frames are resized and cut to whole windows.
    """
    was_training, step = model.training, model.window_pixels
    device = model.pos_embed.device
    model.eval()
    strips = []
    for task, x, y in rows:
        scale = max(1.0, min(x.shape[:2]) / max_px)
        size = [max(step, int(s / scale) // step * step) for s in x.shape[:2]]
        size = [min(s, max_px // step * step) for s in size]
        cut = [cv2.resize(s, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA) for s in (x, y)]
        frames = [cv2.resize(c, (max(size[1], c.shape[1]), max(size[0], c.shape[0]))) for c in cut]
        frames = [np.asarray(f[: size[0], : size[1]], np.uint8) for f in frames]
        tensors = [torch.from_numpy(f)[None].to(device) for f in frames]
        result = fuse_frames(model, tensors[0], tensors[1], task)
        fused = result.fused[0].round().byte().cpu().numpy()
        maps = [prompt_image(result.prompt[0, k, 0].cpu().numpy(), size[0], size[1]) for k in (0, -1)]
        strip = np.concatenate([*frames, fused, *maps], axis=1)
        pad = 5 * max_px - strip.shape[1]
        strips.append(np.pad(strip, ((0, 0), (0, pad), (0, 0))))
    model.train(was_training)
    ok, data = cv2.imencode(".jpg", np.concatenate(strips)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not ok:
        raise RuntimeError(f"{target}: could not be encoded")
    write_bytes(target, data.tobytes())
