"""Quantization of a bundle's backbone to int8 or fp8, as far as the image allows.

    quantize_bundle("night", find_pairs("pairs"), "night-int8", QuantizeOptions(min_psnr=50))

writes a bundle whose frames have at least 50 dB to those of the float32 bundle.
"""

from tcmoa_calibration.quantize.allocate import TradeOffPoint
from tcmoa_calibration.quantize.calibrate import QuantizationResult, quantize_bundle
from tcmoa_calibration.quantize.curve import draw_curve
from tcmoa_calibration.quantize.error import ErrorBudget, QuantizationError

__all__ = [
    "ErrorBudget",
    "QuantizationError",
    "QuantizationResult",
    "TradeOffPoint",
    "draw_curve",
    "quantize_bundle",
]
