"""Confidence of a mean over images: 95 % intervals by Student's t, of means and of paired differences.

The images are regarded as a sample of those that will be fused. With n images and a standard deviation s (n - 1), the
mean is known to +- t(0.975, n - 1) s / sqrt(n); one image gives no interval. Methods are measured on the same images,
so the interval of their differences decides which one is better. It is much narrower than the intervals of the two
means suggest. Of many differences, 5 % are significant by chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

LEVEL: Final = 0.95
DESCRIPTION: Final = "95 % confidence interval by Student's t over images"


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        mean: Mean of n values; None if n is 0.
        half_width: The interval is mean +- half_width; None if n is below 2.
        n: Number of values.
    """

    mean: float | None
    half_width: float | None
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval: whether a difference is significant."""
        return self.mean is not None and self.half_width is not None and abs(self.mean) > self.half_width


def mean_interval(values: Sequence[float]) -> Interval:
    """Compute the confidence interval of the mean of `values`."""
    n = len(values)
    if n == 0:
        return Interval(None, None, 0)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, 1)
    spread = float(np.std(np.asarray(values), ddof=1)) if min(values) != max(values) else 0.0
    return Interval(mean, float(stdtrit(n - 1, (1 + LEVEL) / 2)) * spread / math.sqrt(n), n)


def difference_interval(
    values: Mapping[str, float | None], reference: Mapping[str, float | None]
) -> Interval:
    """Compute the confidence interval of the mean of `values` - `reference`, over the keys that have both."""
    differences = []
    for name, value in values.items():
        other = reference.get(name)
        if value is not None and other is not None:
            differences.append(value - other)
    return mean_interval(differences)
