"""Where 8 bits are used, by target: CPUs and TensorRT fuse different things with a product in 8 bits.

For CPUs all linear layers of a group are quantized, and nothing else. For engines in int8 it is decided by the lists of
kernels of TensorRT-RTX 1.7.1, which fuses scales, ReLU and rounding to int8 with such a product, and nothing more:

- The projection of an attention's result is not quantized. An attention writes int8 in another order, so that a copy
  would follow, while in 16 bits it writes tokens, and the bias and residual are added in the projection's kernel: one
  kernel per block and 1 to 2 % of the bytes less.
- GELU stays a kernel of its own, so what it reads is written in int8, too: half the bytes of the largest tensor of a
  block, 10 to 11 % of all.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcmoa_calibration.quantize.linears import BackboneLinear
from tcmoa_runtime.options.quantize import LowPrecision
from tcmoa_runtime.typing import ExportTarget


def chosen_linears(
    linears: Sequence[BackboneLinear], number_format: LowPrecision, target: ExportTarget
) -> list[BackboneLinear]:
    """Return the layers that are quantized if their group is."""
    if (number_format, target) != ("int8", "gpu"):
        return list(linears)
    return [linear for linear in linears if not linear.is_projection]


def quantized_results(
    linears: Sequence[BackboneLinear], number_format: LowPrecision, target: ExportTarget
) -> list[BackboneLinear]:
    """Return those of the quantized layers whose result is quantized before its bias is added."""
    if (number_format, target) != ("int8", "gpu"):
        return []
    return [linear for linear in linears if linear.is_before_gelu]
