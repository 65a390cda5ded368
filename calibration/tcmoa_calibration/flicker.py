"""Flicker of fused video: what changes from frame to frame where nothing moves in either source.

    from tcmoa_calibration.flicker import flicker

    found = flicker(frames_x, frames_y, frames_fused)  # sequences or generators, read once, two frames held
    found.excess, found.pumping                        # 0.0 where the fused video never flickers more than its sources

Warping-error metrics (Lai et al. 2018, "Learning Blind Video Temporal Consistency") follow motion by optical flow and
compare with the frame before; errors of the flow then count as flicker. Nothing is warped here: only still places
count, where any change is either noise of the sources or made by the fusion.

Definition. A, B, F are the lumas (BT.601, not rounded) in grey levels 0..255; dV = V(t) - V(t-1).

- A pixel is still at t where |G * dA| < 2 and |G * dB| < 2, G a Gaussian of sigma 2. The difference is blurred with
  its sign: independent noise of sigma s per frame becomes 0.2 s, while what moves or brightens stays.
- over = max(0, |dF| - max(|dA|, |dB|)): change that neither source has. The larger of the two bounds it, since a fused
  pixel may follow either source, or any mean of them, and is then no worse than what it was given.
- `excess`, `still`, `sources`: means of over, |dF| and max(|dA|, |dB|) over all still pixels of all steps.
- `pumping`: over as above, of the means of dA, dB, dF in 16x16 blocks that are still in every pixel, averaged over
  all such blocks of all steps. Eyes see the brightness of an area move by a fraction of a level, which the noise of
  single pixels hides: means of 256 pixels have a sixteenth of it. Blocks lie on a grid from the top left; what is left
  over at the right and lower border counts for no block.

What these cannot tell: a fusion that strengthens contrast strengthens the noise of its sources with it, which counts
(compare `still` with `sources`); and what moves is not judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.luma import exact_luma
from tcmoa_calibration.metrics.filters import blur, gaussian_taps
from tcmoa_calibration.metrics.frames import Plane
from tcmoa_runtime.errors import InputError

SIGMA: Final = 2.0
"""Of the Gaussian on differences, pixels."""

STILL_BELOW: Final = 2.0
"""Blurred differences under this many grey levels are noise. In the compressed video of fixed cameras, visible
and infrared, seven to nine of ten pixels stay below it in both."""

BLOCK: Final = 16
"""Side of the blocks of `pumping`, pixels."""

_TAPS: Final = gaussian_taps(13, SIGMA)  # out to 3 sigma
_NAMES: Final = ("x", "y", "fused")
_ENDED: Final = object()  # None would be taken for it where cv2.imread failed


@dataclass(frozen=True)
class Step:
    """From one frame to the next, or all steps of a video together; grey levels, None where nothing was still."""

    share: float
    """Of the pixels, counted as still, 0 .. 1."""
    excess: float | None
    """Mean change of the fused video beyond the larger one of its sources; 0 is best."""
    still: float | None
    """Mean change of the fused video."""
    sources: float | None
    """Mean of the larger change of both sources."""
    pumping: float | None
    """As `excess`, of the means of still 16x16 blocks; None also where no whole block was still."""


@dataclass(frozen=True)
class Flicker(Step):
    """All steps together, and each by itself."""

    steps: tuple[Step, ...]
    """steps[t] is the one from frame t to frame t + 1."""
    missing: str
    """Why figures are None, one line; empty where all are there."""


@dataclass(frozen=True)
class _Sums:
    """What adds up over steps: sums over still pixels and blocks, and how many there were."""

    pixels: int
    still_pixels: int
    over: float
    fused: float
    sources: float
    blocks: int
    blocks_over: float


def flicker(x: Iterable[Any], y: Iterable[Any], fused: Iterable[Any]) -> Flicker:
    """Flicker of a fused video [T] of frames, held against its sources x and y; their order does not matter.

    Frames are uint8 or uint16 (divided by 257), [H, W], [H, W, 1] or RGB [H, W, 3], mixed as they come, all of one
    size; T is at least 2 and the same for all three. Iterables are read once, in step. Sources of 14 bits in 16 want
    one stretch to 8 bits for the whole clip first: a stretch of each frame by itself flickers, and here without blame.

    Raises InputError for less than two frames, clips of unequal length, frames of another dtype, shape or size.
    """
    clips = [_frames(clip, name) for clip, name in zip((x, y, fused), _NAMES, strict=True)]
    before: tuple[Plane, ...] | None = None
    every: list[_Sums] = []
    for number, frames in enumerate(zip_longest(*clips, fillvalue=_ENDED)):
        ended = [name for name, frame in zip(_NAMES, frames, strict=True) if frame is _ENDED]
        if ended:
            raise InputError(
                f"{' and '.join(ended)} ended after {number} frames, others did not: expected as many frames of each"
            )
        lumas = tuple(
            exact_luma(frame, f"frame {number} of {name}") for name, frame in zip(_NAMES, frames, strict=True)
        )
        _check_sizes(lumas if before is None else (before[0], *lumas), number)
        if before is not None:
            every.append(_sums(*(now - then for now, then in zip(lumas, before, strict=True))))
        before = lumas
    if not every:
        raise InputError(f"frames of each clip: {int(before is not None)}; flicker needs at least 2")
    steps = tuple(_step([sums]) for sums in every)
    whole = _step(every)
    return Flicker(
        whole.share, whole.excess, whole.still, whole.sources, whole.pumping, steps, _missing(whole)
    )


def _sums(da: Plane, db: Plane, df: Plane) -> _Sums:
    """One step, from the differences [H, W] of its planes."""
    is_still = np.ones(df.shape, bool)
    for difference in (da, db):
        is_still &= np.abs(blur(difference, _TAPS, "mirror")) < STILL_BELOW
    bound = np.maximum(np.abs(da), np.abs(db))[is_still]
    change = np.abs(df)[is_still]

    in_blocks = _blocks(is_still).all(axis=(1, 3))
    mean_a, mean_b, mean_f = (np.abs(_blocks(d).mean(axis=(1, 3))[in_blocks]) for d in (da, db, df))
    return _Sums(
        pixels=df.size,
        still_pixels=change.size,
        over=_beyond(change, bound),
        fused=float(change.sum()),
        sources=float(bound.sum()),
        blocks=mean_f.size,
        blocks_over=_beyond(mean_f, np.maximum(mean_a, mean_b)),
    )


def _beyond(change: Plane, bound: Plane) -> float:
    """Sum of what `change` has beyond `bound`."""
    return float(np.maximum(change - bound, 0).sum())


def _blocks(plane: NDArray[Any]) -> NDArray[Any]:
    """[H, W] to [H // 16, 16, W // 16, 16]."""
    rows, columns = plane.shape[0] // BLOCK, plane.shape[1] // BLOCK
    return plane[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)


def _step(every: list[_Sums]) -> Step:
    def mean(sums: Iterable[float], count: int) -> float | None:
        return math.fsum(sums) / count if count else None

    still = sum(s.still_pixels for s in every)
    return Step(
        share=still / sum(s.pixels for s in every),
        excess=mean((s.over for s in every), still),
        still=mean((s.fused for s in every), still),
        sources=mean((s.sources for s in every), still),
        pumping=mean((s.blocks_over for s in every), sum(s.blocks for s in every)),
    )


def _missing(whole: Step) -> str:
    if whole.excess is None:
        return "no pixel is still in both sources from any frame to the next: nothing to judge"
    if whole.pumping is None:
        return f"no block of {BLOCK}x{BLOCK} pixels is still in both sources: no figure for pumping"
    return ""


def _frames(clip: Any, name: str) -> Iterator[Any]:
    """The frames of a clip, or InputError for what is plainly none, a single image above all."""
    shape = clip.shape if isinstance(clip, np.ndarray) else None
    if shape is not None and (len(shape) < 3 or (len(shape) == 3 and shape[2] in (1, 3))):
        raise InputError(f"{name} has shape {list(shape)}, a single image: expected a sequence of frames")
    try:
        return iter(clip)
    except TypeError as error:
        raise InputError(f"{name} is a {type(clip).__name__}: expected a sequence of frames") from error


def _check_sizes(planes: tuple[Plane, ...], number: int) -> None:
    """The planes of frame `number`, with one of the frame before where there is one."""
    sizes = {plane.shape for plane in planes}
    if len(sizes) > 1:
        told = ", ".join(f"{w}x{h}" for h, w in sorted(sizes))
        raise InputError(
            f"sizes differ at frame {number} ({told} pixels): expected one size throughout; resize the frames first"
        )
