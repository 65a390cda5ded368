"""Number formats of 8 bits, symmetric around 0, and what they make of numbers.

int8 activations are stored as uint8 with zero point 128: the same numbers as int8 with zero point 0, in the form that
CPUs multiply fastest; `tcmoa build` turns one into the other for TensorRT.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Format:
    """`largest`: the number that the end of an activation's range becomes, so that a scale is range / largest;
    `largest_weight`: the same of weights.

    Weights of int8 go to 64 alone. x86 CPUs without VNNI add two products of uint8 and int8 in 16 bits: 2 * 255 * 64
    fits, so that every CPU gives the same picture. It costs about 1 dB.
    """

    name: str
    largest: float
    largest_weight: float

    def rounded(self, values: NDArray[Any], scale: Any) -> NDArray[np.float64]:
        """`values` as they are after quantising and back, for a positive scale (or scales that broadcast)."""
        steps = np.asarray(values, np.float64) / scale
        if self.name == "int8":
            stored = np.clip(np.rint(steps), -128, 127)
        else:
            limited = np.clip(steps, -self.largest, self.largest)
            stored = limited.astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
        result: NDArray[np.float64] = stored * scale
        return result


INT8: Final = Format("int8", 127.0, 64.0)
FP8: Final = Format("fp8", 448.0, 448.0)
FORMATS: Final = {f.name: f for f in (INT8, FP8)}
