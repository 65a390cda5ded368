"""Making sources smaller by constant matrices, so that every backend computes the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.options.wrap import SmallFilter


def resize_matrix(source: int, target: int, filter_name: SmallFilter) -> NDArray[np.float32]:
    """Return the matrix [target, source] that resamples one axis.

    Args:
        source: Length of the axis.
        target: Its new length.
        filter_name: `antialias` is Pillow's bilinear filter, a triangle over all pixels of the new one; `bilinear`
            interpolates between two neighbors, as OpenCV and PyTorch do; `nearest` takes one.
    """
    matrix = np.zeros((target, source), np.float64)
    step = source / target
    for row in range(target):
        center = (row + 0.5) * step
        if filter_name == "nearest":
            matrix[row, min(int(row * step), source - 1)] = 1
        elif filter_name == "bilinear":
            position = min(max(center - 0.5, 0.0), source - 1.0)
            low = int(position)
            high = min(low + 1, source - 1)
            matrix[row, low] += 1 - (position - low)
            matrix[row, high] += position - low
        else:
            support = max(step, 1.0)
            low, high = max(int(center - support + 0.5), 0), min(int(center + support + 0.5), source)
            columns = np.arange(low, high)
            weights = np.maximum(0.0, 1 - np.abs((columns - center + 0.5) / support))
            matrix[row, low:high] = weights / weights.sum()
    return matrix.astype(np.float32)
