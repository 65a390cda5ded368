"""Bringing sample pairs to the frame of a graph as the Fuser does: alignment, tiles, padding or resizing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tcmoa_calibration.sample_pairs import PairSplit, SamplePair, read_split, shows_structure
from tcmoa_runtime.alignment import Warp
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import X
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fit import TilePlan, plan_tiles
from tcmoa_runtime.images import format_size, resize_frame
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.size_errors import FrameSizeError
from tcmoa_runtime.typing import FitMode, Frame, FrameSize


class SampleFit:
    """Turns pairs of any size into samples of a bundle's frame.

    Where the Fuser cuts a frame into tiles, the samples are some of these tiles: what the graph will see, at its own
    scale. Smaller frames are padded with their edge pixels.
    """

    def __init__(self, bundle: Bundle, fit: FitMode, max_tiles: int, seed: int) -> None:
        """Prepare for a bundle.

        Args:
            bundle: The bundle whose frame, tokens and alignment apply.
            fit: How frames of another size are fused, see `Fuser.load`.
            max_tiles: Largest number of tiles of a pair that become samples.
            seed: Seed of the choice of tiles.
        """
        self._bundle, self._fit = bundle, fit
        self._max_tiles, self._random = max_tiles, np.random.default_rng(seed)

    @property
    def takes_two_sizes(self) -> bool:
        """Whether the two images of a pair may differ in size."""
        return self._bundle.alignment is not None

    def __call__(self, pair: SamplePair) -> list[SamplePair]:
        """Return samples [h, w, 3] of the bundle's size.

        Raises:
            FrameSizeError: Frames of this size are refused.
            InputError: No tile shows structure in both sources.
        """
        size = pair.x.shape[0], pair.x.shape[1]
        plan = self._plan(size)
        if self._fit == "exact" and pair.y.shape[:2] != size:
            raise self._wrong_size((pair.y.shape[0], pair.y.shape[1]))
        target = self._bundle.size if plan is None else size
        x, y = self._align(
            *(f if f.shape[:2] == target else resize_frame(f, target) for f in (pair.x, pair.y))
        )
        if plan is None:
            return [replace(pair, x=x, y=y)]
        tiles = zip(plan.corners(), plan.cut(x), plan.cut(y), strict=True)
        usable = [tile for tile in tiles if shows_structure(tile[1]) and shows_structure(tile[2])]
        if not usable:
            raise InputError("no tile shows structure in both sources")
        chosen = self._random.permutation(len(usable))[: self._max_tiles]
        return [self._tile(pair, *usable[index]) for index in sorted(chosen)]

    def _tile(self, pair: SamplePair, corner: tuple[int, int], x: Frame, y: Frame) -> SamplePair:
        top, left = corner
        name = f"{pair.name} at {left},{top}"
        return SamplePair(name, np.ascontiguousarray(x), np.ascontiguousarray(y), of_pair=pair.name)

    def _plan(self, size: FrameSize) -> TilePlan | None:
        own, can_tile = self._bundle.size, self._bundle.can_tile
        resizes = self._fit == "resize" or (self._fit == "auto" and not can_tile)
        if size == own or resizes:
            return None
        is_larger = size[0] > own[0] or size[1] > own[1]
        if self._fit == "exact" or not can_tile or (self._fit == "pad" and is_larger):
            raise self._wrong_size(size)
        return plan_tiles(size, own, self._bundle.tile_step, self._bundle.window_pixels)

    def _align(self, x: Frame, y: Frame) -> tuple[Frame, Frame]:
        alignment = self._bundle.alignment
        if alignment is None:
            return x, y
        size = x.shape[0], x.shape[1]
        warp = Warp(alignment.matrix_at(self._bundle.size, size), size)
        return (warp(x), y) if alignment.source == X else (x, warp(y))

    def _wrong_size(self, size: FrameSize) -> FrameSizeError:
        limit = "at most " if self._fit == "pad" else ""
        return FrameSizeError(size, f"{limit}{format_size(self._bundle.size)}, the size of the bundle")


def read_fitted_split(
    bundle: Bundle,
    found: Sequence[PairPaths],
    fit: FitMode,
    max_pairs: int,
    min_pairs: int,
    seed: int,
    *,
    one_each: bool = False,
) -> PairSplit:
    """Read and split pairs as the Fuser brings them to the bundle's frame.

    Up to `max_pairs` pairs are read. Where they are cut, fewer pairs give more tiles each, so that there are at most
    about `max_pairs` samples. With `one_each` a pair gives one tile, so that samples are independent of each other.

    Raises:
        InputError: Fewer than `min_pairs` are usable.
    """
    num_pairs = max(min(max_pairs, len(found)), 1)
    make_samples = SampleFit(bundle, fit, 1 if one_each else max(1, max_pairs // num_pairs), seed)
    return read_split(
        found,
        bundle.size,
        max_pairs=max_pairs,
        min_pairs=min_pairs,
        seed=seed,
        fit=make_samples,
        same_size=not make_samples.takes_two_sizes,
    )
