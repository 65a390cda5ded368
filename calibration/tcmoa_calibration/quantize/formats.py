"""Number formats of 8 bits, symmetric around 0.

int8 activations are stored as uint8 with zero point 128: the same numbers as int8 with zero point 0, in the form that
CPUs multiply fastest. `tcmoa build` converts them for TensorRT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tcmoa_runtime.options.quantize import LowPrecision


@dataclass(frozen=True)
class QuantizationFormat:
    """A number format and the part of it that is used.

    int8 weights use -64 to 64. x86 CPUs without VNNI add two products of uint8 and int8 in 16 bits, and 2 * 255 * 64 is
    the most that fits, so every CPU gives the same image. It costs about 1 dB.

    Attributes:
        name: Name of the format.
        activation_max: Number that the end of an activation's range becomes: its scale is range / activation_max.
        weight_max: The same for weights.
    """

    name: LowPrecision
    activation_max: float
    weight_max: float

    def round_trip(self, values: ArrayLike, scale: ArrayLike) -> NDArray[np.float64]:
        """Quantize and dequantize values with positive scales that broadcast against them."""
        scales = np.asarray(scale, np.float64)
        steps = np.asarray(values, np.float64) / scales
        if self.name == "int8":
            stored = np.clip(np.rint(steps), -128, 127)
        else:
            limited = np.clip(steps, -self.activation_max, self.activation_max)
            stored = limited.astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
        result: NDArray[np.float64] = stored * scales
        return result


INT8: Final = QuantizationFormat("int8", 127.0, 64.0)
FP8: Final = QuantizationFormat("fp8", 448.0, 448.0)
FORMATS: Final[Mapping[LowPrecision, QuantizationFormat]] = {"int8": INT8, "fp8": FP8}
