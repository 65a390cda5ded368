"""Alignment of two fixed cameras from sample pairs.

    calibrate_alignment("night", find_pairs("pairs"), "night-aligned", AlignOptions(move="x"))

writes a bundle that moves one source onto the other before it fuses.
"""

from tcmoa_calibration.align.calibrate import AlignmentResult, calibrate_alignment
from tcmoa_calibration.align.estimate import AlignmentEstimate, estimate_alignment
from tcmoa_calibration.align.preview import draw_preview

__all__ = [
    "AlignmentEstimate",
    "AlignmentResult",
    "calibrate_alignment",
    "draw_preview",
    "estimate_alignment",
]
