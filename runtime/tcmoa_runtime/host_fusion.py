"""Fusing frames in host memory: conversion, fit to the graph's size, alignment, batches, and the way back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.alignment import Warp
from tcmoa_runtime.backends.base import Backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import (
    EXTREMES,
    FUSED,
    HELD_EXTREMES,
    OWN_EXTREMES,
    PROMPT,
    PROMPT_SCALE,
    PROMPT_SHIFT,
    Contract,
    X,
    Y,
)
from tcmoa_runtime.errors import InputError, NoPromptError
from tcmoa_runtime.fit import TilePlan, plan_tiles
from tcmoa_runtime.images import as_array, format_size, resize_frame, to_frame
from tcmoa_runtime.prompts import prompt_map
from tcmoa_runtime.size_errors import FrameSizeError
from tcmoa_runtime.typing import (
    DeviceArrayLike,
    FitMode,
    Frame,
    FrameSize,
    ImageLike,
    Percentiles,
    PromptLike,
    PromptMap,
    SourceName,
)

AnyImage: TypeAlias = ImageLike | DeviceArrayLike
"""An image that numpy can read; device memory only if its library copies it to the host."""

MAX_WARPS: Final = 8
"""Frame sizes whose lookup tables are kept; a table has 6 bytes per pixel, 50 MB for 4K."""

Prompts: TypeAlias = NDArray[np.float32]
"""Prompts of the K TC-MoAs after Eq. 8, float32 [K, 2, gh, gw]."""

Extremes: TypeAlias = NDArray[np.float32]
"""Minimum and maximum of the S pictures that a network stretches, float32 [S, 2]."""

Tile: TypeAlias = Mapping[str, NDArray[np.generic]]
"""Inputs of one run of the graph by name, without batch axes: x, y, and alpha and beta if the network has a prompt."""


@dataclass(frozen=True)
class HostResult:
    """What `HostFusion.fuse` returns, and results of one run of the graph.

    Attributes:
        fused: uint8 [H, W, 3] or [B, H, W, 3].
        prompt: float32 [K, 2, gh, gw] or [B, K, 2, gh, gw]; K is 0 for a graph without the prompt output.
        extremes: float32 [S, 2] or [B, S, 2]; S is 0 for a network that stretches no picture by its own extremes.
    """

    fused: Frame
    prompt: Prompts
    extremes: Extremes


class HostFusion:
    """Fuses frames of any size with a graph of one size.

    Safe to use from several threads.
    """

    def __init__(self, bundle: Bundle, backend: Backend, fit: FitMode, percentiles: Percentiles) -> None:
        """Prepare for a loaded bundle.

        Args:
            bundle: The bundle.
            backend: What runs its graph.
            fit: How frames of another size are fused.
            percentiles: What becomes black and white of 16-bit frames.
        """
        self._bundle, self._backend = bundle, backend
        self._fit, self._percentiles = fit, percentiles
        self._warps: dict[tuple[SourceName, FrameSize], Warp] = {}

    def grid_of(self, size: FrameSize) -> tuple[int, int]:
        """Return (gh, gw) of prompt maps for frames of `size` (height, width)."""
        plan = self._plan(size, "frames")
        return self._grid_of(plan)

    def aligned(self, frame: Frame, name: SourceName) -> Frame:
        """Warp a frame [H, W, C] of source `name` by the bundle's alignment, at its own size."""
        warp = self._warp(name, (frame.shape[0], frame.shape[1]))
        return frame if warp is None else warp(frame)

    def fuse(
        self,
        x: AnyImage,
        y: AnyImage,
        scale: PromptLike | None,
        shift: PromptLike | None,
        held: Extremes | None = None,
    ) -> HostResult:
        """Fuse frames [H, W, C], or batches [B, H, W, C].

        Args:
            x: The first source.
            y: The second source.
            scale: Alpha of Eq. 8; None: the bundle's default.
            shift: Beta of Eq. 8; None: the bundle's default.
            held: Extremes that pictures are stretched by, float32 [S, 2]; None: their own.

        Raises:
            InputError: A source or prompt has a wrong shape, size, type or value.
            NoPromptError: There is a prompt, but the network has none.
        """
        frames_x, is_single = _as_batch(x, X)
        frames_y, is_single_y = _as_batch(y, Y)
        if len(frames_x) != len(frames_y) or is_single != is_single_y:
            raise InputError(
                f"x has shape {_shape_of(x)} and y {_shape_of(y)}; expected the same number of frames"
            )
        contract = self._bundle.contract
        ready_x = [self._convert(frame, X, contract.x_channels) for frame in frames_x]
        ready_y = [self._convert(frame, Y, contract.y_channels) for frame in frames_y]
        size = ready_x[0].shape[0], ready_x[0].shape[1]
        self.check_sizes(size, (ready_y[0].shape[0], ready_y[0].shape[1]))
        plan = self._plan(size, X)
        maps = expand_prompts(self._bundle, scale, shift, len(frames_x), self._grid_of(plan))
        pairs = (self._fit_pair(fx, fy, plan) for fx, fy in zip(ready_x, ready_y, strict=True))
        runs = self._run(
            (
                tile
                for index, (fx, fy) in enumerate(pairs)
                for tile in _tiles(fx, fy, {name: map_[index] for name, map_ in maps.items()}, plan)
            ),
            held,
        )
        results = [_join(runs, plan) for _ in frames_x]
        fused = [self._restore(result.fused, size) for result in results]
        if is_single:
            return HostResult(fused[0], results[0].prompt, results[0].extremes)
        return HostResult(
            np.stack(fused),
            np.stack([result.prompt for result in results]),
            np.stack([result.extremes for result in results]),
        )

    def _plan(self, size: FrameSize, name: str) -> TilePlan | None:
        """Return the tiles for frames of `size`, or None where a frame is one run of the graph at its own size."""
        own = self._bundle.size
        if size == own or self._resizes:
            return None
        is_larger = size[0] > own[0] or size[1] > own[1]
        if self._fit == "exact" or not self._bundle.can_tile or (self._fit == "pad" and is_larger):
            raise self._wrong_size(size, name)
        return plan_tiles(size, own, self._bundle.tile_step, self._bundle.window_pixels)

    def _grid_of(self, plan: TilePlan | None) -> tuple[int, int]:
        """Return (gh, gw) of the prompt maps of a frame; (0, 0) if the network has no prompt."""
        return self._bundle.contract.grid if plan is None or not self._bundle.has_prompt else plan.grid

    @property
    def _resizes(self) -> bool:
        """Whether frames of another size are resized."""
        return self._fit == "resize" or (self._fit == "auto" and not self._bundle.can_tile)

    def _convert(self, image: Any, name: str, channels: int) -> Frame:
        """Convert an image to a frame of the graph's channels, at its own size."""
        order = self._bundle.channel_order
        return to_frame(image, name, channels, order=order, percentiles=self._percentiles)

    def check_sizes(self, x: FrameSize, y: FrameSize) -> None:
        """Check whether frames of two sizes, each (height, width), can be fused; raises InputError if not."""
        if self._resizes:
            return
        self._plan(x, X)
        if y == x:
            return
        if self._fit == "exact":
            raise self._wrong_size(y, Y)
        if self._bundle.alignment is None:
            raise InputError(
                f"{format_size(y)}; expected {format_size(x)}, the size of x",
                subject=Y,
                remedy="Register the two images first, or align the bundle with `tcmoa calibrate align`",
            )

    def _fit_pair(self, x: Frame, y: Frame, plan: TilePlan | None) -> tuple[Frame, Frame]:
        """Bring both sources to the size at which they are cut or fused, and align one of them."""
        size = self._bundle.size if plan is None else (plan.rows.length, plan.columns.length)
        x, y = (frame if frame.shape[:2] == size else resize_frame(frame, size) for frame in (x, y))
        return self.aligned(x, "x"), self.aligned(y, "y")

    def _warp(self, name: SourceName, size: FrameSize) -> Warp | None:
        """Return the warp of a source at a size; those of the last sizes are kept."""
        alignment = self._bundle.alignment
        if alignment is None or alignment.source != name:
            return None
        warp = self._warps.get((name, size))
        if warp is None:
            warp = Warp(alignment.matrix_at(self._bundle.size, size), size)
            if len(self._warps) >= MAX_WARPS:
                self._warps.clear()  # one operation, so that other threads may look up meanwhile
            self._warps[name, size] = warp
        return warp

    def _run(self, tiles: Iterator[Tile], held: Extremes | None) -> Iterator[HostResult]:
        """Run the graph over tiles in the bundle's batches.

        The last batch is padded with copies of its last tile, whose results are dropped.
        """
        contract = self._bundle.contract
        no_prompt = np.empty((0, 2, *contract.grid), np.float32)
        no_extremes = np.empty((0, 2), np.float32)
        constants = held_inputs(contract, held)
        while chunk := list(islice(tiles, contract.batch)):
            padded = chunk + [chunk[-1]] * (contract.batch - len(chunk))
            inputs = {name: np.stack([tile[name] for tile in padded]) for name in padded[0]}
            result = self._backend.infer({**inputs, **constants})
            fused, prompts, extremes = result[FUSED], result.get(PROMPT), result.get(EXTREMES)
            for index in range(len(chunk)):
                yield HostResult(
                    fused[index],
                    no_prompt if prompts is None else prompts[index],
                    no_extremes if extremes is None else extremes[index],
                )

    def _restore(self, fused: Frame, size: FrameSize) -> Frame:
        """Resize a result [h, w, 3] to the size of x, where frames were resized."""
        return fused if fused.shape[:2] == size else resize_frame(fused, size)

    def _wrong_size(self, size: FrameSize, name: str) -> InputError:
        arrived, expected = format_size(size), format_size(self._bundle.size)
        ways = "tile, pad or resize" if self._bundle.can_tile else "resize"
        limit = "at most " if self._fit == "pad" else ""
        return FrameSizeError(
            size,
            f"{limit}{expected}, the size of this bundle",
            subject=name,
            remedy=f"Set {{fit}} to {ways}, or export a bundle for {arrived}",
            settings={"fit": ...},
        )


def expand_prompts(
    bundle: Bundle, scale: PromptLike | None, shift: PromptLike | None, count: int, grid: tuple[int, int]
) -> dict[str, PromptMap]:
    """Return alpha and beta as maps [count, gh, gw], by the names of the graph; none if the network has no prompt.

    Args:
        bundle: Its default is used for None.
        scale: Alpha.
        shift: Beta.
        count: Number of frames.
        grid: (gh, gw).

    Raises:
        InputError: A prompt has a wrong shape, type or value.
        NoPromptError: There is a prompt, but the network has none.
    """
    given = {PROMPT_SCALE: scale, PROMPT_SHIFT: shift}
    if not bundle.has_prompt:
        for name, value in given.items():
            if value is not None:
                raise NoPromptError(name)
        return {}
    defaults = zip(given.items(), bundle.default_prompt, strict=True)
    return {
        name: prompt_map(default if value is None else value, name, count, grid)
        for (name, value), default in defaults
    }


def held_inputs(contract: Contract, held: Extremes | None) -> dict[str, NDArray[np.float32]]:
    """Return the input `held_extremes`, float32 [B, S, 2]; nothing for a graph that stretches no picture.

    Args:
        contract: Contract of the graph.
        held: float32 [S, 2]; None: each picture's own extremes.
    """
    if not contract.stretches:
        return {}
    shape = (contract.batch, contract.stretches, 2)
    values = np.asarray(OWN_EXTREMES if held is None else held, np.float32)
    return {HELD_EXTREMES: np.ascontiguousarray(np.broadcast_to(values, shape))}


def _tiles(x: Frame, y: Frame, maps: Mapping[str, PromptMap], plan: TilePlan | None) -> Iterator[Tile]:
    """Cut a pair and its prompt maps [gh, gw] into tiles; one tile where there is no plan."""
    if plan is None:
        yield {X: x, Y: y, **maps}
        return
    cuts = [plan.cut_map(map_) for map_ in maps.values()]
    for tile_x, tile_y, *parts in zip(plan.cut(x), plan.cut(y), *cuts, strict=True):
        yield {X: tile_x, Y: tile_y, **dict(zip(maps, parts, strict=True))}


def _join(runs: Iterator[HostResult], plan: TilePlan | None) -> HostResult:
    """Take the results of one frame's tiles and join them."""
    if plan is None:
        return next(runs)
    prompts: list[Prompts] = []

    def frames() -> Iterator[Frame]:
        for run in islice(runs, plan.count):
            prompts.append(run.prompt)
            yield run.fused

    joined = plan.blend(frames())
    # A graph that stretches pictures by their own extremes is not tiled.
    has_prompt = prompts[0].size > 0
    prompt = plan.blend_prompts(prompts) if has_prompt else np.empty((0, 2, *plan.grid), np.float32)
    return HostResult(joined, prompt, np.empty((0, 2), np.float32))


def _shape_of(image: object) -> list[int]:
    return list(np.asarray(image).shape)


def _as_batch(image: AnyImage, name: str) -> tuple[Sequence[Any], bool]:
    """Return a list of frames, and whether a single one was given."""
    array = as_array(image, name)
    if array.ndim != 4:
        return [image], True
    if not len(array):
        raise InputError(
            f"shape {list(array.shape)}, which holds no frame; expected one or more", subject=name
        )
    return list(array), False
