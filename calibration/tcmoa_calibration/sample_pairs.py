"""Sample pairs for calibration: reading, resizing, checking, and splitting into fit and held-out pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.alignment import Warp
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import PROMPT_SCALE, PROMPT_SHIFT, X, Y
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import format_size, in_order, read_frame, resize_frame, to_frame
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.typing import Frame, FrameSize

MAX_UNIFORM_RANGE = 2
"""Gray levels between the darkest and the brightest value of an image that counts as a single color."""


@dataclass(frozen=True)
class SamplePair:
    """Two sources of one scene, uint8 RGB [H, W, 3]."""

    name: str
    x: Frame
    y: Frame


@dataclass(frozen=True)
class PairSplit:
    """Pairs for estimating (`fit`), pairs for validating (`held_out`), and why others were skipped."""

    fit: list[SamplePair]
    held_out: list[SamplePair]
    skipped: list[str]
    """`name: reason` of each pair that was not used."""


def read_split(
    found: Sequence[PairPaths], size: FrameSize, *, max_pairs: int, min_pairs: int, seed: int
) -> PairSplit:
    """Read pairs of equal sizes and hold out a third of them, at least one.

    Args:
        found: Where the pairs are.
        size: (height, width) that each image is resized to.
        max_pairs: Number of pairs after which reading stops.
        min_pairs: Number of pairs that are required.
        seed: Seed of the order of the pairs, and so of the choice of the held-out ones.

    Raises:
        InputError: Fewer than `min_pairs` are usable.
    """
    pairs, skipped = read_sample_pairs(
        found, size, max_pairs=max_pairs, min_pairs=min_pairs, seed=seed, same_size=True
    )
    num_held_out = max(1, round(len(pairs) / 3))
    return PairSplit(pairs[num_held_out:], pairs[:num_held_out], skipped)


def read_sample_pairs(
    found: Sequence[PairPaths],
    size: FrameSize,
    *,
    max_pairs: int,
    min_pairs: int,
    seed: int,
    same_size: bool,
) -> tuple[list[SamplePair], list[str]]:
    """Read up to `max_pairs` pairs in an order that `seed` determines.

    Pairs that cannot be read, that show a single color, or, with `same_size`, whose images differ in size are skipped,
    and the next ones take their place.

    Returns:
        The pairs, resized to `size` (height, width), and `name: reason` of each pair that was skipped.

    Raises:
        InputError: Fewer than `min_pairs` are usable.
    """
    pairs: list[SamplePair] = []
    skipped: list[str] = []
    for index in np.random.default_rng(seed).permutation(len(found)):
        if len(pairs) == max_pairs:
            break
        paths = found[int(index)]
        try:
            pairs.append(_read_pair(paths, size, same_size))
        except InputError as error:
            skipped.append(f"{paths.name}: {error}")
    check_pair_count(len(pairs), len(found), min_pairs, skipped)
    return pairs, skipped


def check_pair_count(num_usable: int, num_found: int, min_pairs: int, skipped: Sequence[str] = ()) -> None:
    """Raise InputError when fewer than `min_pairs` pairs are usable."""
    if num_usable < min_pairs:
        reasons = f" Skipped: {'; '.join(skipped[:3])}" if skipped else ""
        raise InputError(
            f"{num_usable} of {num_found} are usable; expected at least {min_pairs}",
            subject="pairs",
            remedy=f"Provide more pairs; 16 or more are better.{reasons}",
        )


def _read_pair(paths: PairPaths, size: FrameSize, same_size: bool) -> SamplePair:
    x, y = read_frame(paths.x), read_frame(paths.y)
    if same_size and x.shape[:2] != y.shape[:2]:
        raise InputError(f"x is {format_size(x.shape)}, y is {format_size(y.shape)}; expected equal sizes")
    for name, frame in ((X, x), (Y, y)):
        if int(frame.max()) - int(frame.min()) <= MAX_UNIFORM_RANGE:
            raise InputError(f"{name} shows a single color; expected an image with structure")
    x, y = (frame if frame.shape[:2] == size else resize_frame(frame, size) for frame in (x, y))
    return SamplePair(paths.name, x, y)


def align_split(bundle: Bundle, split: PairSplit) -> PairSplit:
    """Apply the bundle's alignment to all pairs, as the Fuser does before it fuses."""
    alignment = bundle.alignment
    if alignment is None:
        return split
    warp = Warp.from_alignment(alignment, (bundle.contract.height, bundle.contract.width))

    def align(pair: SamplePair) -> SamplePair:
        if alignment.source == X:
            return replace(pair, x=warp(pair.x))
        return replace(pair, y=warp(pair.y))

    return replace(split, fit=list(map(align, split.fit)), held_out=list(map(align, split.held_out)))


def graph_inputs(
    bundle: Bundle, pair: SamplePair, scale: float | None = None, shift: float | None = None
) -> dict[str, NDArray[np.generic]]:
    """Return the inputs of the bundle's graph for a pair of the bundle's frame size.

    Args:
        bundle: The bundle whose contract and channel order apply.
        pair: The sources. A graph with a batch gets the same pair in each place.
        scale: Alpha of Eq. 8; None: the bundle's default.
        shift: Beta of Eq. 8; None: the bundle's default.
    """
    contract = bundle.contract
    grid = (contract.batch, *contract.grid)
    default_scale, default_shift = bundle.default_prompt
    inputs: dict[str, NDArray[np.generic]] = {
        PROMPT_SCALE: np.full(grid, default_scale if scale is None else scale, np.float32),
        PROMPT_SHIFT: np.full(grid, default_shift if shift is None else shift, np.float32),
    }
    for name, frame, channels in ((X, pair.x, contract.x_channels), (Y, pair.y, contract.y_channels)):
        image = to_frame(frame, name, channels)
        if channels == 3:
            image = in_order(image, bundle.channel_order)
        inputs[name] = np.ascontiguousarray(np.repeat(image[None], contract.batch, 0))
    return inputs


def fused_to_rgb(bundle: Bundle, fused: NDArray[np.uint8]) -> Frame:
    """Return the first frame of a graph's output `fused` [B, H, W, 3] as RGB [H, W, 3]."""
    return in_order(fused[0], bundle.channel_order)
