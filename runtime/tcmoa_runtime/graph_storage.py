"""How a bundle's graph stores its constants; needs the package onnx.

Position biases are stored once, and large weights in float16, each followed by the nodes that restore the float32
constant under its own name. Runtimes run these nodes once, when they load the graph: arithmetic stays float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

MIN_ELEMENTS: Final = 1024
"""Smaller constants stay float32: scales and biases are many, but few bytes, and results depend on them more."""
MAX_FLOAT16: Final = 65504.0
"""A constant with larger numbers stays float32."""

_MIN_SHARING: Final = 4
"""Times that a position bias must repeat its values on average to be stored once."""
_RESTORING_OPS: Final = frozenset({"Cast", "Gather", "Unsqueeze"})


class GraphModel(Protocol):
    """What is used of `onnx.ModelProto`: this package does not import onnx when it is loaded."""

    @property
    def graph(self) -> object:
        """The `onnx.GraphProto`."""
        ...


ModelT = TypeVar("ModelT", bound=GraphModel)


def restore_constants(model: ModelT) -> ModelT:
    """Replace the nodes that only depend on stored constants by their results, in place.

    Returns:
        `model`.
    """
    from onnx import numpy_helper

    graph: Any = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    results: dict[str, NDArray[Any]] = {}
    kept = []
    for node in graph.node:
        if node.op_type in _RESTORING_OPS and all(name in stored or name in results for name in node.input):
            inputs = [
                results[name] if name in results else numpy_helper.to_array(stored[name])
                for name in node.input
            ]
            results[node.output[0]] = _compute(node, inputs)
        else:
            kept.append(node)
    if not results:
        return model
    replace_nodes(model, kept)
    remove_unused_constants(model)
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name)
        for name, value in results.items()
        if name in used
    )
    return model


def _compute(node: Any, inputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
    from onnx import helper

    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Cast":
        return inputs[0].astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))
    if node.op_type == "Gather":
        return np.take(inputs[0], inputs[1], axis=attributes.get("axis", 0))
    return np.expand_dims(inputs[0], tuple(int(axis) for axis in inputs[1]))


def share_position_biases(model: GraphModel) -> None:
    """Store the distinct values of the position biases [1, heads, n, n], and one index for all of them.

    A bias has (2 * 14 - 1)^2 distinct values a head, 53 times each. Runtimes expand it to exactly the same numbers when
    they load the graph.
    """
    from onnx import helper, numpy_helper

    graph: Any = model.graph
    tables = [t for t in graph.initializer if t.name.rsplit("/", 1)[-1].split(".")[0] == "position_bias"]
    if not tables:
        return
    stacked = np.concatenate([numpy_helper.to_array(t).reshape(t.dims[1], -1) for t in tables])
    distinct, index = np.unique(stacked, axis=1, return_inverse=True)
    if distinct.shape[1] * _MIN_SHARING > stacked.shape[1]:
        return
    side = tables[0].dims[2]
    graph.initializer.append(
        numpy_helper.from_array(index.reshape(side, side).astype(np.int32), "position_bias/index")
    )
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "position_bias/axis"))
    nodes, start = [], 0
    for tensor in tables:
        heads, name = tensor.dims[1], tensor.name
        tensor.CopyFrom(numpy_helper.from_array(distinct[start : start + heads], f"{name}/few"))
        start += heads
        expanded = f"{name}/whole"
        nodes.append(
            helper.make_node("Gather", [f"{name}/few", "position_bias/index"], [expanded], expanded, axis=1)
        )
        nodes.append(helper.make_node("Unsqueeze", [expanded, "position_bias/axis"], [name], name))
    nodes.extend(graph.node)
    replace_nodes(model, nodes)


def store_float16(model: GraphModel, float32_mark: str) -> None:
    """Store large float32 constants in float16, each with a Cast to float32 under its own name, in place.

    Constants stay float32 where a 16-bit graph keeps them, too: those read by nodes whose `doc_string` is
    `float32_mark`. So do small ones, see `MIN_ELEMENTS`, and those with numbers beyond float16's range.

    Args:
        model: A float32 graph.
        float32_mark: `doc_string` of nodes whose constants keep float32.
    """
    from onnx import TensorProto, helper

    graph: Any = model.graph
    precise = {name for node in graph.node if node.doc_string == float32_mark for name in node.input}
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.name in precise:
            continue
        values = np.frombuffer(tensor.raw_data, np.float32)
        if values.size < MIN_ELEMENTS or float(np.abs(values).max()) > MAX_FLOAT16:
            continue
        name = tensor.name
        tensor.name = f"{name}/stored"
        tensor.data_type, tensor.raw_data = TensorProto.FLOAT16, values.astype(np.float16).tobytes()
        casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}/Cast", to=TensorProto.FLOAT))
    replace_nodes(model, [*casts, *graph.node])


def store_short_indices(model: GraphModel) -> None:
    """Store large int64 constants that only index Gather nodes as int32, in place."""
    from onnx import TensorProto

    graph: Any = model.graph
    others = {
        name for node in graph.node for i, name in enumerate(node.input) if node.op_type != "Gather" or i != 1
    }
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.INT64 and tensor.name not in others:
            values = np.frombuffer(tensor.raw_data, np.int64)
            if values.size >= MIN_ELEMENTS:
                tensor.data_type, tensor.raw_data = TensorProto.INT32, values.astype(np.int32).tobytes()


def remove_unused_constants(model: GraphModel) -> None:
    """Remove constants that no node reads, in place."""
    graph: Any = model.graph
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def replace_nodes(model: GraphModel, nodes: Sequence[object]) -> None:
    """Replace the nodes of a graph; the new ones may be among the old ones."""
    import onnx

    copies = []
    for node in nodes:  # clearing the graph frees its own nodes
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    graph: Any = model.graph
    del graph.node[:]
    graph.node.extend(copies)
