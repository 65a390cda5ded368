"""Flicker of fused video: changes from frame to frame where nothing moves in either source.

    from tcmoa_calibration.flicker import flicker

    result = flicker(frames_x, frames_y, frames_fused)  # sequences or generators, read once, two frames in memory
    result.excess, result.pumping                       # 0.0 if the fused video never flickers more than its sources

Warping-error metrics (Lai et al. 2018, "Learning Blind Video Temporal Consistency") follow motion by optical flow and
compare with the previous frame, so that errors of the flow count as flicker. Nothing is warped here: only still pixels
count, where a change is either noise of the sources or made by the fusion.

Definition. A, B and F are the lumas (BT.601, not rounded) in gray levels from 0 to 255; dV = V(t) - V(t-1).

- A pixel is still at t if |G * dA| < 2 and |G * dB| < 2, where G is a Gaussian with a sigma of 2 px. The signed
  difference is blurred: independent noise of sigma s in each frame becomes 0.2 s, while motion and changes of
  brightness remain.
- over = max(0, |dF| - max(|dA|, |dB|)) is change that neither source has. The larger source change is the bound,
  because a fused pixel may follow either source, or any mean of them.
- `excess`, `still` and `sources` are the means of over, |dF| and max(|dA|, |dB|) over all still pixels of all steps.
- `pumping` is over, computed from the means of dA, dB and dF in 16x16 blocks that are still in every pixel, averaged
  over all such blocks of all steps. Viewers notice when the brightness of an area changes by a fraction of a level,
  which the noise of single pixels hides; a mean of 256 pixels has a sixteenth of that noise. Blocks lie on a grid
  from the top left; an incomplete block at the right or bottom does not count.

Limits: a fusion that strengthens contrast also strengthens the noise of its sources, which counts (compare `still` with
`sources`). Moving areas are not measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.luma import Plane, exact_luma
from tcmoa_calibration.metrics.filters import blur, gaussian_taps
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.typing import ImageLike

SIGMA_PX: Final = 2.0
"""Standard deviation of the Gaussian on differences."""

STILL_BELOW: Final = 2.0
"""Blurred differences below this many gray levels are noise.

In compressed video of fixed cameras, visible and infrared, 70 to 90 % of the pixels stay below it in both.
"""

BLOCK_PX: Final = 16
"""Side of the blocks of `pumping`."""

_TAPS: Final = gaussian_taps(13, SIGMA_PX)  # 3 sigma on each side
_NAMES: Final = ("x", "y", "fused")
_ENDED: Final = object()  # not None, which cv2.imread returns for a file that it cannot read


@dataclass(frozen=True)
class FlickerStep:
    """Flicker from one frame to the next, or of all steps of a video, in gray levels.

    Attributes:
        share: Fraction of the pixels that are still, 0 to 1.
        excess: Mean change of the fused video beyond the larger change of its sources; 0 is best. None without still
            pixels.
        still: Mean change of the fused video. None without still pixels.
        sources: Mean of the larger change of both sources. None without still pixels.
        pumping: As `excess`, for the means of still 16x16 blocks. None without such a block.
    """

    share: float
    excess: float | None
    still: float | None
    sources: float | None
    pumping: float | None


@dataclass(frozen=True)
class Flicker(FlickerStep):
    """Flicker of a video: all steps together, and each step.

    Attributes:
        steps: steps[t] is the step from frame t to frame t + 1.
        missing: Why values are None, in one line; empty if none is.
    """

    steps: tuple[FlickerStep, ...]
    missing: str


@dataclass(frozen=True)
class _Sums:
    """Sums over still pixels and blocks of a step, and their counts."""

    pixels: int
    still_pixels: int
    over: float
    fused: float
    sources: float
    blocks: int
    blocks_over: float


def flicker(x: Iterable[ImageLike], y: Iterable[ImageLike], fused: Iterable[ImageLike]) -> Flicker:
    """Measure the flicker of a fused video against its sources; the order of x and y does not matter.

    A source of 14 bits in 16 needs one stretch to 8 bits for the whole clip first: a stretch of each frame by itself
    flickers, and hides the flicker of the fusion.

    Args:
        x: Frames of the first source, uint8 or uint16 (divided by 257), [H, W], [H, W, 1] or RGB [H, W, 3], in any
            mixture, all of one size. At least two frames; iterables are read once and in step.
        y: As many frames of the second source.
        fused: As many frames of the fused video.

    Raises:
        InputError: Fewer than two frames, clips of different lengths, or frames of another dtype, shape or size.
    """
    clips = [_frames(clip, name) for clip, name in zip((x, y, fused), _NAMES, strict=True)]
    previous: tuple[Plane, ...] | None = None
    sums: list[_Sums] = []
    for number, frames in enumerate(zip_longest(*clips, fillvalue=_ENDED)):
        ended = [name for name, frame in zip(_NAMES, frames, strict=True) if frame is _ENDED]
        if ended:
            raise InputError(
                f"{number} frames, but others have more; expected clips of one length",
                subject=" and ".join(ended),
            )
        lumas = tuple(
            exact_luma(frame, f"frame {number} of {name}") for name, frame in zip(_NAMES, frames, strict=True)
        )
        _check_sizes(lumas if previous is None else (previous[0], *lumas), number)
        if previous is not None:
            sums.append(_sum_step(*(now - then for now, then in zip(lumas, previous, strict=True))))
        previous = lumas
    if not sums:
        raise InputError(f"{int(previous is not None)} frames in each clip; expected at least 2")
    steps = tuple(_to_step([step]) for step in sums)
    whole = _to_step(sums)
    return Flicker(
        whole.share,
        whole.excess,
        whole.still,
        whole.sources,
        whole.pumping,
        steps,
        _explain_missing(whole),
    )


def _sum_step(da: Plane, db: Plane, df: Plane) -> _Sums:
    """Sum one step, from the differences [H, W] of its planes."""
    is_still = np.ones(df.shape, bool)
    for difference in (da, db):
        is_still &= np.abs(blur(difference, _TAPS, "mirror")) < STILL_BELOW
    bound = np.maximum(np.abs(da), np.abs(db))[is_still]
    change = np.abs(df)[is_still]

    is_still_block = _blocks(is_still).all(axis=(1, 3))
    mean_a, mean_b, mean_f = (np.abs(_blocks(d).mean(axis=(1, 3))[is_still_block]) for d in (da, db, df))
    return _Sums(
        pixels=df.size,
        still_pixels=change.size,
        over=_sum_excess(change, bound),
        fused=float(change.sum()),
        sources=float(bound.sum()),
        blocks=mean_f.size,
        blocks_over=_sum_excess(mean_f, np.maximum(mean_a, mean_b)),
    )


def _sum_excess(change: Plane, bound: Plane) -> float:
    return float(np.maximum(change - bound, 0).sum())


def _blocks(plane: NDArray[Any]) -> NDArray[Any]:
    """Reshape [H, W] to [H // 16, 16, W // 16, 16]."""
    rows, columns = plane.shape[0] // BLOCK_PX, plane.shape[1] // BLOCK_PX
    return plane[: rows * BLOCK_PX, : columns * BLOCK_PX].reshape(rows, BLOCK_PX, columns, BLOCK_PX)


def _to_step(sums: list[_Sums]) -> FlickerStep:
    """Turn the sums of one or several steps into means."""

    def mean(values: Iterable[float], count: int) -> float | None:
        return math.fsum(values) / count if count else None

    still = sum(s.still_pixels for s in sums)
    return FlickerStep(
        share=still / sum(s.pixels for s in sums),
        excess=mean((s.over for s in sums), still),
        still=mean((s.fused for s in sums), still),
        sources=mean((s.sources for s in sums), still),
        pumping=mean((s.blocks_over for s in sums), sum(s.blocks for s in sums)),
    )


def _explain_missing(whole: FlickerStep) -> str:
    if whole.excess is None:
        return "no pixel is still in both sources between any two frames: flicker cannot be measured"
    if whole.pumping is None:
        return (
            f"no block of {BLOCK_PX}x{BLOCK_PX} pixels is still in both sources: pumping cannot be measured"
        )
    return ""


def _frames(clip: Iterable[ImageLike], name: str) -> Iterator[Any]:
    """Return the frames of a clip; refuse what cannot be one, above all a single image."""
    shape = clip.shape if isinstance(clip, np.ndarray) else None
    if shape is not None and (len(shape) < 3 or (len(shape) == 3 and shape[2] in (1, 3))):
        raise InputError(f"shape {list(shape)}, a single image; expected a sequence of frames", subject=name)
    try:
        return iter(clip)
    except TypeError as error:
        raise InputError(f"{type(clip).__name__}; expected a sequence of frames", subject=name) from error


def _check_sizes(planes: tuple[Plane, ...], number: int) -> None:
    """Check that the planes of frame `number`, and one of the frame before it if given, have one size."""
    sizes = {plane.shape for plane in planes}
    if len(sizes) > 1:
        listed = ", ".join(f"{w}x{h}" for h, w in sorted(sizes))
        raise InputError(
            f"sizes differ ({listed}); expected one size throughout",
            subject=f"frame {number}",
            remedy="Resize the frames first",
        )
