"""Sample pairs for calibration: reading, checking, and splitting into fit and held-out pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import X, Y
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.host_fusion import expand_prompts, held_inputs
from tcmoa_runtime.images import format_size, in_order, read_frame, resize_frame, to_frame
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.typing import Frame, FrameSize

MAX_UNIFORM_RANGE = 2
"""Gray levels between the darkest and the brightest value of an image that counts as a single color."""


@dataclass(frozen=True)
class SamplePair:
    """Two sources of one scene, uint8 RGB [H, W, 3], or a tile of both.

    Attributes:
        name: Name of the pair, and of a tile its place in it.
        x: The first source.
        y: The second source.
        of_pair: Of a tile, the name of the pair that it was cut from.
    """

    name: str
    x: Frame
    y: Frame
    of_pair: str | None = None


@dataclass(frozen=True)
class PairSplit:
    """Pairs for estimating (`fit`), pairs for validating (`held_out`), and why others were skipped."""

    fit: list[SamplePair]
    held_out: list[SamplePair]
    skipped: list[str]
    """`name: reason` of each pair that was not used."""

    @property
    def are_tiles(self) -> bool:
        """Whether any sample is a tile of a larger pair."""
        return any(sample.of_pair is not None for sample in (*self.fit, *self.held_out))


def read_split(
    found: Sequence[PairPaths],
    size: FrameSize,
    *,
    max_pairs: int,
    min_pairs: int,
    seed: int,
    fit: Callable[[SamplePair], list[SamplePair]] | None = None,
    same_size: bool = True,
) -> PairSplit:
    """Read pairs and hold out a third of them, at least one; tiles of one pair stay together.

    Args:
        found: Where the pairs are.
        size: (height, width) that each image is resized to if `fit` is None.
        max_pairs: Number of pairs after which reading stops.
        min_pairs: Number of pairs that are required.
        seed: Seed of the order of the pairs, and so of the choice of the held-out ones.
        fit: Makes samples of a pair of any size, see `SampleFit`.
        same_size: Whether pairs whose images differ in size are skipped.

    Raises:
        InputError: Fewer than `min_pairs` are usable.
    """
    groups, skipped = _read_samples(
        found,
        fit or (lambda pair: [_resized(pair, size)]),
        max_pairs=max_pairs,
        min_pairs=min_pairs,
        seed=seed,
        same_size=same_size,
    )
    num_held_out = max(1, round(len(groups) / 3))
    held_out, fitted = groups[:num_held_out], groups[num_held_out:]
    return PairSplit(
        [s for group in fitted for s in group], [s for group in held_out for s in group], skipped
    )


def count_samples(samples: Sequence[SamplePair]) -> str:
    """Describe how many samples there are, e.g. `16 pairs`, or `24 tiles of 6 pairs`."""
    pairs = {sample.of_pair or sample.name for sample in samples}
    if not any(sample.of_pair for sample in samples):
        return f"{len(samples)} pairs"
    return f"{len(samples)} tiles of {len(pairs)} pairs"


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
    groups, skipped = _read_samples(
        found,
        lambda pair: [_resized(pair, size)],
        max_pairs=max_pairs,
        min_pairs=min_pairs,
        seed=seed,
        same_size=same_size,
    )
    return [sample for group in groups for sample in group], skipped


def _read_samples(
    found: Sequence[PairPaths],
    fit: Callable[[SamplePair], list[SamplePair]],
    *,
    max_pairs: int,
    min_pairs: int,
    seed: int,
    same_size: bool,
) -> tuple[list[list[SamplePair]], list[str]]:
    """Read pairs as `read_sample_pairs` does; returns the samples of each pair, and why others were skipped."""
    groups: list[list[SamplePair]] = []
    skipped: list[str] = []
    for index in np.random.default_rng(seed).permutation(len(found)):
        if len(groups) == max_pairs:
            break
        paths = found[int(index)]
        try:
            groups.append(fit(_read_pair(paths, same_size)))
        except InputError as error:
            skipped.append(f"{paths.name}: {error}")
    check_pair_count(len(groups), len(found), min_pairs, skipped)
    return groups, skipped


def check_pair_count(num_usable: int, num_found: int, min_pairs: int, skipped: Sequence[str] = ()) -> None:
    """Raise InputError when fewer than `min_pairs` pairs are usable."""
    if num_usable < min_pairs:
        reasons = f" Skipped: {'; '.join(skipped[:3])}" if skipped else ""
        raise InputError(
            f"{num_usable} of {num_found} are usable; expected at least {min_pairs}",
            subject="pairs",
            remedy=f"Provide more pairs; 16 or more are better.{reasons}",
        )


def _read_pair(paths: PairPaths, same_size: bool) -> SamplePair:
    x, y = read_frame(paths.x), read_frame(paths.y)
    if same_size and x.shape[:2] != y.shape[:2]:
        raise InputError(f"x is {format_size(x.shape)}, y is {format_size(y.shape)}; expected equal sizes")
    for name, frame in ((X, x), (Y, y)):
        if not shows_structure(frame):
            raise InputError(f"{name} shows a single color; expected an image with structure")
    return SamplePair(paths.name, x, y)


def shows_structure(frame: Frame) -> bool:
    """Whether a frame shows more than a single color."""
    return int(frame.max()) - int(frame.min()) > MAX_UNIFORM_RANGE


def _resized(pair: SamplePair, size: FrameSize) -> SamplePair:
    x, y = (frame if frame.shape[:2] == size else resize_frame(frame, size) for frame in (pair.x, pair.y))
    return replace(pair, x=x, y=y)


def graph_inputs(
    bundle: Bundle, pair: SamplePair, scale: float | None = None, shift: float | None = None
) -> dict[str, NDArray[np.generic]]:
    """Return the inputs of the bundle's graph for a pair of the bundle's frame size.

    Args:
        bundle: The bundle whose contract and channel order apply.
        pair: The sources. A graph with a batch gets the same pair in each place.
        scale: Alpha of Eq. 8; None: the bundle's default.
        shift: Beta of Eq. 8; None: the bundle's default.

    Raises:
        NoPromptError: There is a prompt, but the network has none.
    """
    contract = bundle.contract
    inputs: dict[str, NDArray[np.generic]] = {
        **expand_prompts(bundle, scale, shift, contract.batch, contract.grid),
        **held_inputs(contract, None),
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
