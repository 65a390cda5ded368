"""Convolutions and products with constant weights of a wrapped network, in int8.

Nothing is known of such a network, so every convolution and product is a candidate. They form groups in the order of
the graph; those that cost the image too much stay in float32. Activations are symmetric with one scale, weights
symmetric with one scale for each output channel. Nothing is smoothed: there need not be a norm before a layer that
takes the scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tcmoa_calibration.quantize.activations import ActivationStats
from tcmoa_calibration.quantize.formats import FORMATS
from tcmoa_calibration.quantize.ranges import clipping_threshold
from tcmoa_calibration.quantize.rewrite import quantize_activation
from tcmoa_calibration.quantize.scheme import Scheme
from tcmoa_calibration.quantize.sessions import new_session
from tcmoa_calibration.sample_pairs import SamplePair, graph_inputs
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.graph_forms import own_nodes
from tcmoa_runtime.graph_storage import replace_nodes

MAX_GROUPS: Final = 24
"""Number of groups at most: each may be measured by itself."""
NUM_SAMPLED_VALUES: Final = 1 << 18
"""Numbers kept of each input, over all pairs."""

_INT8: Final = FORMATS["int8"]


@dataclass(frozen=True)
class Product:
    """A convolution or a product with a constant weight.

    Attributes:
        node: Name of the node.
        input: Name of the activations that it reads.
        weight: Name of its weight.
        axis: Axis of the weight's output channels.
        multiplications: Number of multiplications of one run.
    """

    node: str
    input: str
    weight: str
    axis: int
    multiplications: int


def find_products(model: onnx.ModelProto) -> list[Product]:
    """Return the convolutions and products that can be in int8, in the order of the graph.

    Raises:
        InputError: There are none.
    """
    constants = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    shapes, own = _shapes(model), own_nodes(model)
    found = []
    for node in model.graph.node:
        if node.name not in own:  # it converts colors
            continue
        weight = constants.get(node.input[1]) if len(node.input) > 1 else None
        axis = None if weight is None else _channel_axis(node, len(weight.dims))
        if weight is None or axis is None or node.input[0] in constants:
            continue
        output = shapes.get(node.output[0], ())
        count = math.prod(output) * math.prod(weight.dims) // max(1, weight.dims[axis])
        found.append(Product(node.name, node.input[0], node.input[1], axis, count))
    if not found:
        raise InputError(
            "no convolution and no product with float32 weights; expected one that can be in int8",
            subject="graph",
            remedy="Use the float32 bundle",
        )
    return found


def group_products(products: Sequence[Product]) -> dict[str, list[Product]]:
    """Return the products in at most `MAX_GROUPS` groups, named by their first product."""
    size = -(-len(products) // MAX_GROUPS)
    parts = [products[start : start + size] for start in range(0, len(products), size)]
    return {part[0].node: list(part) for part in parts}


def collect_stats(
    model: onnx.ModelProto,
    bundle: Bundle,
    pairs: Sequence[SamplePair],
    products: Sequence[Product],
    seed: int,
    on_pair: Callable[[], None] = lambda: None,
) -> dict[str, ActivationStats]:
    """Run the graph on all pairs; return the magnitudes of every input of `products`, by name, as one channel.

    Args:
        model: The float32 graph.
        bundle: The bundle of the graph.
        pairs: Pairs of the bundle's frame size.
        products: The products.
        seed: Seed of the choice of values.
        on_pair: Called after each pair.
    """
    instrumented = onnx.ModelProto()
    instrumented.CopyFrom(model)
    graph, shapes = instrumented.graph, _shapes(model)
    names = list(dict.fromkeys(product.input for product in products))
    rng = np.random.default_rng(seed)
    graph.initializer.append(numpy_helper.from_array(np.array([-1, 1], np.int64), "stats/shape"))
    outputs: list[str] = []
    for number, name in enumerate(names):
        size = math.prod(shapes[name])
        count = min(size, max(1, NUM_SAMPLED_VALUES // len(pairs)))
        index = np.sort(rng.integers(0, size, count))
        magnitude, flat, maximum, rows = (f"stats.{number}/{part}" for part in ("abs", "flat", "max", "rows"))
        graph.initializer.append(numpy_helper.from_array(index, f"{rows}/index"))
        graph.node.extend(
            (
                helper.make_node("Abs", [name], [magnitude]),
                helper.make_node("Reshape", [magnitude, "stats/shape"], [flat]),
                helper.make_node("ReduceMax", [flat], [maximum], keepdims=0),
                helper.make_node("Gather", [flat, f"{rows}/index"], [rows], axis=0),
            )
        )
        outputs += [maximum, rows]
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    session = new_session(instrumented)
    measured: list[list[NDArray[np.float32]]] = []
    for pair in pairs:
        measured.append(session.run(outputs, graph_inputs(bundle, pair)))
        on_pair()
    return {
        name: ActivationStats(
            np.max([values[2 * number] for values in measured], axis=0).reshape(1),
            np.concatenate([values[2 * number + 1] for values in measured]),
        )
        for number, name in enumerate(names)
    }


def quantize_products(
    model: onnx.ModelProto, stats: Mapping[str, ActivationStats], scheme: Scheme, groups: Collection[str]
) -> onnx.ModelProto:
    """Return a copy of a float32 graph with some groups of products in int8.

    Args:
        model: The float32 graph, which is not changed.
        stats: Statistics of the inputs of its products, by name.
        scheme: The ranges; nothing is smoothed.
        groups: Names of the groups, see `group_products`.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    members = group_products(find_products(quantized))
    chosen = {product.node: product for name in groups for product in members[name]}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    activations: dict[str, str] = {}
    weights: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        product = chosen.get(node.name)
        if product is not None:
            if product.input not in activations:
                threshold = clipping_threshold(stats[product.input], scheme.ranges, _INT8)
                scale = np.array(threshold / _INT8.activation_max, np.float32)
                activations[product.input] = quantize_activation(graph, nodes, product.input, scale, _INT8)
            if product.weight not in weights:
                weights[product.weight] = _store(graph, nodes, tensors[product.weight], product.axis)
            node.input[0], node.input[1] = activations[product.input], weights[product.weight]
        nodes.append(node)
    replace_nodes(quantized, nodes)
    return quantized


def _channel_axis(node: onnx.NodeProto, rank: int) -> int | None:
    """Return the axis of the output channels of a node's weight; None if the node stays in float32."""
    if node.op_type == "Conv":
        return 0
    if rank != 2:
        return None
    if node.op_type == "MatMul":
        return 1
    if node.op_type == "Gemm":
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        return None if attributes.get("transA") else 0 if attributes.get("transB") else 1
    return None


def _store(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], tensor: onnx.TensorProto, axis: int) -> str:
    """Store a weight in int8 and append its DequantizeLinear; return the name of the result."""
    values = numpy_helper.to_array(tensor).astype(np.float64)
    others = tuple(index for index in range(values.ndim) if index != axis)
    largest = np.abs(values).max(axis=others)
    scales = (np.where(largest > 0, largest, 1.0) / _INT8.weight_max).astype(np.float32)
    shape = [1] * values.ndim
    shape[axis] = -1
    steps = np.clip(np.rint(values / scales.reshape(shape)), -_INT8.weight_max, _INT8.weight_max)
    stored, scale, zero, name = (f"{tensor.name}/{part}" for part in ("q", "q_scale", "q_zero", "dq"))
    graph.initializer.extend(
        (
            numpy_helper.from_array(steps.astype(np.int8), stored),
            numpy_helper.from_array(scales, scale),
            numpy_helper.from_array(np.zeros(scales.shape, np.int8), zero),
        )
    )
    nodes.append(helper.make_node("DequantizeLinear", [stored, scale, zero], [name], name, axis=axis))
    return name


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all values by ONNX's shape inference; all are static."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    return {
        info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
        for info in (*inferred.value_info, *inferred.input, *inferred.output)
    }
