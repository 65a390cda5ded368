"""The requirements of an ONNX graph: operations, precisions, attentions, and the bytes that an engine must move."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import onnx
from onnx import TensorProto, helper

from tcmoa_export.graph_builder import FLOAT32

_PRODUCTS: Final = ("MatMul", "Conv", "ConvTranspose", "Gemm")
_BETWEEN: Final = frozenset({"Add", "Mul", "Div", "Sub", "Cast", "Reshape", "Transpose", "Where"})
"""What may lie between a softmax and its products."""


@dataclass(frozen=True)
class GraphSummary:
    """The requirements of a graph that the audit compares an engine with.

    Attributes:
        flops: Multiplications and additions of each matrix product and convolution, by node.
        float32: Those among them that read float32. The products of attentions are never here: for them float32 only
            means how to accumulate.
        eight_bit: Products of two quantized operands by node, with `int8` or `fp8`.
        attentions: The two products of each attention, by its softmax.
        min_bytes: Lower bound of the bytes moved: activations as counted below, and every constant once.
    """

    flops: dict[str, int]
    float32: frozenset[str]
    eight_bit: dict[str, str]
    attentions: dict[str, frozenset[str]]
    min_bytes: int


def summarize_graph(model: onnx.ModelProto, *, is_wrapped: bool = False) -> GraphSummary:
    """Summarize a graph made by `GraphBuilder` and `lower`, or the lowered graph of a wrapped network.

    For `min_bytes`, norms, products and convolutions read their input and write their output once, residuals are read
    once, and an attention reads q, k and v and writes its result. Everything else is assumed to be fused into these.

    Args:
        model: The graph.
        is_wrapped: Whether the network is of others: its attentions are then found by what a softmax reads and feeds,
            not by name.
    """
    return _Reader(model, is_wrapped).summarize()


class _Reader:
    """Shapes and types of all values of a graph, inferred without copying its weights."""

    def __init__(self, model: onnx.ModelProto, is_wrapped: bool) -> None:
        self._is_wrapped = is_wrapped
        self._nodes = list(model.graph.node)
        self._constants = {t.name: (t.data_type, tuple(t.dims)) for t in model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(_without_weights(model), data_prop=True)
        self._values: dict[str, tuple[int, tuple[int, ...]]] = dict(self._constants)
        for info in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
            tensor = info.type.tensor_type
            self._values[info.name] = (tensor.elem_type, tuple(d.dim_value for d in tensor.shape.dim))
        self._quantized = {n.output[0]: n.input[0] for n in self._nodes if n.op_type == "DequantizeLinear"}
        self._fixed = {name for name, stored in self._quantized.items() if stored in self._constants}
        self._fixed.update(self._constants)
        for node in self._nodes:  # what is computed of constants alone, e.g. a weight in another type
            if node.op_type != "DequantizeLinear" and all(
                not name or name in self._fixed for name in node.input
            ):
                self._fixed.update(node.output)
        # q, k and v count as one product: their input is read with the first of them.
        self._first_product: dict[str, str] = {}
        # What the products of attentions read and write.
        self._stored: dict[str, tuple[str, ...]] = {}
        # Forms of a value in other types: casts, and the quantized value.
        self._casts: dict[str, list[str]] = {}
        for node in self._nodes:
            if node.op_type == "MatMul" and len(read := self._read_values(node)) == 1:
                self._first_product.setdefault(read[0], node.name)
            if node.op_type in ("Cast", "QuantizeLinear", "DequantizeLinear"):
                self._casts.setdefault(node.input[0], []).append(node.output[0])
                self._casts.setdefault(node.output[0], []).append(node.input[0])

    def summarize(self) -> GraphSummary:
        flops = {n.name: self._flops(n) for n in self._nodes if n.op_type in _PRODUCTS}
        attentions = self._attentions()
        float32 = {n.name for n in self._nodes if n.input and self._is_float32(n.input[0])}
        constant_bytes = sum(
            math.prod(dims) * _element_bytes(kind) for kind, dims in self._constants.values()
        )
        return GraphSummary(
            flops=flops,
            float32=frozenset(float32 & flops.keys()).difference(*attentions.values()),
            eight_bit={n.name: self._eight_bit(n) for n in self._nodes if self._eight_bit(n)},
            attentions=attentions,
            min_bytes=sum(map(self._min_bytes, self._nodes)) + constant_bytes,
        )

    def _eight_bit(self, node: onnx.NodeProto) -> str:
        """Return `int8` or `fp8` for a product of two quantized operands, else an empty string."""
        if node.op_type not in _PRODUCTS or not set(node.input[:2]) <= self._quantized.keys():
            return ""
        kinds = {self._values[self._quantized[name]][0] for name in node.input[:2]}
        return "fp8" if kinds == {TensorProto.FLOAT8E4M3FN} else "int8"

    def _is_float32(self, name: str) -> bool:
        return name in self._values and self._values[name][0] == TensorProto.FLOAT

    def _attentions(self) -> dict[str, frozenset[str]]:
        """Return the two products of each attention by its softmax; note what they read and write in memory.

        Scores are not stored: q and k of the first product are read, v of the second, whose result is written.
        """
        return self._found_attentions() if self._is_wrapped else self._named_attentions()

    def _found_attentions(self) -> dict[str, frozenset[str]]:
        """Find softmaxes between two products of activations, with only elementwise steps in between."""
        producers = {name: n for n in self._nodes for name in n.output}
        readers: dict[str, list[onnx.NodeProto]] = {}
        for n in self._nodes:
            for name in n.input:
                readers.setdefault(name, []).append(n)

        def is_product(n: onnx.NodeProto | None) -> bool:
            return n is not None and n.op_type == "MatMul" and self._fixed.isdisjoint(n.input)

        found = {}
        for softmax in self._nodes:
            if softmax.op_type != "Softmax":
                continue
            first = producers.get(softmax.input[0])
            while first is not None and first.op_type in _BETWEEN:
                first = next((producers[name] for name in first.input if name in producers), None)
            second: onnx.NodeProto | None = softmax
            weights = ""
            while second is not None and (second is softmax or second.op_type in _BETWEEN):
                weights = second.output[0]
                second = next(iter(readers.get(weights, ())), None)
            if is_product(first) and is_product(second) and first is not None and second is not None:
                found[softmax.name] = frozenset((first.name, second.name))
                self._stored[first.name] = tuple(first.input[:2])
                self._stored[second.name] = (
                    *(name for name in second.input if name != weights),
                    second.output[0],
                )
        return found

    def _named_attentions(self) -> dict[str, frozenset[str]]:
        products: dict[str, set[str]] = {}
        for n in self._nodes:
            if n.op_type == "MatMul" and self._fixed.isdisjoint(n.input):
                products.setdefault(n.name.rpartition("/")[0], set()).add(n.name)
                if "/attention/" in n.name:
                    is_first = self._feeds_softmax(n)
                    self._stored[n.name] = tuple(n.input[:2]) if is_first else (n.input[1], n.output[0])
        return {
            n.name: frozenset(products[n.name.rpartition("/")[0]])
            for n in self._nodes
            if n.op_type == "Softmax" and "/attention/" in n.name
        }

    def _flops(self, node: onnx.NodeProto) -> int:
        operand = self._values[node.input[1]][1]
        if (
            node.op_type == "ConvTranspose"
        ):  # each input value goes into one output for each weight of its channel
            return int(2 * math.prod(self._values[node.input[0]][1]) * math.prod(operand[1:]))
        if node.op_type == "Gemm":
            return int(2 * math.prod(self._values[node.output[0]][1]) * math.prod(operand)) // max(
                1, self._values[node.output[0]][1][-1]
            )
        per_output = math.prod(operand[1:]) if node.op_type == "Conv" else operand[-2:][0]
        return int(2 * math.prod(self._values[node.output[0]][1]) * per_output)

    def _min_bytes(self, node: onnx.NodeProto) -> int:
        inputs = self._read_values(node)
        if node.name in self._stored:
            return sum(map(self._bytes, self._stored[node.name]))
        if node.op_type == "MatMul" and len(inputs) == 1 and self._first_product[inputs[0]] != node.name:
            return self._bytes(node.output[0])
        if node.op_type in (*_PRODUCTS, "LayerNormalization"):
            return sum(map(self._bytes, inputs)) + self._bytes(node.output[0])
        if node.op_type == "Add" and len(inputs) == 2 and node.doc_string != FLOAT32:
            return self._bytes(inputs[0])
        return 0

    def _read_values(self, node: onnx.NodeProto) -> list[str]:
        """Return the inputs that are no constants, each once."""
        return [name for name in dict.fromkeys(node.input) if name and name not in self._fixed]

    def _feeds_softmax(self, node: onnx.NodeProto) -> bool:
        shape = self._values[node.output[0]][1]
        return bool(shape[-1] == shape[-2] == self._values[node.input[1]][1][-1])

    def _bytes(self, name: str) -> int:
        """Return the bytes of a value in the smallest type that it has on either side of a cast."""
        kinds = [self._values[v][0] for v in (name, *self._casts.get(name, ()))]
        return int(math.prod(self._values[name][1]) * min(map(_element_bytes, kinds)))


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with weights as inputs, because shape inference copies what it is given."""
    bare = onnx.ModelProto()
    bare.ir_version = model.ir_version
    bare.opset_import.extend(model.opset_import)
    bare.graph.name = model.graph.name
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    scales = {name for node in model.graph.node if node.op_type == "Resize" for name in node.input[1:]}
    for tensor in model.graph.initializer:
        is_scales = tensor.data_type == TensorProto.FLOAT and tensor.name in scales
        if tensor.data_type == TensorProto.INT64 or is_scales:
            bare.graph.initializer.append(tensor)
        else:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            bare.graph.input.append(info)
    return bare


def _element_bytes(element_type: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(element_type).itemsize)
