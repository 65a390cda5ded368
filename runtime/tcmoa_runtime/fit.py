"""Fitting frames of any size to the one size of a graph: padding, and tiles that are blended.

A frame is cut into tiles of the graph's size that overlap. Along each axis every pixel has a weight in each tile that
covers it: a smooth step (3u^2 - 2u^3) over the overlap. The weights are integers with a fixed sum, so that blending is
integer arithmetic and gives the same bytes everywhere.

Tiles start at multiples of an attention window, so that windows lie as they do at the frame's own size: with `nano`,
the PSNR to the own size is up to 14 dB higher than with tiles at any token. Where a tile holds fewer than two windows,
they start at multiples of a token. Prompt maps are cut along with the frames. Where a frame is smaller than the graph,
or the last tile reaches beyond it, its edge pixels are repeated, and the result is cropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.typing import FitMode, Frame, FrameSize, PromptMap

ScalarT = TypeVar("ScalarT", np.uint8, np.float32)

FIT_MODES: Final[tuple[FitMode, ...]] = get_args(FitMode)

OVERLAP_PX: Final = 80
"""Least overlap of neighboring tiles in pixels; half a tile if that is less."""
WEIGHT_BITS: Final = 12
WEIGHT_SUM: Final = 1 << WEIGHT_BITS
"""Sum of the weights of a pixel along one axis."""


@dataclass(frozen=True)
class AxisPlan:
    """How one axis of a frame is covered.

    Attributes:
        length: Length of the frame in pixels.
        tile: Length of a tile in pixels.
        starts: First pixel of each tile, multiples of a window or of a token.
        overlap: Overlap of neighboring tiles, in pixels, over which they are blended.
    """

    length: int
    tile: int
    starts: tuple[int, ...]
    overlap: int

    @property
    def padded(self) -> int:
        """Length that the tiles cover, at least `length`."""
        return self.starts[-1] + self.tile

    @cached_property
    def weights(self) -> NDArray[np.int64]:
        """Weights [tiles, tile] of pixel `starts[i] + j` in tile i; those of a pixel sum to `WEIGHT_SUM`."""
        ramps = np.stack([self._ramp(index) for index in range(len(self.starts))])
        totals = np.zeros(self.padded, np.int64)
        for start, ramp in zip(self.starts, ramps, strict=True):
            totals[start : start + self.tile] += ramp
        weights = np.zeros_like(ramps)
        rest = np.full(self.padded, WEIGHT_SUM, np.int64)
        for index, (start, ramp) in enumerate(zip(self.starts, ramps, strict=True)):
            span = slice(start, start + self.tile)
            weights[index] = ramp * WEIGHT_SUM // totals[span]
            rest[span] -= weights[index]
        for index, start in enumerate(
            self.starts
        ):  # what rounding left over goes to the first tile of a pixel
            span = slice(start, start + self.tile)
            weights[index] += rest[span]
            rest[span] = 0
        return weights

    def _ramp(self, index: int) -> NDArray[np.int64]:
        """Rise over the overlap with the tile before, 1 between, and fall over the overlap with the tile after."""
        pixels = np.arange(self.tile, dtype=np.int64)
        overlap = max(self.overlap, 1)
        distance = np.full(self.tile, overlap, np.int64)
        if index > 0:
            distance = np.minimum(distance, pixels + 1)
        if index < len(self.starts) - 1:
            distance = np.minimum(distance, self.tile - pixels)
        return distance * distance * (3 * overlap - 2 * distance)


def plan_axis(
    length: int, tile: int, token: int, window: int | None = None, overlap: int = OVERLAP_PX
) -> AxisPlan:
    """Plan the tiles along one axis.

    Args:
        length: Length of the frame in pixels.
        tile: Length of a tile in pixels.
        token: Length of a token in pixels.
        window: Length of an attention window in pixels, a multiple of `token`; None: one token.
        overlap: Least overlap of neighboring tiles in pixels; at most half a tile is used.
    """
    overlap = min(overlap, tile // 2)
    if length <= tile:
        return AxisPlan(length, tile, (0,), 0)
    unit = token if window is None or 2 * window > tile else window
    last = math.ceil((length - tile) / unit) * unit
    longest_step = max((tile - overlap) // unit * unit, unit)
    count = math.ceil(last / longest_step) + 1
    starts = tuple(round(index * last / (count - 1) / unit) * unit for index in range(count))
    steps = [after - before for before, after in pairwise(starts)]
    return AxisPlan(length, tile, starts, tile - max(steps))


@dataclass(frozen=True)
class TilePlan:
    """How a frame [H, W, C] is covered by tiles of a graph's size.

    Attributes:
        rows: The vertical axis.
        columns: The horizontal axis.
        token: Side of a token in pixels.
    """

    rows: AxisPlan
    columns: AxisPlan
    token: int

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens (gh, gw) of the frame's prompt maps."""
        return math.ceil(self.rows.length / self.token), math.ceil(self.columns.length / self.token)

    @property
    def tile_grid(self) -> tuple[int, int]:
        """Tokens (gh, gw) of a tile's prompt maps."""
        return math.ceil(self.rows.tile / self.token), math.ceil(self.columns.tile / self.token)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.rows.starts) * len(self.columns.starts)

    def corners(self) -> Iterator[tuple[int, int]]:
        """Yield (top, left) of the tiles in pixels, row by row."""
        return ((top, left) for top in self.rows.starts for left in self.columns.starts)

    def cut(self, frame: Frame) -> Iterator[Frame]:
        """Cut a frame [H, W, C] into tiles [h, w, C], row by row; they are views where nothing was padded."""
        padded = _pad_edges(frame, (self.rows.padded, self.columns.padded))
        height, width = self.rows.tile, self.columns.tile
        return (padded[top : top + height, left : left + width] for top, left in self.corners())

    def cut_map(self, prompt: PromptMap) -> list[PromptMap]:
        """Cut a prompt map [gh, gw] of the frame into maps of the tiles, row by row."""
        height, width = self.tile_grid
        rows = self.rows.starts[-1] // self.token + height
        columns = self.columns.starts[-1] // self.token + width
        padded = _pad_edges(prompt, (rows, columns))
        corners = ((top // self.token, left // self.token) for top, left in self.corners())
        return [
            np.ascontiguousarray(padded[top : top + height, left : left + width]) for top, left in corners
        ]

    def blend(self, tiles: Iterable[Frame]) -> Frame:
        """Join fused tiles [h, w, 3], row by row, to a frame [H, W, 3]; integer arithmetic, rounded half up."""
        height, width = self.rows.tile, self.columns.tile
        # 255 * 2**24 and the half fit into 32 bits.
        total = np.full((self.rows.padded, self.columns.padded, 3), 1 << (2 * WEIGHT_BITS - 1), np.uint32)
        for (i, j), (top, left), tile in zip(self._indices(), self.corners(), tiles, strict=True):
            weights = self.rows.weights[i][:, None] * self.columns.weights[j][None]
            total[top : top + height, left : left + width] += weights.astype(np.uint32)[..., None] * tile
        joined = total[: self.rows.length, : self.columns.length] >> (2 * WEIGHT_BITS)
        return joined.astype(np.uint8)

    def blend_prompts(self, prompts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Join prompts [K, 2, h, w] of tiles to [K, 2, gh, gw] of the frame, weighted as pixels at token centers."""
        height, width = self.tile_grid
        rows = self.rows.starts[-1] // self.token + height
        columns = self.columns.starts[-1] // self.token + width
        total = np.zeros((*prompts[0].shape[:2], rows, columns), np.float64)
        sums = np.zeros((rows, columns), np.float64)
        for (i, j), (top, left), prompt in zip(self._indices(), self.corners(), prompts, strict=True):
            weight_rows = _at_centers(self.rows.weights[i], self.token, height)
            weight_columns = _at_centers(self.columns.weights[j], self.token, width)
            weights = (weight_rows[:, None] * weight_columns[None]).astype(np.float64)
            span = np.s_[..., top // self.token :, left // self.token :]
            total[span][..., :height, :width] += weights * prompt
            sums[span][:height, :width] += weights
        gh, gw = self.grid
        return np.ascontiguousarray((total / sums)[..., :gh, :gw].astype(np.float32))

    def _indices(self) -> Iterator[tuple[int, int]]:
        return ((i, j) for i in range(len(self.rows.starts)) for j in range(len(self.columns.starts)))


def plan_tiles(
    frame: FrameSize, tile: FrameSize, token: int, window: int | None = None, overlap: int = OVERLAP_PX
) -> TilePlan:
    """Plan how a frame is covered by tiles.

    Args:
        frame: (height, width) of the frame.
        tile: (height, width) of the graph.
        token: Side of a token in pixels.
        window: Side of an attention window in pixels; None: one token.
        overlap: Least overlap of neighboring tiles in pixels.
    """
    rows, columns = (plan_axis(frame[i], tile[i], token, window, overlap) for i in (0, 1))
    return TilePlan(rows, columns, token)


def _pad_edges(array: NDArray[ScalarT], size: FrameSize) -> NDArray[ScalarT]:
    """Repeat the last row and column of an array [H, W, ...] up to `size`."""
    if array.shape[:2] == size:
        return array
    rows = np.minimum(np.arange(size[0]), array.shape[0] - 1)
    columns = np.minimum(np.arange(size[1]), array.shape[1] - 1)
    padded: NDArray[ScalarT] = array[rows[:, None], columns]
    return padded


def _at_centers(weights: NDArray[np.int64], token: int, count: int) -> NDArray[np.int64]:
    """Weights of the pixels at the centers of `count` tokens."""
    centers = np.minimum(np.arange(count) * token + token // 2, len(weights) - 1)
    return weights[centers]
