"""uint8 frames through the unfolded model: the reference that every exported graph is held against.

Slow and obvious on purpose; `tcmoa_export` does the same inside one graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tcmoa.model import TCMoA
from tcmoa_runtime.contract import token_grid, token_pixels
from tcmoa_runtime.images import LUMA

Fit = Literal["pad", "crops", "resize"]
ColorMode = Literal["rgb", "luma"]

Forward = Callable[[Tensor, Tensor, tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]

CROP = 448
"""Side of the authors' crops in pixels."""


def choose_fit(height: int, width: int, *, as_published: bool) -> Fit:
    """How a frame meets the windows: edge padding, or as the authors predict (448 crops, else resizing)."""
    if not as_published:
        return "pad"
    return "crops" if height > CROP and width > CROP else "resize"


def crop_starts(length: int) -> list[int]:
    """First pixels of the 448 crops along an axis, the last one aligned to the border.

    Raises ValueError when the axis is shorter than a crop.
    """
    if length < CROP:
        raise ValueError(f"{length} pixels are less than a crop of {CROP}")
    starts = list(range(0, length - CROP + 1, CROP))
    if starts[-1] + CROP < length:
        starts.append(length - CROP)
    return starts


def padded_size(height: int, width: int, window: int) -> tuple[int, int]:
    """The next whole windows of `window` pixels."""
    return math.ceil(height / window) * window, math.ceil(width / window) * window


def resized_size(height: int, width: int, window: int) -> tuple[int, int]:
    """The nearest whole windows of `window` pixels, at least one."""
    return max(1, round(height / window)) * window, max(1, round(width / window)) * window


def grid_of_frame(height: int, width: int, fit: Fit, *, upsample: bool, window: int) -> tuple[int, int]:
    """Tokens (gh, gw) of the prompt maps: those that cover the frame, or the resized frame with fit `resize`."""
    if fit == "resize":
        height, width = resized_size(height, width, window)
    return token_grid(height, width, upsample)


@dataclass
class FusedFrames:
    """`fused`: float32 [B, H, W, 3], 0..255, clipped, not rounded; `prompt`: float32 [B, K, 2, gh, gw]."""

    fused: Tensor
    prompt: Tensor


@torch.no_grad()
def fuse_frames(
    model: TCMoA,
    x: Tensor,
    y: Tensor,
    task: str,
    *,
    scale: float | Tensor = 1.0,
    shift: float | Tensor = 0.0,
    routers: Sequence[str] | None = None,
    fit: Fit = "pad",
    color: ColorMode = "rgb",
) -> FusedFrames:
    """Fuse RGB uint8 frames [B, H, W, 3] of any size; `scale` and `shift` are numbers or maps [B, gh, gw].

    `fit` `pad` repeats the frame's edge to whole windows; `crops` fuses 448x448 crops and pastes them in
    order, later ones on top; `resize` resizes bilinearly to the nearest whole windows and back. `color`
    `luma` fuses brightness alone and keeps the chroma (BT.601) of x. Raises ValueError when x and y differ in size.
    """
    b, height, width, _ = x.shape
    if y.shape != x.shape:
        raise ValueError(f"x is {tuple(x.shape)} and y {tuple(y.shape)}: expected equal shapes [B, H, W, 3]")
    grid = grid_of_frame(height, width, fit, upsample=model.upsample, window=model.window_pixels)
    scales = torch.as_tensor(scale, dtype=torch.float32).expand(b, *grid)
    shifts = torch.as_tensor(shift, dtype=torch.float32).expand(b, *grid)
    sources = [frame.permute(0, 3, 1, 2).float() for frame in (x, y)]
    luma = torch.tensor(LUMA).view(3, 1, 1)
    original = sources[0]
    if color == "luma":
        sources = [(s * luma).sum(1, keepdim=True).expand(-1, 3, -1, -1) for s in sources]

    def forward(a: Tensor, c: Tensor, maps: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        result = model(a / 255, c / 255, task, scale=maps[0], shift=maps[1], routers=routers)
        return result.image * 255, torch.stack([torch.stack(pair, 1) for pair in result.prompts], 1)

    if fit == "pad":
        fused, prompt = _padded(forward, sources, (scales, shifts), model, grid)
    elif fit == "resize":
        target = resized_size(height, width, model.window_pixels)
        resized = [_resize(s, target) for s in sources]
        fused, prompt = forward(resized[0], resized[1], (scales, shifts))
        fused = _resize(fused, (height, width))
    else:
        fused, prompt = _cropped(forward, sources, (scales, shifts), model, grid)
    if color == "luma":
        fused = original + (fused * luma).sum(1, keepdim=True) - (original * luma).sum(1, keepdim=True)
    return FusedFrames(fused.clamp(0, 255).permute(0, 2, 3, 1), prompt)


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.shape[-2:] == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def _replicate(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat the last row and column of [..., H, W] up to `size`."""
    rows = torch.arange(size[0]).clamp(max=image.shape[-2] - 1)
    cols = torch.arange(size[1]).clamp(max=image.shape[-1] - 1)
    return image[..., rows[:, None], cols]


def _padded(
    forward: Forward, sources: list[Tensor], maps: tuple[Tensor, Tensor], model: TCMoA, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    height, width = sources[0].shape[-2:]
    size = padded_size(height, width, model.window_pixels)
    token = token_pixels(model.upsample)
    tokens = (size[0] // token, size[1] // token)
    fused, prompt = forward(
        _replicate(sources[0], size),
        _replicate(sources[1], size),
        (_replicate(maps[0], tokens), _replicate(maps[1], tokens)),
    )
    return fused[..., :height, :width], prompt[..., : grid[0], : grid[1]]


def _cropped(
    forward: Forward, sources: list[Tensor], maps: tuple[Tensor, Tensor], model: TCMoA, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    height, width = sources[0].shape[-2:]
    token = token_pixels(model.upsample)
    fused = torch.zeros_like(sources[0])
    prompt = torch.zeros(fused.shape[0], model.prompt_count, 2, *grid)
    # Frame token of each crop token and back: by the centre of the token.
    for top in crop_starts(height):
        for left in crop_starts(width):
            rows, cols = (
                (start + (torch.arange(CROP // token) + 0.5) * token).long() // token for start in (top, left)
            )
            crop_maps = (maps[0][:, rows[:, None], cols], maps[1][:, rows[:, None], cols])
            area = (..., slice(top, top + CROP), slice(left, left + CROP))
            image, crop_prompt = forward(sources[0][area], sources[1][area], crop_maps)
            fused[area] = image
            centres_r = (torch.arange(grid[0]) * token + token // 2).clamp(max=height - 1)
            centres_c = (torch.arange(grid[1]) * token + token // 2).clamp(max=width - 1)
            in_r = ((centres_r >= top) & (centres_r < top + CROP)).nonzero()[:, 0]
            in_c = ((centres_c >= left) & (centres_c < left + CROP)).nonzero()[:, 0]
            prompt[..., in_r[:, None], in_c] = crop_prompt[
                ..., ((centres_r[in_r] - top) // token)[:, None], (centres_c[in_c] - left) // token
            ]
    return fused, prompt
