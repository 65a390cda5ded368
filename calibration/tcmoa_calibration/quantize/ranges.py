"""How far an activation's range goes: what lies beyond is clipped, what lies within is rounded the finer the nearer
the end is.

| method     | the end of the range                                                                           |
|------------|------------------------------------------------------------------------------------------------|
| max        | the largest magnitude seen: nothing is clipped                                                 |
| percentile | 99.99 % of magnitudes lie below                                                                |
| entropy    | least Kullback-Leibler divergence of the rounded from the true histogram (Migacz, GTC 2017)    |
| mse        | least mean squared error of rounding and clipping together                                     |
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.quantize.formats import Format
from tcmoa_calibration.quantize.observe import Observed
from tcmoa_runtime.errors import InputError

METHODS: Final = ("max", "percentile", "entropy", "mse")

PERCENTILE: Final = 99.99
_BINS: Final = 2048
_LEVELS: Final = 128
"""Of magnitudes in 8 bits with a sign."""
_SMALLEST: Final = 1e-12
"""An input that is always 0 still needs a scale."""
_MSE_VALUES: Final = 1 << 16


def range_end(observed: Observed, method: str, number_format: Format) -> float:
    """The largest magnitude that is kept, by one of `METHODS`; positive."""
    most = max(float(observed.channel_max.max()), _SMALLEST)
    values = observed.rows.reshape(-1)
    if method == "max":
        return most
    if method == "percentile":
        return max(float(np.percentile(values, PERCENTILE)), _SMALLEST)
    if method == "entropy":
        return _by_entropy(values, most)
    if method == "mse":
        return _by_mse(values, most, number_format)
    raise InputError(f"ranges are {method!r}: expected one of {', '.join(METHODS)}")


def _by_mse(values: NDArray[Any], most: float, number_format: Format) -> float:
    step = max(1, values.size // _MSE_VALUES)
    some = values[::step].astype(np.float64)
    ends = most * np.linspace(0.2, 1, 41)
    errors = [
        float(np.mean((number_format.rounded(some, end / number_format.largest) - some) ** 2)) for end in ends
    ]
    return float(ends[int(np.argmin(errors))])


def _by_entropy(values: NDArray[Any], most: float) -> float:
    counts = np.histogram(values, _BINS, (0, most))[0].astype(np.float64)
    counts[0] = 0  # zeros are kept by every range, and would outweigh all else
    best, end = np.inf, most
    for last in range(_LEVELS, _BINS + 1, 16):
        true = counts[:last].copy()
        true[-1] += counts[last:].sum()  # what is clipped
        groups = np.arange(last) * _LEVELS // last
        seen = counts[:last] > 0
        total = np.bincount(groups, counts[:last], _LEVELS)
        filled = np.bincount(groups, seen, _LEVELS)
        coarse = np.where(seen, (total / np.maximum(filled, 1))[groups], 0)
        if not coarse.any() or not true.any():
            continue
        p, q = true / true.sum(), coarse / coarse.sum()
        both = p > 0
        divergence = float(np.sum(p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))))
        if divergence < best:
            best, end = divergence, most * last / _BINS
    return max(end, _SMALLEST)
