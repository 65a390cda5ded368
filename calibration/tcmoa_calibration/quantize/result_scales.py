"""Scales of a linear layer whose result is stored in 8 bits before its bias is added.

TensorRT rounds the result of a product in the product's own kernel if one factor for all columns precedes the rounding.
So a result's scale for a column is the scale of the weight's column times a number that all columns share. Nothing is
clipped. A column with a large result but small weights would make that number large for all, so such columns get
a larger scale than their weights need; how far is decided by the least sum of both rounding errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.quantize.activations import ActivationStats
from tcmoa_calibration.quantize.formats import QuantizationFormat

_SHARES: Final = np.linspace(0.1, 1, 91)
"""Thresholds that are tried, in shares of the one with which no column needs a larger scale."""
_MIN_THRESHOLD: Final = 1e-12
"""A result that is always 0 needs a scale too."""


@dataclass(frozen=True)
class ResultScales:
    """Scales of a layer.

    Attributes:
        weight: Scale of each column of the weight [N].
        threshold: The largest magnitude of the result, in units of its column's `weight`.
    """

    weight: NDArray[np.float32]
    threshold: float


def column_scales(weight: NDArray[np.float32], number_format: QuantizationFormat) -> NDArray[np.float32]:
    """Return the scale of each column [N] of a weight [C, N] that uses the whole format."""
    maxima = np.abs(weight.astype(np.float64)).max(axis=0)
    return np.where(maxima > 0, maxima / number_format.weight_max, 1.0).astype(np.float32)


def balance_result_scales(
    weight: NDArray[np.float32],
    inputs: ActivationStats,
    results: ActivationStats,
    number_format: QuantizationFormat,
) -> ResultScales:
    """Return the scales with the least squared error of rounding the weight and the result.

    Args:
        weight: The weight [C, N].
        inputs: Statistics of its input [M, C].
        results: Statistics of its result [M, N] before the bias.
        number_format: The format of both.
    """
    least = column_scales(weight, number_format).astype(np.float64)
    input_power = float(np.mean(np.sum(inputs.rows.astype(np.float64) ** 2, axis=1)))
    maxima = results.channel_max.astype(np.float64)
    thresholds = max(float(np.max(maxima / least)), _MIN_THRESHOLD) * _SHARES

    def error(threshold: float) -> float:
        scales = np.maximum(least, maxima / threshold)
        # Both errors are uniform within a step, so both variances have the same factor 1/12.
        result_steps = (threshold / number_format.activation_max) ** 2
        return float(np.sum(scales**2) * (input_power + result_steps))

    best = float(min(thresholds, key=error))
    return ResultScales(np.maximum(least, maxima / best).astype(np.float32), best)
