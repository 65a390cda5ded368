"""Ranges of activations: values beyond the threshold are clipped, and a smaller threshold rounds the others finer.

| method     | threshold                                                                                      |
|------------|------------------------------------------------------------------------------------------------|
| max        | the largest magnitude: nothing is clipped                                                      |
| percentile | 99.99 % of the magnitudes are below                                                            |
| entropy    | least Kullback-Leibler divergence of the rounded from the true histogram (Migacz, GTC 2017)    |
| mse        | least mean squared error of rounding and clipping together                                     |
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.quantize.activations import ActivationStats
from tcmoa_calibration.quantize.formats import QuantizationFormat
from tcmoa_runtime.options.quantize import RangeMethod

PERCENTILE: Final = 99.99
_NUM_BINS: Final = 2048
_NUM_LEVELS: Final = 128
"""Magnitudes of a signed number of 8 bits."""
_BIN_STEP: Final = 16
_MIN_THRESHOLD: Final = 1e-12
"""An input that is always 0 needs a scale too."""
_MSE_SAMPLES: Final = 1 << 16
_MSE_THRESHOLDS: Final = np.linspace(0.2, 1, 41)
"""Thresholds that `mse` tries, in largest magnitudes."""


def clipping_threshold(
    stats: ActivationStats, method: RangeMethod, number_format: QuantizationFormat
) -> float:
    """Return the largest magnitude that is not clipped; positive."""
    maximum = max(float(stats.channel_max.max()), _MIN_THRESHOLD)
    values = stats.rows.reshape(-1)
    if method == "max":
        return maximum
    if method == "percentile":
        return max(float(np.percentile(values, PERCENTILE)), _MIN_THRESHOLD)
    if method == "entropy":
        return _entropy_threshold(values, maximum)
    return _mse_threshold(values, maximum, number_format)


def _mse_threshold(values: NDArray[np.float32], maximum: float, number_format: QuantizationFormat) -> float:
    samples = values[:: max(1, values.size // _MSE_SAMPLES)].astype(np.float64)
    thresholds = maximum * _MSE_THRESHOLDS
    errors = [
        float(np.mean((number_format.round_trip(samples, t / number_format.activation_max) - samples) ** 2))
        for t in thresholds
    ]
    return float(thresholds[int(np.argmin(errors))])


def _entropy_threshold(values: NDArray[np.float32], maximum: float) -> float:
    counts = np.histogram(values, _NUM_BINS, (0, maximum))[0].astype(np.float64)
    counts[0] = 0  # zeros are exact with every threshold, and would outweigh all else
    min_divergence, threshold = np.inf, maximum
    for last in range(_NUM_LEVELS, _NUM_BINS + 1, _BIN_STEP):
        clipped = counts[:last].copy()
        clipped[-1] += counts[last:].sum()
        levels = np.arange(last) * _NUM_LEVELS // last
        is_filled = counts[:last] > 0
        total = np.bincount(levels, counts[:last], _NUM_LEVELS)
        num_filled = np.bincount(levels, is_filled, _NUM_LEVELS)
        rounded = np.where(is_filled, (total / np.maximum(num_filled, 1))[levels], 0)
        if not rounded.any() or not clipped.any():
            continue
        p, q = clipped / clipped.sum(), rounded / rounded.sum()
        is_positive = p > 0
        divergence = float(
            np.sum(p[is_positive] * np.log(p[is_positive] / np.maximum(q[is_positive], 1e-12)))
        )
        if divergence < min_divergence:
            min_divergence, threshold = divergence, maximum * last / _NUM_BINS
    return max(threshold, _MIN_THRESHOLD)
