"""Sums of gathers as products with matrices, for engines.

Graphs for CPUs filter along an axis by gathers with constant indices, whose weighted results are added (see
`tcmoa_export.source_weights_graph`). TensorRT-RTX stores tables for each gather: the engine of nano for 640x480 was a
file of 1.5 GB so, and is one of 13 MB with products.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_COLUMNS, _ROWS = 3, 2


@dataclass(frozen=True)
class _Term:
    """One gather of a sum: what is read along which axis at which positions, and its weight."""

    source: str
    axis: int
    positions: NDArray[np.int64]
    weight: float
    nodes: tuple[str, ...]


def use_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace each weighted sum of gathers along one axis of planes [N, C, H, W] by one product, in place.

    The products compute in the type of the sum that they replace.

    Returns:
        `model`.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(output.name for output in graph.output)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    removed: set[str] = set()
    products: dict[str, onnx.NodeProto] = {}
    # From the outputs backwards, so that the whole of a sum is found before its parts.
    for node in reversed(graph.node):
        if node.op_type not in ("Add", "Mul") or node.output[0] in removed:
            continue
        terms = _one_sum(list(_terms(node.output[0], 1.0, (), producers, uses, constants, is_last=True)))
        if not terms:
            continue
        removed |= {name for term in terms for name in term.nodes}
        products[node.output[0]] = _product(node, terms, graph)
    nodes = [products.get(node.output[0], node) for node in graph.node]
    kept = [node for node in nodes if node.output[0] not in removed or node.output[0] in products]
    del graph.node[:]
    graph.node.extend(kept)
    read = {name for node in kept for name in node.input}
    unread = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in unread:
        graph.initializer.remove(tensor)
    return model


def _terms(
    name: str,
    weight: float,
    path: tuple[str, ...],
    producers: Mapping[str, onnx.NodeProto],
    uses: Mapping[str, int],
    constants: Mapping[str, onnx.TensorProto],
    *,
    is_last: bool = False,
) -> Iterator[_Term | None]:
    """Yield the terms of a value that is a sum of weighted gathers; None for anything else."""
    node = producers.get(name)
    if node is None or (uses[name] != 1 and not is_last):
        yield None
        return
    path = (*path, name)
    if node.op_type == "Add":
        for part in node.input:
            yield from _terms(part, weight, path, producers, uses, constants)
    elif node.op_type == "Mul" and (factor := _constant(node.input[1], producers, constants)) is not None:
        if factor.size != 1:
            yield None
            return
        yield from _terms(node.input[0], weight * float(factor), path, producers, uses, constants)
    elif node.op_type == "Gather" and (index := _constant(node.input[1], producers, constants)) is not None:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        yield _Term(node.input[0], axis, np.asarray(index, np.int64), weight, path)
    else:
        yield None


def _constant(
    name: str, producers: Mapping[str, onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> NDArray[np.generic] | None:
    """Return a constant, also one that is stored in a short type and cast."""
    node = producers.get(name)
    if node is not None and node.op_type == "Cast":
        name = node.input[0]
    return numpy_helper.to_array(constants[name]) if name in constants else None


def _one_sum(terms: list[_Term | None]) -> list[_Term]:
    """Return the terms if they are a sum along one axis of one value; otherwise none."""
    found = [term for term in terms if term is not None]
    if len(found) < max(2, len(terms)):
        return []
    first = found[0]
    fits = first.axis in (_ROWS, _COLUMNS) and all(
        (term.source, term.axis, term.positions.shape) == (first.source, first.axis, first.positions.shape)
        and term.positions.ndim == 1
        for term in found
    )
    return found if fits else []


def _product(node: onnx.NodeProto, terms: list[_Term], graph: onnx.GraphProto) -> onnx.NodeProto:
    """Return the product that computes what `node` does; its matrix is added to the graph."""
    length = 1 + max(int(term.positions.max()) for term in terms)
    matrix = np.zeros((length, len(terms[0].positions)), np.float32)
    for term in terms:
        np.add.at(matrix, (term.positions, np.arange(len(term.positions))), np.float32(term.weight))
    by_columns = terms[0].axis == _COLUMNS
    name = f"{node.output[0]}/matrix"
    graph.initializer.append(
        numpy_helper.from_array(np.ascontiguousarray(matrix if by_columns else matrix.T), name)
    )
    inputs = [terms[0].source, name] if by_columns else [name, terms[0].source]
    product = helper.make_node("MatMul", inputs, [node.output[0]], node.name)
    product.doc_string = node.doc_string
    return product
