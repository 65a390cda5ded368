"""The graph's changes for low precision: smaller tables, and the Q/DQ pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tcmoa_calibration.quantize.formats import Format
from tcmoa_calibration.quantize.linears import Linear

FP8_OPSET, FP8_IR_VERSION = 19, 9
"""The first opset with 8-bit floats in Q/DQ, and what came with it; all operators used mean the same."""


def share_tables(model: onnx.ModelProto) -> None:
    """Write the position biases [1, heads, n, n] as the few numbers that they repeat, and one index for all.

    A table holds (2 * 14 - 1)^2 numbers a head, 53 times each. Runtimes put it together when they load the graph, to
    the very same numbers.
    """
    graph = model.graph
    tables = [t for t in graph.initializer if t.name.rsplit("/", 1)[-1].split(".")[0] == "position_bias"]
    if not tables:
        return
    stacked = np.concatenate([numpy_helper.to_array(t).reshape(t.dims[1], -1) for t in tables])
    few, index = np.unique(stacked, axis=1, return_inverse=True)
    if few.shape[1] * 4 > stacked.shape[1]:  # tables of another kind
        return
    side = tables[0].dims[2]
    graph.initializer.append(
        numpy_helper.from_array(index.reshape(side, side).astype(np.int32), "position_bias/index")
    )
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "position_bias/axis"))
    nodes, start = [], 0
    for tensor in tables:
        heads, name = tensor.dims[1], tensor.name
        tensor.CopyFrom(numpy_helper.from_array(few[start : start + heads], f"{name}/few"))
        start += heads
        whole = f"{name}/whole"
        nodes.append(
            helper.make_node("Gather", [f"{name}/few", "position_bias/index"], [whole], whole, axis=1)
        )
        nodes.append(helper.make_node("Unsqueeze", [whole, "position_bias/axis"], [name], name))
    nodes.extend(graph.node)
    _replace_nodes(model, nodes)


def quantise(
    model: onnx.ModelProto, linears: Sequence[Linear], ends: Mapping[str, float], number_format: Format
) -> None:
    """Put Q/DQ pairs on the inputs of `linears`, whose ranges end at `ends` (by name of input), and on their weights.

    Activations are symmetric with one scale. Weights are symmetric with one scale a column [N], but for linears that
    share an input: one scale for all of them. Those are q, k and v, and TensorRT makes one product of them that
    attention reads without a copy, if it has one scale; what it cost is within the noise.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    chosen = {linear.node: linear for linear in linears}
    done: dict[str, str] = {}
    most: dict[str, list[float]] = {}
    for each in linears:
        largest = float(np.abs(numpy_helper.to_array(tensors[each.weight])).max())
        most.setdefault(each.source, []).append(largest)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        linear = chosen.get(node.name)
        if linear is not None:
            source = node.input[0]
            if source not in done:
                scale = np.array(ends[source] / number_format.largest, np.float32)
                done[source] = _pair(graph, nodes, source, scale, number_format)
            together = max(most[source]) if len(most[source]) > 1 else None
            node.input[1] = _weight(graph, nodes, node.name, tensors[node.input[1]], together, number_format)
            node.input[0] = done[source]
        nodes.append(node)
    _replace_nodes(model, nodes)
    if number_format.name == "fp8":
        model.opset_import[0].version, model.ir_version = FP8_OPSET, FP8_IR_VERSION


def finish(model: onnx.ModelProto, name: str) -> None:
    """Drop constants that nothing reads, order what is left, and give the graph a name of its own: `name` and a
    fingerprint.
    """
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    graph.name = ""
    digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()[:12]
    graph.name = f"{name}_{digest}"


def _pair(
    graph: onnx.GraphProto,
    nodes: list[onnx.NodeProto],
    source: str,
    scale: NDArray[np.float32],
    number_format: Format,
) -> str:
    """Quantise and dequantise an activation; the name of the result."""
    scale_name, zero_name = f"{source}/q_scale", f"{source}/q_zero"
    graph.initializer.append(numpy_helper.from_array(scale, scale_name))
    if number_format.name == "int8":
        graph.initializer.append(numpy_helper.from_array(np.array(128, np.uint8), zero_name))
    else:
        graph.initializer.append(_fp8(np.zeros((), np.float32), zero_name))
    nodes.append(
        helper.make_node("QuantizeLinear", [source, scale_name, zero_name], [f"{source}/q"], f"{source}/q")
    )
    nodes.append(
        helper.make_node(
            "DequantizeLinear", [f"{source}/q", scale_name, zero_name], [f"{source}/dq"], f"{source}/dq"
        )
    )
    return f"{source}/dq"


def _weight(
    graph: onnx.GraphProto,
    nodes: list[onnx.NodeProto],
    node: str,
    tensor: onnx.TensorProto,
    together: float | None,
    number_format: Format,
) -> str:
    """A stored weight in 8 bits and its DequantizeLinear; the name of the result.

    `together`: the largest magnitude of all weights that share a scale; None for a scale a column.
    """
    values = numpy_helper.to_array(tensor).astype(np.float64)
    most = np.abs(values).max(axis=0) if together is None else np.array(together)
    scales = np.where(most > 0, most / number_format.largest_weight, 1.0).astype(np.float32)
    stored, scale_name, zero_name = f"{node}/weight_q", f"{node}/weight_scale", f"{node}/weight_zero"
    if number_format.name == "int8":
        end = number_format.largest_weight
        steps = np.clip(np.rint(values / scales), -end, end).astype(np.int8)
        graph.initializer.append(numpy_helper.from_array(steps, stored))
        graph.initializer.append(numpy_helper.from_array(np.zeros(scales.shape, np.int8), zero_name))
    else:
        graph.initializer.append(_fp8(values / scales, stored))
        graph.initializer.append(_fp8(np.zeros(scales.shape, np.float32), zero_name))
    graph.initializer.append(numpy_helper.from_array(scales, scale_name))
    name = f"{node}/weight_dq"
    dequantise = helper.make_node("DequantizeLinear", [stored, scale_name, zero_name], [name], name)
    if together is None:
        dequantise.attribute.append(helper.make_attribute("axis", 1))
    nodes.append(dequantise)
    return name


def _fp8(values: NDArray[Any], name: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto()
    tensor.name, tensor.data_type = name, TensorProto.FLOAT8E4M3FN
    tensor.dims.extend(values.shape)
    tensor.raw_data = np.clip(values, -448, 448).astype(ml_dtypes.float8_e4m3fn).tobytes()
    return tensor


def _replace_nodes(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
    copies = []
    for node in nodes:  # those of the graph itself are gone once it is emptied
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del model.graph.node[:]
    model.graph.node.extend(copies)
