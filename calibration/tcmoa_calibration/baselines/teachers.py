"""The rules that a model can imitate in training, by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

import numpy as np

from tcmoa_calibration.baselines.arrays import FloatImage
from tcmoa_calibration.baselines.pyramids import fuse_by_activity, fuse_by_exposure
from tcmoa_calibration.baselines.selection import focus_weight
from tcmoa_runtime.typing import Teacher


def fuse_by_focus(x: FloatImage, y: FloatImage) -> FloatImage:
    """Fuse two lumas [H, W], 0 to 255, by `focus_weight`."""
    weight = focus_weight(x, y)
    return np.asarray(weight * x + (1 - weight) * y, np.float32)


TEACHERS: Final[Mapping[str, Teacher]] = MappingProxyType(
    {
        "activity": fuse_by_activity,
        "exposure": fuse_by_exposure,
        "exposure-local": partial(fuse_by_exposure, is_local=True),
        "focus": fuse_by_focus,
    }
)
"""Functions of two lumas, float32 [H, W], 0 to 255, to the fused one.

`exposure-local` has a weight of the base for each place, see `fuse_by_exposure`.
"""
