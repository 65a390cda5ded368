"""How far a mean over images can be trusted: 95 % confidence by Student's t, over images and over their differences.

The images are taken for a sample of those that one means to fuse. With n images of standard deviation s (n - 1), the
mean is known to +- t(0.975, n - 1) s / sqrt(n). That of one image is known to nothing: None. Methods are measured on
the same images, so that the interval of their *differences* is what tells whether one is better; it is much
narrower than the two intervals of the means suggest. Of many differences looked at, 5 % seem real by chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

LEVEL: Final = 0.95
METHOD: Final = "Student t over images, 95 %"


@dataclass(frozen=True)
class Interval:
    """The mean of n values, and the half-width of its confidence interval; None where n is too small to tell."""

    mean: float | None
    half_width: float | None
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside, which is what makes a difference real."""
        return self.mean is not None and self.half_width is not None and abs(self.mean) > self.half_width


def interval(values: Sequence[float]) -> Interval:
    """Of the mean of these values."""
    n = len(values)
    if n == 0:
        return Interval(None, None, 0)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, 1)
    spread = float(np.std(np.asarray(values), ddof=1)) if min(values) != max(values) else 0.0
    return Interval(mean, float(stdtrit(n - 1, (1 + LEVEL) / 2)) * spread / math.sqrt(n), n)


def paired(values: Mapping[str, float | None], first: Mapping[str, float | None]) -> Interval:
    """Of the mean of `values` - `first`, over the images that both have."""
    differences = []
    for name, value in values.items():
        other = first.get(name)
        if value is not None and other is not None:
            differences.append(value - other)
    return interval(differences)
