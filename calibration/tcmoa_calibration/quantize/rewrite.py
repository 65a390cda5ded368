"""Graph rewrites for low precision: Q/DQ pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tcmoa_calibration.quantize.formats import FP8, QuantizationFormat
from tcmoa_calibration.quantize.linears import BackboneLinear
from tcmoa_calibration.quantize.result_scales import ResultScales, column_scales
from tcmoa_runtime.graph_storage import remove_unused_constants, replace_nodes

FP8_OPSET: Final = 19
FP8_IR_VERSION: Final = 9
"""First versions with 8-bit floats in QuantizeLinear; the other operators of the graph did not change up to them."""

INT8_ZERO_POINT: Final = 128


def quantize_linears(
    model: onnx.ModelProto,
    linears: Sequence[BackboneLinear],
    thresholds: Mapping[str, float],
    number_format: QuantizationFormat,
    results: Mapping[str, ResultScales] = MappingProxyType({}),
) -> None:
    """Insert Q/DQ pairs at the inputs and weights of linear layers, and at some results, in place.

    Activations are symmetric with one scale. Weights are symmetric with one scale for each column [N]. Layers that
    share an input (q, k and v) get one scale for all their weights: then TensorRT makes one product of them, which
    attention reads without a copy. The error of that is within the noise.

    A result that is quantized has one scale for each column, the weight's times the same number: the product then needs
    only one factor before it is rounded, which is what TensorRT and ONNX Runtime compute in one kernel.

    Args:
        model: The graph.
        linears: The layers to quantize.
        thresholds: Largest magnitude that is not clipped, by the name of the input.
        number_format: The format of activations and weights.
        results: Scales of the layers whose result is quantized, by name; these share their input with no other.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    by_node = {linear.node: linear for linear in linears}
    shared_max = _shared_weight_max(linears, tensors)
    quantized_inputs: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        linear = by_node.get(node.name)
        if linear is not None:
            name = node.input[0]
            if name not in quantized_inputs:
                scale = np.array(thresholds[name] / number_format.activation_max, np.float32)
                quantized_inputs[name] = quantize_activation(graph, nodes, name, scale, number_format)
            weight = tensors[node.input[1]]
            result = results.get(node.name)
            node.input[1] = _quantize_weight(
                graph,
                nodes,
                node.name,
                weight,
                shared_max.get(name),
                number_format,
                None if result is None else result.weight,
            )
            node.input[0] = quantized_inputs[name]
            if result is not None:
                _quantize_result(graph, nodes, node, result, number_format)
                continue
        nodes.append(node)
    replace_nodes(model, nodes)
    if number_format.name == "fp8":
        model.opset_import[0].version, model.ir_version = FP8_OPSET, FP8_IR_VERSION


def _common_scale(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scale [] of a product whose columns get theirs [N] later."""
    return np.array(np.median(scales), np.float32)


def _shared_weight_max(
    linears: Sequence[BackboneLinear], tensors: Mapping[str, onnx.TensorProto]
) -> dict[str, float]:
    """Return the largest magnitude of all weights that read an input, for inputs that several layers read."""
    maxima: dict[str, list[float]] = {}
    for linear in linears:
        largest = float(np.abs(numpy_helper.to_array(tensors[linear.weight])).max())
        maxima.setdefault(linear.input, []).append(largest)
    return {name: max(values) for name, values in maxima.items() if len(values) > 1}


def finalize(model: onnx.ModelProto, name: str) -> None:
    """Remove unused constants and name the graph: `name`, and a fingerprint of its content."""
    graph = model.graph
    remove_unused_constants(model)
    del graph.value_info[:]
    graph.name = ""
    digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()[:12]
    graph.name = f"{name}_{digest}"


def quantize_activation(
    graph: onnx.GraphProto,
    nodes: list[onnx.NodeProto],
    name: str,
    scale: NDArray[np.float32],
    number_format: QuantizationFormat,
) -> str:
    """Append the Q/DQ pair of an activation; return the name of the result."""
    scale_name, zero_name = f"{name}/q_scale", f"{name}/q_zero"
    graph.initializer.append(numpy_helper.from_array(scale, scale_name))
    graph.initializer.append(_zero_point((), zero_name, number_format))
    q, dq = f"{name}/q", f"{name}/dq"
    nodes.append(helper.make_node("QuantizeLinear", [name, scale_name, zero_name], [q], q))
    nodes.append(helper.make_node("DequantizeLinear", [q, scale_name, zero_name], [dq], dq))
    return dq


def _quantize_result(
    graph: onnx.GraphProto,
    nodes: list[onnx.NodeProto],
    node: onnx.NodeProto,
    result: ResultScales,
    number_format: QuantizationFormat,
) -> None:
    """Append a product and the Q/DQ pair of its result, which applies the scales of the weight's columns."""
    name, raw, scales = node.output[0], f"{node.name}/raw", result.weight
    step = result.threshold / number_format.activation_max
    q, q_scale, dq_scale = f"{raw}/q", f"{raw}/q_scale", f"{raw}/dq_scale"
    graph.initializer.extend(
        (
            numpy_helper.from_array(np.array(_common_scale(scales) * step, np.float32), q_scale),
            _zero_point((), f"{raw}/q_zero", number_format),
            numpy_helper.from_array((scales * step).astype(np.float32), dq_scale),
            _zero_point(scales.shape, f"{raw}/dq_zero", number_format),
        )
    )
    node.output[0] = raw
    dequantize = helper.make_node("DequantizeLinear", [q, dq_scale, f"{raw}/dq_zero"], [name], f"{raw}/dq")
    dequantize.attribute.append(helper.make_attribute("axis", 1))
    nodes.extend(
        (node, helper.make_node("QuantizeLinear", [raw, q_scale, f"{raw}/q_zero"], [q], q), dequantize)
    )


def _quantize_weight(
    graph: onnx.GraphProto,
    nodes: list[onnx.NodeProto],
    node: str,
    tensor: onnx.TensorProto,
    shared_max: float | None,
    number_format: QuantizationFormat,
    scales_of_result: NDArray[np.float32] | None,
) -> str:
    """Store a weight in 8 bits and append its DequantizeLinear; return the name of the result.

    `shared_max` is the largest magnitude of all weights that share a scale; None gives each column a scale. With
    `scales_of_result` the columns are rounded by these scales, which their results get later.
    """
    values = numpy_helper.to_array(tensor).astype(np.float64)
    scales = scales_of_result
    if scales is None and shared_max is None:
        scales = column_scales(numpy_helper.to_array(tensor), number_format)
    elif scales is None:
        scales = np.array(shared_max / number_format.weight_max if shared_max else 1.0, np.float32)
    stored, scale_name, zero_name = f"{node}/weight_q", f"{node}/weight_scale", f"{node}/weight_zero"
    if number_format.name == "int8":
        limit = number_format.weight_max
        steps = np.clip(np.rint(values / scales), -limit, limit).astype(np.int8)
        graph.initializer.append(numpy_helper.from_array(steps, stored))
    else:
        graph.initializer.append(_fp8_tensor(values / scales, stored))
    if scales_of_result is not None:
        scales = _common_scale(scales)
    if number_format.name == "int8":
        graph.initializer.append(numpy_helper.from_array(np.zeros(scales.shape, np.int8), zero_name))
    else:
        graph.initializer.append(_fp8_tensor(np.zeros(scales.shape, np.float32), zero_name))
    graph.initializer.append(numpy_helper.from_array(scales, scale_name))
    name = f"{node}/weight_dq"
    dequantize = helper.make_node("DequantizeLinear", [stored, scale_name, zero_name], [name], name)
    if scales.ndim:
        dequantize.attribute.append(helper.make_attribute("axis", 1))
    nodes.append(dequantize)
    return name


def _zero_point(shape: tuple[int, ...], name: str, number_format: QuantizationFormat) -> onnx.TensorProto:
    """Return the zero point of activations."""
    if number_format.name == "int8":
        return numpy_helper.from_array(np.full(shape, INT8_ZERO_POINT, np.uint8), name)
    return _fp8_tensor(np.zeros(shape, np.float32), name)


def _fp8_tensor(values: NDArray[np.floating], name: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto()
    tensor.name, tensor.data_type = name, TensorProto.FLOAT8E4M3FN
    tensor.dims.extend(values.shape)
    tensor.raw_data = (
        np.clip(values, -FP8.weight_max, FP8.weight_max).astype(ml_dtypes.float8_e4m3fn).tobytes()
    )
    return tensor
