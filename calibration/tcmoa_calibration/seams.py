"""Seams and checkerboards: whether neighbouring pixels differ more across the borders of a grid than elsewhere.

    from tcmoa_calibration.seams import border_steps, excess_steps, scan_offsets

    border_steps(fused, 8).ratio               # 1.0: the borders of tokens, 8 pixels wide, are as any other place
    excess_steps(x, y, fused, 112)             # the same for windows of 14 tokens, held against the sources' own
    scan_offsets(fused, 112, (x, y)).z(56)     # does the grid of the shifted windows stand out among all offsets?

The border p of an axis lies between pixels p - 1 and p, p from 1 to side - 1; the grid of a period and an offset has
the borders p with p mod period = offset. Steps are |V(p) - V(p - 1)| of luma (BT.601, not rounded), in grey levels of
0..255. An axis counts if it is longer than the period, so that the grid of any offset has a border there. The means
over rows and over columns weigh the same: of a long image, one axis has more borders, and vertical edges are more
frequent than horizontal ones, which must not look like a seam.

Images are uint8 or uint16 (divided by 257), [H, W], [H, W, 1] or RGB [H, W, 3]. Content weighs on the ratio, the more
the fewer the borders (0.6 .. 1.9 for photographs at period 112), and JPEG leaves a grid of 8 in sources (up to 1.9):
thus `excess_steps`, thus the scan, and thus `among`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tcmoa_calibration.luma import exact_luma
from tcmoa_calibration.metrics.frames import Plane
from tcmoa_runtime.errors import InputError

LEAST_STEP: Final = 0.01
"""Grey levels added to both parts of a ratio: settles 0 / 0 at 1 and moves other ratios by a hundredth of their
distance from 1 where the mean step is one grey level, by less where it is more."""

LEAST_SPREAD: Final = 0.001
"""Of ratios by offset: a z-score takes no smaller spread, so that smooth images have finite ones."""

MAD_TO_SIGMA: Final = 1.4826
"""Standard deviation of normal figures whose median absolute deviation is 1."""


@dataclass(frozen=True)
class Steps:
    """Mean absolute steps between neighbouring pixels, grey levels."""

    borders: float
    """Across the borders of the grid."""
    elsewhere: float
    """Across all other places of the same axes."""

    @property
    def ratio(self) -> float:
        """(borders + 0.01) / (elsewhere + 0.01): 1 without seams, above with them, below where borders are smoothed."""
        return (self.borders + LEAST_STEP) / (self.elsewhere + LEAST_STEP)


@dataclass(frozen=True)
class Scan:
    """The grids of all offsets of one period."""

    ratios: tuple[float, ...]
    """ratios[offset]; divided by those of the sources where sources were given."""

    def z(self, offset: int = 0, *, among: int = 1) -> float:
        """How far a grid stands out: (its ratio - median of the others) / their spread.

        The spread is 1.4826 times the median absolute deviation, at least 0.001: a second grid among the others does
        not hide the first one, as it would in a standard deviation. The others are those whose offsets differ by
        multiples of `among`. Raises InputError where there are none.
        """
        own, others = self._split(offset, among)
        middle = np.median(others)
        spread = MAD_TO_SIGMA * float(np.median(np.abs(others - middle)))
        return float(own - middle) / max(spread, LEAST_SPREAD)

    def rank(self, offset: int = 0, *, among: int = 1) -> int:
        """1 where none of the others, as in `z`, has a larger ratio; 2 where one has."""
        own, others = self._split(offset, among)
        return 1 + int(np.sum(others > own))

    def _split(self, offset: int, among: int) -> tuple[float, Plane]:
        grid = _Grid(len(self.ratios), offset, among)
        others = [o for o in range(grid.offset % grid.among, grid.period, grid.among) if o != grid.offset]
        return self.ratios[grid.offset], np.asarray([self.ratios[o] for o in others])


def border_steps(image: Any, period: int, offset: int = 0, *, among: int = 1) -> Steps:
    """Steps across every period-th border of rows and columns, and across all others.

    Offsets are taken modulo the period. `among`, a divisor of the period, leaves only the borders of the grid of that
    period and the same offset to compare with: period 112 among 8 tells seams of windows from the grid of tokens, or
    of JPEG, that they lie on. Raises InputError for a period under 2 or not below the longer side, an `among` that
    does not divide it or is no less, and for what is no image.
    """
    grid = _Grid(period, offset, among)
    return grid.steps(grid.profiles(exact_luma(image, "the image"), "the image"))


def excess_steps(x: Any, y: Any, fused: Any, period: int, offset: int = 0, *, among: int = 1) -> float:
    """The ratio of the fused image over the mean ratio of its sources on the same grid: 1 where no seam was added.

    Raises InputError as `border_steps` does, and for images of different sizes.
    """
    grid = _Grid(period, offset, among)
    every = _profiles_of_one_size({"x": x, "y": y, "fused": fused}, grid)
    of_x, of_y, of_fused = (grid.steps(profiles).ratio for profiles in every)
    return 2 * of_fused / (of_x + of_y)


def scan_offsets(image: Any, period: int, sources: Sequence[Any] = ()) -> Scan:
    """The ratio of `border_steps` at each offset of a period, over the mean of the sources' where there are any.

    Raises InputError as `border_steps` does, and for images of different sizes.
    """
    grids = [_Grid(period, offset) for offset in range(_whole(period, "period", 2))]
    named = {"the image": image} | {f"source {number}": source for number, source in enumerate(sources)}
    every = [
        [grid.steps(profiles).ratio for grid in grids] for profiles in _profiles_of_one_size(named, grids[0])
    ]
    own = np.asarray(every[0])
    return Scan(tuple((own / np.mean(every[1:], axis=0) if every[1:] else own).tolist()))


class _Grid:
    """A checked period, offset and choice of borders to compare with."""

    def __init__(self, period: int, offset: int, among: int = 1) -> None:
        self.period = _whole(period, "period", 2)
        self.offset = _whole(offset, "offset") % self.period
        self.among = _whole(among, "among", 1)
        if self.among == self.period or self.period % self.among:
            raise InputError(f"among is {among}: expected a lesser divisor of the period, {period}")

    def profiles(self, luma: Plane, name: str) -> list[Plane]:
        """[side - 1] mean steps across the borders 1, 2, ... of each axis that is longer than the period."""
        h, w = luma.shape
        if max(h, w) <= self.period:
            raise InputError(
                f"{name} is {w}x{h} pixels, period {self.period}: expected a period below the longer side, {max(h, w)}"
            )
        axes = [axis for axis in (0, 1) if luma.shape[axis] > self.period]
        return [np.abs(np.diff(luma, axis=axis)).mean(axis=1 - axis) for axis in axes]

    def steps(self, profiles: list[Plane]) -> Steps:
        borders, elsewhere = [], []
        for profile in profiles:
            places = np.arange(1, len(profile) + 1) - self.offset
            on_grid = places % self.period == 0
            borders.append(profile[on_grid].mean())
            elsewhere.append(profile[~on_grid & (places % self.among == 0)].mean())
        return Steps(float(np.mean(borders)), float(np.mean(elsewhere)))


def _profiles_of_one_size(images: dict[str, Any], grid: _Grid) -> list[list[Plane]]:
    lumas = {name: exact_luma(image, name) for name, image in images.items()}
    if len({luma.shape for luma in lumas.values()}) > 1:
        told = ", ".join(f"{name} {luma.shape[1]}x{luma.shape[0]}" for name, luma in lumas.items())
        raise InputError(
            f"the images differ in size ({told}): expected images of one size; resize them first"
        )
    return [grid.profiles(luma, name) for name, luma in lumas.items()]


def _whole(value: int, name: str, least: int | None = None) -> int:
    try:
        whole = operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} is {value!r}: expected a whole number") from error
    if least is not None and whole < least:
        raise InputError(f"{name} is {whole}: expected at least {least}")
    return whole
