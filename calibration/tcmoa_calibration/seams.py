"""Seams and checkerboards: whether neighboring pixels differ more across the borders of a grid than elsewhere.

    from tcmoa_calibration.seams import border_steps, excess_steps, scan_offsets

    border_steps(fused, 8).ratio               # 1.0: borders of tokens of 8 px are like any other place
    excess_steps(x, y, fused, 112)             # the same for windows of 14 tokens, relative to the sources
    scan_offsets(fused, 112, (x, y)).z(56)     # does the grid of the shifted windows stand out among all offsets?

Border p of an axis lies between the pixels p - 1 and p, with p from 1 to side - 1. The grid of a period and an offset
has the borders p with p mod period = offset. Steps are |V(p) - V(p - 1)| of luma (BT.601, not rounded), in gray
levels from 0 to 255. An axis counts if it is longer than the period, so that the grid of every offset has a border in
it. The means over rows and over columns have the same weight: in a wide image one axis has more borders, and vertical
edges are more frequent than horizontal ones, neither of which is a seam.

Images are uint8 or uint16 (divided by 257), [H, W], [H, W, 1] or RGB [H, W, 3]. The content of an image affects the
ratio, the more the fewer borders the grid has (0.6 to 1.9 for photographs at period 112), and JPEG leaves a grid of 8
px in sources (ratios up to 1.9). `excess_steps` divides by the sources, `scan_offsets` compares with other offsets,
and `among` compares within a coarser grid.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tcmoa_calibration.luma import Plane, exact_luma
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.typing import ImageLike

MIN_STEP: Final = 0.01
"""Gray levels added to both parts of a ratio.

Makes 0 / 0 equal 1, and moves other ratios by a hundredth of their distance from 1 if the mean step is one gray level,
by less if it is larger.
"""

MIN_SPREAD: Final = 0.001
"""Smallest spread of ratios that a z-score is computed with, so that smooth images have finite ones."""

MAD_TO_SIGMA: Final = 1.4826
"""Standard deviation of a normal distribution whose median absolute deviation is 1."""


@dataclass(frozen=True)
class Steps:
    """Mean absolute differences between neighboring pixels, in gray levels.

    Attributes:
        borders: Across the borders of the grid.
        elsewhere: Across all other places of the same axes.
    """

    borders: float
    elsewhere: float

    @property
    def ratio(self) -> float:
        """(borders + 0.01) / (elsewhere + 0.01): 1 without seams, more with seams, less if borders are smoother."""
        return (self.borders + MIN_STEP) / (self.elsewhere + MIN_STEP)


@dataclass(frozen=True)
class Scan:
    """The grids of all offsets of one period.

    Attributes:
        ratios: ratios[offset] of the image; divided by the mean ratio of its sources if sources were given.
    """

    ratios: tuple[float, ...]

    def z(self, offset: int = 0, *, among: int = 1) -> float:
        """Compute how far a grid stands out: (its ratio - median of the others) / their spread.

        The spread is 1.4826 times the median absolute deviation, at least 0.001. Unlike a standard deviation, it does
        not grow with a second grid among the others.

        Args:
            offset: Offset of the grid.
            among: The others are the offsets that differ from it by multiples of this.

        Raises:
            InputError: There are no others.
        """
        own, others = self._split(offset, among)
        median = np.median(others)
        spread = MAD_TO_SIGMA * float(np.median(np.abs(others - median)))
        return float(own - median) / max(spread, MIN_SPREAD)

    def rank(self, offset: int = 0, *, among: int = 1) -> int:
        """Return 1 if none of the others, as in `z`, has a larger ratio, 2 if one has, and so on."""
        own, others = self._split(offset, among)
        return 1 + int(np.sum(others > own))

    def _split(self, offset: int, among: int) -> tuple[float, Plane]:
        grid = _Grid(len(self.ratios), offset, among)
        others = [o for o in range(grid.offset % grid.among, grid.period, grid.among) if o != grid.offset]
        return self.ratios[grid.offset], np.asarray([self.ratios[o] for o in others])


def border_steps(image: ImageLike, period: int, offset: int = 0, *, among: int = 1) -> Steps:
    """Measure the steps across every period-th border of rows and columns, and across all other places.

    Args:
        image: uint8 or uint16, [H, W], [H, W, 1] or RGB [H, W, 3].
        period: Distance of the borders in pixels, at least 2 and below the longer side.
        offset: Position of the first border, modulo the period.
        among: Compare only with the grid of this period, a smaller divisor of `period`. Period 112 among 8 separates
            seams of windows from the grid of tokens, or of JPEG, on which they lie.

    Raises:
        InputError: A parameter is out of range, or the image has another dtype or shape.
    """
    grid = _Grid(period, offset, among)
    return grid.steps(grid.profiles(exact_luma(image, "image"), "image"))


def excess_steps(
    x: ImageLike, y: ImageLike, fused: ImageLike, period: int, offset: int = 0, *, among: int = 1
) -> float:
    """Divide the ratio of the fused image by the mean ratio of its sources on the same grid: 1 if no seam was added.

    Args:
        x: First source, as in `border_steps`.
        y: Second source, of the same height and width.
        fused: Fused image, of the same height and width.
        period: As in `border_steps`.
        offset: As in `border_steps`.
        among: As in `border_steps`.

    Raises:
        InputError: As in `border_steps`, or the sizes of the images differ.
    """
    grid = _Grid(period, offset, among)
    profiles = _profiles_of_one_size({"x": x, "y": y, "fused": fused}, grid)
    ratio_x, ratio_y, ratio_fused = (grid.steps(axes).ratio for axes in profiles)
    return 2 * ratio_fused / (ratio_x + ratio_y)


def scan_offsets(image: ImageLike, period: int, sources: Sequence[ImageLike] = ()) -> Scan:
    """Compute the ratio of `border_steps` at each offset of a period, divided by the mean ratio of the sources, if any.

    Args:
        image: As in `border_steps`.
        period: As in `border_steps`.
        sources: Images of the same height and width.

    Raises:
        InputError: As in `border_steps`, or the sizes of the images differ.
    """
    grids = [_Grid(period, offset) for offset in range(_whole_number(period, "period", 2))]
    named = {"image": image} | {f"source {number}": source for number, source in enumerate(sources)}
    ratios = [
        [grid.steps(profiles).ratio for grid in grids] for profiles in _profiles_of_one_size(named, grids[0])
    ]
    own = np.asarray(ratios[0])
    return Scan(tuple((own / np.mean(ratios[1:], axis=0) if ratios[1:] else own).tolist()))


class _Grid:
    """A checked period and offset, and the borders to compare with."""

    def __init__(self, period: int, offset: int, among: int = 1) -> None:
        self.period = _whole_number(period, "period", 2)
        self.offset = _whole_number(offset, "offset") % self.period
        self.among = _whole_number(among, "among", 1)
        if self.among == self.period or self.period % self.among:
            raise InputError(f"{among}; expected a smaller divisor of the period, {period}", subject="among")

    def profiles(self, luma: Plane, name: str) -> list[Plane]:
        """Return the mean steps [side - 1] across each border of each axis that is longer than the period."""
        h, w = luma.shape
        if max(h, w) <= self.period:
            raise InputError(
                f"{w}x{h} with period {self.period}; expected a period below the longer side, {max(h, w)}",
                subject=name,
            )
        axes = [axis for axis in (0, 1) if luma.shape[axis] > self.period]
        return [np.abs(np.diff(luma, axis=axis)).mean(axis=1 - axis) for axis in axes]

    def steps(self, profiles: list[Plane]) -> Steps:
        borders, elsewhere = [], []
        for profile in profiles:
            places = np.arange(1, len(profile) + 1) - self.offset
            is_border = places % self.period == 0
            borders.append(profile[is_border].mean())
            elsewhere.append(profile[~is_border & (places % self.among == 0)].mean())
        return Steps(float(np.mean(borders)), float(np.mean(elsewhere)))


def _profiles_of_one_size(images: dict[str, ImageLike], grid: _Grid) -> list[list[Plane]]:
    lumas = {name: exact_luma(image, name) for name, image in images.items()}
    if len({luma.shape for luma in lumas.values()}) > 1:
        listed = ", ".join(f"{name} {luma.shape[1]}x{luma.shape[0]}" for name, luma in lumas.items())
        raise InputError(f"sizes differ: {listed}; expected one size", remedy="Resize the images first")
    return [grid.profiles(luma, name) for name, luma in lumas.items()]


def _whole_number(value: int, name: str, minimum: int | None = None) -> int:
    try:
        whole = operator.index(value)
    except TypeError as error:
        raise InputError(f"{value!r}; expected a whole number", subject=name) from error
    if minimum is not None and whole < minimum:
        raise InputError(f"{whole}; expected at least {minimum}", subject=name)
    return whole
