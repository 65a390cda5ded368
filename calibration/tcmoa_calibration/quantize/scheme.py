"""Schemes: how activations are smoothed and clipped, and the graph that a scheme gives."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

from tcmoa_calibration.quantize.activations import ActivationStats
from tcmoa_calibration.quantize.formats import QuantizationFormat
from tcmoa_calibration.quantize.linears import backbone_linears
from tcmoa_calibration.quantize.ranges import clipping_threshold
from tcmoa_calibration.quantize.rewrite import quantize_linears
from tcmoa_calibration.quantize.smoothing import smooth
from tcmoa_runtime.options.quantize import RangeMethod


@dataclass(frozen=True)
class Scheme:
    """Strength of smoothing, and method of the activations' ranges."""

    smoothing: float
    ranges: RangeMethod

    def __str__(self) -> str:
        return f"smoothing {self.smoothing:g}, ranges {self.ranges}"


def quantize_graph(
    model: onnx.ModelProto,
    stats: Mapping[str, ActivationStats],
    number_format: QuantizationFormat,
    scheme: Scheme,
    groups: Collection[str],
) -> onnx.ModelProto:
    """Return a copy of a float32 graph with some groups of linear layers in 8 bits; all of it is smoothed.

    Args:
        model: The float32 graph, which is not changed.
        stats: Statistics of the inputs of its linear layers, by name.
        number_format: The format of the groups.
        scheme: Smoothing and ranges.
        groups: The groups to quantize.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    linears = backbone_linears(quantized)
    smoothed = smooth(quantized, linears, stats, scheme.smoothing) if scheme.smoothing > 0 else stats
    chosen = [linear for linear in backbone_linears(quantized) if linear.group in groups]
    thresholds = {
        name: clipping_threshold(smoothed[name], scheme.ranges, number_format)
        for name in {linear.input for linear in chosen}
    }
    quantize_linears(quantized, chosen, thresholds, number_format)
    return quantized
