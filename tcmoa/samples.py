"""Pictures of what a model does: x, y, fused, prompt map, side by side."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from tcmoa.model import TCMoA

Frame = NDArray[np.uint8]


def prompt_picture(prompt: NDArray[np.float32], height: int, width: int) -> Frame:
    """A prompt map [gh, gw] as a colour picture [H, W, 3] RGB: 0 blue, 0.5 grey-green, 1 red (viridis-like turbo)."""
    levels = np.clip(np.round(prompt * 255), 0, 255).astype(np.uint8)
    levels = np.asarray(cv2.resize(levels, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1], np.uint8)


def write_contact_sheet(
    model: TCMoA, rows: list[tuple[str, Frame, Frame]], target: Path, *, most: int = 336
) -> None:
    """Fuse (task, x, y) rows, cut to whole windows of at most `most` pixels, and write one JPEG.

    Columns: x, y, fused, prompt_x of the first and of the last TC-MoA. The model's mode is left as it was.
    """
    was_training, step = model.training, model.window_pixels
    device = model.pos_embed.device
    model.eval()
    pictures = []
    for task, x, y in rows:
        scale = max(1.0, min(x.shape[:2]) / most)
        size = [max(step, int(s / scale) // step * step) for s in x.shape[:2]]
        size = [min(s, most // step * step) for s in size]
        cut = [cv2.resize(s, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA) for s in (x, y)]
        frames = [cv2.resize(c, (max(size[1], c.shape[1]), max(size[0], c.shape[0]))) for c in cut]
        frames = [np.asarray(f[: size[0], : size[1]], np.uint8) for f in frames]
        tensors = [torch.from_numpy(f).to(device).permute(2, 0, 1)[None].float() / 255 for f in frames]
        with torch.no_grad():
            result = model(tensors[0], tensors[1], task)
        fused = (result.image[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()
        maps = [prompt_picture(result.prompts[k][0][0].cpu().numpy(), size[0], size[1]) for k in (0, -1)]
        strip = np.concatenate([*frames, fused, *maps], axis=1)
        pad = 5 * most - strip.shape[1]
        pictures.append(np.pad(strip, ((0, 0), (0, pad), (0, 0))))
    model.train(was_training)
    ok, data = cv2.imencode(".jpg", np.concatenate(pictures)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not ok:
        raise RuntimeError(f"{target}: could not be encoded")
    partial = target.with_name(f".{target.name}.partial")
    partial.write_bytes(data.tobytes())
    partial.replace(target)
