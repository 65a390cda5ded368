"""Sample pairs for calibration: read, sized, checked, and split into those to learn from and those to judge by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.alignment import Warp
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import PROMPT_SCALE, PROMPT_SHIFT, X, Y
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import Frame, read_frame, resize_frame, to_frame
from tcmoa_runtime.pairs import PairPaths

FLAT = 2
"""Grey levels between an image's darkest and brightest value, up to which it is one flat colour."""


@dataclass(frozen=True)
class Sample:
    """A pair of sources, uint8 RGB [H, W, 3]."""

    name: str
    x: Frame
    y: Frame


@dataclass(frozen=True)
class Samples:
    """`fit` to learn from, `held` to judge by, and a line for each pair that was left out."""

    fit: list[Sample]
    held: list[Sample]
    skipped: list[str] = field(default_factory=list)


def read_samples(
    found: Sequence[PairPaths],
    size: tuple[int, int],
    *,
    most: int,
    least: int,
    seed: int,
) -> Samples:
    """Read up to `most` of the pairs, as `read_pairs` does, and hold a third of them out (at least one).

    Pairs of two sizes are skipped, too: they are not registered.
    """
    samples, skipped = read_pairs(found, size, most=most, least=least, seed=seed, one_size=True)
    held = max(1, round(len(samples) / 3))
    return Samples(samples[held:], samples[:held], skipped)


def read_pairs(
    found: Sequence[PairPaths], size: tuple[int, int], *, most: int, least: int, seed: int, one_size: bool
) -> tuple[list[Sample], list[str]]:
    """Up to `most` of the pairs, chosen by `seed`, and a line for each that was left out.

    `size`: (height, width) that each image is resized to. Pairs that cannot be read, show one flat colour, or, with
    `one_size`, differ in size are skipped, and others take their place. The same pairs and seed give the same samples.
    Raises InputError when fewer than `least` are left.
    """
    samples: list[Sample] = []
    skipped: list[str] = []
    for index in np.random.default_rng(seed).permutation(len(found)):
        if len(samples) == most:
            break
        pair = found[int(index)]
        try:
            samples.append(_read(pair, size, one_size))
        except InputError as error:
            skipped.append(f"{pair.name}: {error}")
    check_count(len(samples), len(found), least, skipped)
    return samples, skipped


def check_count(count: int, given: int, least: int, skipped: Sequence[str] = ()) -> None:
    """Raise InputError when `count` of `given` pairs are fewer than `least`."""
    if count < least:
        reasons = f"; left out: {'; '.join(skipped[:3])}" if skipped else ""
        raise InputError(
            f"{count} of {given} pairs can be used, at least {least} are needed (16 or more are better): give more "
            f"pairs{reasons}"
        )


def _read(pair: PairPaths, size: tuple[int, int], one_size: bool) -> Sample:
    x, y = read_frame(pair.x), read_frame(pair.y)
    if one_size and x.shape[:2] != y.shape[:2]:
        (h, w), (other_h, other_w) = x.shape[:2], y.shape[:2]
        raise InputError(f"x is {w}x{h} and y {other_w}x{other_h}, expected one size")
    for name, frame in ((X, x), (Y, y)):
        if int(frame.max()) - int(frame.min()) <= FLAT:
            raise InputError(f"{name} is one flat colour, which tells nothing")
    x, y = (frame if frame.shape[:2] == size else resize_frame(frame, size) for frame in (x, y))
    return Sample(pair.name, x, y)


def aligned(bundle: Bundle, samples: Samples) -> Samples:
    """The samples as the Fuser has them fused where the bundle aligns its sources."""
    alignment = bundle.alignment
    if alignment is None:
        return samples
    warp = Warp.of(alignment, (bundle.contract.height, bundle.contract.width))

    def move(sample: Sample) -> Sample:
        if alignment.source == X:
            return replace(sample, x=warp(sample.x))
        return replace(sample, y=warp(sample.y))

    return replace(samples, fit=list(map(move, samples.fit)), held=list(map(move, samples.held)))


def graph_inputs(
    bundle: Bundle, sample: Sample, scale: float | None = None, shift: float | None = None
) -> dict[str, NDArray[np.generic]]:
    """What the graph of `bundle` takes for a sample of its size; a batch is the one pair repeated.

    `scale`, `shift`: alpha and beta of Eq. 8, the bundle's default when None.
    """
    contract = bundle.contract
    grid = (contract.batch, *contract.grid)
    default_scale, default_shift = bundle.default_prompt
    inputs: dict[str, NDArray[np.generic]] = {
        PROMPT_SCALE: np.full(grid, default_scale if scale is None else scale, np.float32),
        PROMPT_SHIFT: np.full(grid, default_shift if shift is None else shift, np.float32),
    }
    for name, frame, channels in ((X, sample.x, contract.x_channels), (Y, sample.y, contract.y_channels)):
        ready = to_frame(frame, name, channels)
        if channels == 3 and bundle.channel_order == "bgr":
            ready = ready[..., ::-1]
        inputs[name] = np.ascontiguousarray(np.repeat(ready[None], contract.batch, 0))
    return inputs


def rgb_of(bundle: Bundle, fused: NDArray[np.uint8]) -> Frame:
    """RGB [H, W, 3] of the first frame of a graph's `fused` [B, H, W, 3]."""
    frame = fused[0]
    return np.ascontiguousarray(frame[..., ::-1]) if bundle.channel_order == "bgr" else frame
