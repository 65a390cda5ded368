"""Schemes: how activations are smoothed and clipped, and the graph that a scheme gives."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx
from onnx import numpy_helper

from tcmoa_calibration.quantize.activations import ActivationStats
from tcmoa_calibration.quantize.formats import QuantizationFormat
from tcmoa_calibration.quantize.linears import backbone_linears
from tcmoa_calibration.quantize.placement import chosen_linears, quantized_results
from tcmoa_calibration.quantize.ranges import clipping_threshold
from tcmoa_calibration.quantize.result_scales import balance_result_scales
from tcmoa_calibration.quantize.rewrite import quantize_linears
from tcmoa_calibration.quantize.smoothing import smooth
from tcmoa_runtime.options.quantize import RangeMethod
from tcmoa_runtime.typing import ExportTarget


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
    target: ExportTarget = "cpu",
) -> onnx.ModelProto:
    """Return a copy of a float32 graph with some groups of linear layers in 8 bits; all of it is smoothed.

    Args:
        model: The float32 graph, which is not changed.
        stats: Statistics of the inputs of its linear layers, and of the results that are quantized, by name.
        number_format: The format of the groups.
        scheme: Smoothing and ranges.
        groups: The groups to quantize.
        target: Which of their layers are quantized, see `placement`.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    linears = backbone_linears(quantized)
    smoothed = smooth(quantized, linears, stats, scheme.smoothing) if scheme.smoothing > 0 else stats
    in_groups = [linear for linear in backbone_linears(quantized) if linear.group in groups]
    chosen = chosen_linears(in_groups, number_format.name, target)
    thresholds = {
        name: clipping_threshold(smoothed[name], scheme.ranges, number_format)
        for name in {linear.input for linear in chosen}
    }
    tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
    results = {
        linear.node: balance_result_scales(
            numpy_helper.to_array(tensors[linear.weight]),
            smoothed[linear.input],
            stats[linear.node],
            number_format,
        )
        for linear in quantized_results(chosen, number_format.name, target)
    }
    quantize_linears(quantized, chosen, thresholds, number_format, results)
    return quantized
