"""The reference implementation of frame fusion, which exported graphs are compared with.

uint8 frames go through the PyTorch model step by step. Clarity comes before speed here; `tcmoa_export` does the same
inside one graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from tcmoa.model import TCMoA
from tcmoa.presets import SOURCE_WEIGHTS, Sizes
from tcmoa.window_fit import CROP, WindowFit, crop_starts, grid_of_frame, padded_size, resized_size
from tcmoa_runtime.contract import token_pixels
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import LUMA
from tcmoa_runtime.typing import ColorMode

SATURATION: Final = (0.713, 0.0, 0.564)
"""|Cr| and |Cb| in the offsets of R, G and B from the luma (BT.601): the weights of their sum."""

LEAST_SATURATION: Final = 1e-3
"""Added to the saturations of both sources, in gray levels: where both are gray, they count alike."""

_Forward: TypeAlias = Callable[[Tensor, Tensor, tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]
"""Sources [B, 3, H, W] in 0..255 and prompt maps [B, gh, gw] to the fused image and its prompts."""


@dataclass
class FusedFrames:
    """Fused frames and their prompts.

    Attributes:
        fused: float32 [B, H, W, 3], 0..255, clipped, not rounded.
        prompt: float32 [B, K, 2, gh, gw], prompt_x and prompt_y of the K TC-MoAs.
    """

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
    fit: WindowFit = "pad",
    color: ColorMode | None = None,
) -> FusedFrames:
    """Fuse RGB frames of any size.

    Args:
        model: The model, in eval mode.
        x: First source, uint8 [B, H, W, 3].
        y: Second source, of the same shape.
        task: `vif`, `mef` or `mff`.
        scale: alpha of Eq. 8, a number or maps [B, gh, gw].
        shift: beta of Eq. 8, a number or maps [B, gh, gw].
        routers: The task whose router each TC-MoA uses, instead of `task`.
        fit: `pad` repeats the frame's edge up to whole windows; `crops` fuses crops of 448x448 and pastes them in
            order, later ones on top; `resize` resizes bilinearly to the nearest whole windows and back.
        color: `rgb` fuses three channels. `luma` fuses the luma (BT.601) alone; the chroma is that of x in `vif`, and
            in `mef` and `mff` the mean of both sources' weighted by saturation, |Cb| + |Cr|. By default that which the
            model was made for: `luma` if it weighs the sources, else `rgb`.

    Raises:
        InputError: x and y differ in shape, a frame is smaller than a crop, or the model fuses luma only.
    """
    b, height, width, _ = x.shape
    if y.shape != x.shape:
        raise InputError(f"x is {tuple(x.shape)} and y {tuple(y.shape)}; expected equal shapes [B, H, W, 3]")
    grid = grid_of_frame(height, width, fit, upsample=model.upsample, window=model.window_pixels)
    scales = torch.as_tensor(scale, dtype=torch.float32, device=x.device).expand(b, *grid)
    shifts = torch.as_tensor(shift, dtype=torch.float32, device=x.device).expand(b, *grid)
    sources = [frame.permute(0, 3, 1, 2).float() for frame in (x, y)]
    luma = sources[0].new_tensor(LUMA).view(3, 1, 1)
    originals = sources
    color = choose_color(model.sizes, color)
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
        fused = (fused * luma).sum(1, keepdim=True) + _chroma(originals[0], originals[1], task)
    return FusedFrames(fused.clamp(0, 255).permute(0, 2, 3, 1), prompt)


def choose_color(sizes: Sizes, color: ColorMode | None) -> ColorMode:
    """Return the color mode that a model uses if `color` is asked for, or none.

    Raises:
        InputError: The model fuses luma only, and `color` is `rgb`.
    """
    if sizes.output != SOURCE_WEIGHTS:
        return color or "rgb"
    if color == "rgb":
        raise InputError(
            "'rgb'; expected 'luma', as these weights fuse the luma",
            subject="color",
            remedy="Leave {color} out",
            settings={"color": ...},
        )
    return "luma"


def _chroma(x: Tensor, y: Tensor, task: str) -> Tensor:
    """Return the color of the result, as offsets of R, G and B from the luma: [B, 3, H, W].

    With `vif`, x's: an infrared picture has none. Else the mean of both, weighted by saturation, as usual for exposures
    and focus; one weight for both components keeps hues between those of the sources.
    """
    luma = x.new_tensor(LUMA).view(3, 1, 1)
    offsets = [source - (source * luma).sum(1, keepdim=True) for source in (x, y)]
    if task == "vif":
        return offsets[0]
    # The luma offsets of B and R are Cb / 0.564 and Cr / 0.713.
    weights = x.new_tensor(SATURATION).view(3, 1, 1)
    saturations = [(offset.abs() * weights).sum(1, keepdim=True) + LEAST_SATURATION for offset in offsets]
    share = saturations[0] / (saturations[0] + saturations[1])
    return offsets[1] + share * (offsets[0] - offsets[1])


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
    forward: _Forward, sources: list[Tensor], maps: tuple[Tensor, Tensor], model: TCMoA, grid: tuple[int, int]
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
    forward: _Forward, sources: list[Tensor], maps: tuple[Tensor, Tensor], model: TCMoA, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    height, width = sources[0].shape[-2:]
    token = token_pixels(model.upsample)
    fused = torch.zeros_like(sources[0])
    prompt = torch.zeros(fused.shape[0], model.prompt_count, 2, *grid)
    # Frame token of each crop token and back: by the center of the token.
    for top in crop_starts(height):
        for left in crop_starts(width):
            rows, cols = (
                (start + (torch.arange(CROP // token) + 0.5) * token).long() // token for start in (top, left)
            )
            crop_maps = (maps[0][:, rows[:, None], cols], maps[1][:, rows[:, None], cols])
            area = (..., slice(top, top + CROP), slice(left, left + CROP))
            image, crop_prompt = forward(sources[0][area], sources[1][area], crop_maps)
            fused[area] = image
            centers_r = (torch.arange(grid[0]) * token + token // 2).clamp(max=height - 1)
            centers_c = (torch.arange(grid[1]) * token + token // 2).clamp(max=width - 1)
            in_r = ((centers_r >= top) & (centers_r < top + CROP)).nonzero()[:, 0]
            in_c = ((centers_c >= left) & (centers_c < left + CROP)).nonzero()[:, 0]
            prompt[..., in_r[:, None], in_c] = crop_prompt[
                ..., ((centers_r[in_r] - top) // token)[:, None], (centers_c[in_c] - left) // token
            ]
    return fused, prompt
