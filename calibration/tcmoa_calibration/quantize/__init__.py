"""8 bits that keep the picture: `calibrate_low_precision`."""

from tcmoa_calibration.quantize.calibrate import (
    DEFAULT_BUDGET,
    Calibration,
    Step,
    calibrate_low_precision,
)
from tcmoa_calibration.quantize.curve import draw_curve
from tcmoa_calibration.quantize.judge import Budget, Damage

__all__ = [
    "DEFAULT_BUDGET",
    "Budget",
    "Calibration",
    "Damage",
    "Step",
    "calibrate_low_precision",
    "draw_curve",
]
