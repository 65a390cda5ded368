"""Graph rewrites for low precision: Q/DQ pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tcmoa_calibration.quantize.formats import FP8, QuantizationFormat
from tcmoa_calibration.quantize.linears import BackboneLinear
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
) -> None:
    """Insert Q/DQ pairs at the inputs and weights of linear layers, in place.

    Activations are symmetric with one scale. Weights are symmetric with one scale for each column [N]. Layers that
    share an input (q, k and v) get one scale for all their weights: then TensorRT makes one product of them, which
    attention reads without a copy. The error of that is within the noise.

    Args:
        model: The graph.
        linears: The layers to quantize.
        thresholds: Largest magnitude that is not clipped, by the name of the input.
        number_format: The format of activations and weights.
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
                quantized_inputs[name] = _quantize_activation(graph, nodes, name, scale, number_format)
            node.input[1] = _quantize_weight(
                graph, nodes, node.name, tensors[node.input[1]], shared_max.get(name), number_format
            )
            node.input[0] = quantized_inputs[name]
        nodes.append(node)
    replace_nodes(model, nodes)
    if number_format.name == "fp8":
        model.opset_import[0].version, model.ir_version = FP8_OPSET, FP8_IR_VERSION


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


def _quantize_activation(
    graph: onnx.GraphProto,
    nodes: list[onnx.NodeProto],
    name: str,
    scale: NDArray[np.float32],
    number_format: QuantizationFormat,
) -> str:
    """Append the Q/DQ pair of an activation; return the name of the result."""
    scale_name, zero_name = f"{name}/q_scale", f"{name}/q_zero"
    graph.initializer.append(numpy_helper.from_array(scale, scale_name))
    if number_format.name == "int8":
        graph.initializer.append(numpy_helper.from_array(np.array(INT8_ZERO_POINT, np.uint8), zero_name))
    else:
        graph.initializer.append(_fp8_tensor(np.zeros((), np.float32), zero_name))
    q, dq = f"{name}/q", f"{name}/dq"
    nodes.append(helper.make_node("QuantizeLinear", [name, scale_name, zero_name], [q], q))
    nodes.append(helper.make_node("DequantizeLinear", [q, scale_name, zero_name], [dq], dq))
    return dq


def _quantize_weight(
    graph: onnx.GraphProto,
    nodes: list[onnx.NodeProto],
    node: str,
    tensor: onnx.TensorProto,
    shared_max: float | None,
    number_format: QuantizationFormat,
) -> str:
    """Store a weight in 8 bits and append its DequantizeLinear; return the name of the result.

    `shared_max` is the largest magnitude of all weights that share a scale; None gives each column a scale.
    """
    values = numpy_helper.to_array(tensor).astype(np.float64)
    maxima = np.abs(values).max(axis=0) if shared_max is None else np.array(shared_max)
    scales = np.where(maxima > 0, maxima / number_format.weight_max, 1.0).astype(np.float32)
    stored, scale_name, zero_name = f"{node}/weight_q", f"{node}/weight_scale", f"{node}/weight_zero"
    if number_format.name == "int8":
        limit = number_format.weight_max
        steps = np.clip(np.rint(values / scales), -limit, limit).astype(np.int8)
        graph.initializer.append(numpy_helper.from_array(steps, stored))
        graph.initializer.append(numpy_helper.from_array(np.zeros(scales.shape, np.int8), zero_name))
    else:
        graph.initializer.append(_fp8_tensor(values / scales, stored))
        graph.initializer.append(_fp8_tensor(np.zeros(scales.shape, np.float32), zero_name))
    graph.initializer.append(numpy_helper.from_array(scales, scale_name))
    name = f"{node}/weight_dq"
    dequantize = helper.make_node("DequantizeLinear", [stored, scale_name, zero_name], [name], name)
    if shared_max is None:
        dequantize.attribute.append(helper.make_attribute("axis", 1))
    nodes.append(dequantize)
    return name


def _fp8_tensor(values: NDArray[np.floating], name: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto()
    tensor.name, tensor.data_type = name, TensorProto.FLOAT8E4M3FN
    tensor.dims.extend(values.shape)
    tensor.raw_data = (
        np.clip(values, -FP8.weight_max, FP8.weight_max).astype(ml_dtypes.float8_e4m3fn).tobytes()
    )
    return tensor
