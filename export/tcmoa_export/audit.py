"""What a built engine is worth, read from its kernel list: fusion, precision, bytes, and bounds by GPU.

Nothing here ran on a GPU. Bytes count every view that a kernel reads or writes once, no cache helping; a bound is
the time below which the listed kernels cannot finish on a GPU of the given datasheet.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import onnx
from onnx import TensorProto, helper

from tcmoa_export.emit import FLOAT32
from tcmoa_export.kernels import PRECISIONS, AuditError, Kernel
from tcmoa_export.precision import Precision

LARGEST: Final = 10
"""How many of the kernels that move most are named in a report."""


@dataclass(frozen=True)
class Gpu:
    """Datasheet figures: bytes/s, and dense operations/s by precision (16 bits and FP8 accumulated in float32).

    None where the GPU has no such arithmetic.
    """

    name: str
    bandwidth: float
    fp32: float
    half: float
    int8: float
    fp8: float | None
    source: str

    def peak(self, precision: str) -> float | None:
        """Operations/s; what is neither 16-bit nor 8-bit arithmetic counts as float32."""
        of = {"fp16": self.half, "bf16": self.half, "int8": self.int8, "fp8": self.fp8}
        return of.get(precision, self.fp32)


GPUS: Final = (
    Gpu(
        "RTX 4090",
        1008e9,
        82.6e12,
        165.2e12,
        660.6e12,
        330.3e12,
        "NVIDIA Ada GPU architecture whitepaper, appendix A",
    ),
    Gpu(
        "RTX A6000",
        768e9,
        38.7e12,
        154.8e12,
        309.7e12,
        None,
        "NVIDIA Ampere GA102 GPU architecture whitepaper, appendix",
    ),
    Gpu(
        "Jetson AGX Orin 64GB",
        204.8e9,
        5.3e12,
        42.5e12,
        85e12,
        None,
        "NVIDIA Jetson AGX Orin technical brief; 8 and 16 bits as a half and a quarter of its 170 sparse INT8 TOPS",
    ),
    Gpu(
        "H100 SXM",
        3350e9,
        66.9e12,
        989.4e12,
        1978.9e12,
        1978.9e12,
        "NVIDIA H100 Tensor Core GPU architecture whitepaper",
    ),
)
"""Who the bounds are given for."""


@dataclass(frozen=True)
class GraphFacts:
    """What the audit must know of the ONNX graph that an engine was built from.

    `flops` by node counts multiplications and additions of matrix products and convolutions; `float32` names those
    among them that read float32, `eight_bit` those whose two operands are quantised, with `int8` or `fp8`.
    `attentions`: the two products of each windowed attention by its softmax; they are never in `float32`, which for
    them only says how to accumulate. `minimum_bytes`: activations at the counted floor and every constant once.
    """

    flops: dict[str, int]
    float32: frozenset[str]
    eight_bit: dict[str, str]
    attentions: dict[str, frozenset[str]]
    minimum_bytes: int


def graph_facts(model: onnx.ModelProto) -> GraphFacts:
    """Read them from a graph that `Graph` and `lower` made.

    The floor: norms, products and convolutions read their input and write their output once, residuals are read
    once, an attention reads q, k and v and writes its result; whatever else there is rides along in them.
    """
    return _Reader(model).facts()


class _Reader:
    """Shapes and types of all values of a graph, found without touching its weights."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._nodes = list(model.graph.node)
        self._constants = {t.name: (t.data_type, tuple(t.dims)) for t in model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(_skeleton(model), data_prop=True)
        self._values: dict[str, tuple[int, tuple[int, ...]]] = dict(self._constants)
        for info in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
            tensor = info.type.tensor_type
            self._values[info.name] = (tensor.elem_type, tuple(d.dim_value for d in tensor.shape.dim))
        self._casts: dict[str, list[str]] = {}
        self._quantised = {n.output[0]: n.input[0] for n in self._nodes if n.op_type == "DequantizeLinear"}
        self._fixed = {name for name, stored in self._quantised.items() if stored in self._constants}
        self._fixed.update(self._constants)
        # q, k and v are one product to the floor: their input is read with the first of them.
        self._first_product: dict[str, str] = {}
        for node in self._nodes:
            if node.op_type == "MatMul" and node.input[1] in self._fixed:
                self._first_product.setdefault(node.input[0], node.name)
        for node in self._nodes:
            # A quantised value is another form of itself, too.
            if node.op_type in ("Cast", "QuantizeLinear", "DequantizeLinear"):
                self._casts.setdefault(node.input[0], []).append(node.output[0])
                self._casts.setdefault(node.output[0], []).append(node.input[0])

    def facts(self) -> GraphFacts:
        flops = {n.name: self._operations(n) for n in self._nodes if n.op_type in ("MatMul", "Conv")}
        attentions = self._attentions()
        float32 = {n.name for n in self._nodes if self._values[n.input[0]][0] == TensorProto.FLOAT}
        return GraphFacts(
            flops=flops,
            float32=frozenset(float32 & flops.keys()).difference(*attentions.values()),
            eight_bit={n.name: self._eight_bit(n) for n in self._nodes if self._eight_bit(n)},
            attentions=attentions,
            minimum_bytes=sum(map(self._floor, self._nodes))
            + sum(math.prod(dims) * _size(kind) for kind, dims in self._constants.values()),
        )

    def _eight_bit(self, node: onnx.NodeProto) -> str:
        """`int8` or `fp8` of a product of two quantised operands, else nothing."""
        if node.op_type != "MatMul" or not set(node.input) <= self._quantised.keys():
            return ""
        kinds = {self._values[self._quantised[name]][0] for name in node.input}
        return "fp8" if kinds == {TensorProto.FLOAT8E4M3FN} else "int8"

    def _attentions(self) -> dict[str, frozenset[str]]:
        products: dict[str, set[str]] = {}
        for n in self._nodes:
            if n.op_type == "MatMul" and self._fixed.isdisjoint(n.input):
                products.setdefault(n.name.rpartition("/")[0], set()).add(n.name)
        return {
            n.name: frozenset(products[n.name.rpartition("/")[0]])
            for n in self._nodes
            if n.op_type == "Softmax" and "/attention/" in n.name
        }

    def _operations(self, node: onnx.NodeProto) -> int:
        operand = self._values[node.input[1]][1]
        per_output = math.prod(operand[1:]) if node.op_type == "Conv" else operand[-2]
        return int(2 * math.prod(self._values[node.output[0]][1]) * per_output)

    def _floor(self, node: onnx.NodeProto) -> int:
        inside_attention = "/attention/" in node.name
        inputs = [name for name in node.input if name not in self._fixed]
        if node.op_type == "MatMul" and len(inputs) == 2 and inside_attention:
            # Scores are not stored: q and k of the first product, v and the result of the second.
            stays = node.input[:2] if self._feeds_softmax(node) else (node.input[1], node.output[0])
            return sum(map(self._stored, stays))
        if node.op_type == "MatMul" and self._first_product.get(node.input[0], node.name) != node.name:
            return self._stored(node.output[0])
        if node.op_type in ("MatMul", "Conv", "LayerNormalization"):
            return self._stored(node.input[0]) + self._stored(node.output[0])
        if node.op_type == "Add" and len(inputs) == 2 and node.doc_string != FLOAT32:
            return self._stored(inputs[0])
        return 0

    def _feeds_softmax(self, node: onnx.NodeProto) -> bool:
        shape = self._values[node.output[0]][1]
        return bool(shape[-1] == shape[-2] == self._values[node.input[1]][1][-1])

    def _stored(self, name: str) -> int:
        """Bytes of a value in the smallest type that it has on either side of a cast."""
        kinds = [self._values[v][0] for v in (name, *self._casts.get(name, ()))]
        return int(math.prod(self._values[name][1]) * min(map(_size, kinds)))


def _skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with weights as inputs: shape inference copies what it is given."""
    bare = onnx.ModelProto()
    bare.ir_version = model.ir_version
    bare.opset_import.extend(model.opset_import)
    bare.graph.name = model.graph.name
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT64:
            bare.graph.initializer.append(tensor)
        else:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            bare.graph.input.append(info)
    return bare


def _size(element_type: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(element_type).itemsize)


@dataclass(frozen=True)
class Audit:
    """An engine's kernels beside what was asked for.

    `bytes_moved` sums all kernels' views, constants included; `precisions` counts kernels by the type they read.
    `wrong_precision` names products and convolutions that do not read what the graph asks for, `unfused` the
    attentions that are not one kernel.
    """

    kernels: tuple[Kernel, ...]
    facts: GraphFacts
    precision: Precision

    @property
    def bytes_moved(self) -> int:
        """Bytes of all views of all kernels."""
        return sum(kernel.bytes for kernel in self.kernels)

    @property
    def precisions(self) -> dict[str, int]:
        """Number of kernels by precision."""
        return dict(sorted(Counter(kernel.precision for kernel in self.kernels).items()))

    @property
    def unfused(self) -> tuple[str, ...]:
        """Softmax nodes of attentions that are not one kernel with both their products."""
        listed = [frozenset(kernel.nodes) for kernel in self.kernels]
        return tuple(
            softmax
            for softmax, products in self.facts.attentions.items()
            if not any(products | {softmax} <= nodes for nodes in listed)
        )

    @property
    def wrong_precision(self) -> tuple[str, ...]:
        """Kernels of products and convolutions that read another type than the graph says."""
        wrong = []
        for kernel in self.kernels:
            heavy = [n for n in kernel.nodes if n in self.facts.flops]
            if kernel.kind in ("attention", "matmul", "convolution") and heavy:
                wanted: str = "fp32" if self.facts.float32.issuperset(heavy) else self.precision
                eight = {self.facts.eight_bit.get(node, "") for node in heavy}
                if eight != {""}:
                    wanted = "/".join(sorted(eight))  # a kernel of both kinds is wrong, and says so
                if kernel.precision != wanted:
                    wrong.append(f"{kernel.name} reads {kernel.precision}, not {wanted}")
                elif eight != {""} and not _reads_activations_in(kernel, wanted):
                    # Weights alone in 8 bits are turned back first: the product is one of 16 bits.
                    wrong.append(f"{kernel.name} reads no activations in {wanted}")
        return tuple(wrong)

    @property
    def eight_bit_products(self) -> int:
        """Kernels of products that read both operands in 8 bits."""
        return sum(
            kernel.kind == "matmul"
            and kernel.precision in ("int8", "fp8")
            and _reads_activations_in(kernel, kernel.precision)
            for kernel in self.kernels
        )

    def flops(self) -> list[int]:
        """Operations of each kernel; each node's count once, with the kernel that computes it."""
        left = dict(self.facts.flops)
        result = [0] * len(self.kernels)
        computing = ("attention", "matmul", "convolution")
        for only_computing in (True, False):
            for i, kernel in enumerate(self.kernels):
                if not only_computing or kernel.kind in computing:
                    result[i] += sum(left.pop(node, 0) for node in kernel.nodes)
        return result

    def bound_ms(self, gpu: Gpu) -> float | None:
        """Milliseconds below which the kernels cannot finish one after the other: the roofline, summed.

        None where the GPU has no arithmetic for one of them.
        """
        seconds = 0.0
        for kernel, flops in zip(self.kernels, self.flops(), strict=True):
            peak = gpu.peak(kernel.precision)
            if peak is None:
                return None
            seconds += max(kernel.bytes / gpu.bandwidth, flops / peak)
        return seconds * 1e3

    def figures(self) -> dict[str, Any]:
        """All of it as plain values, for an engine's JSON and for `tcmoa inspect`."""
        flops = self.flops()
        order = sorted(range(len(self.kernels)), key=lambda i: -self.kernels[i].bytes)
        return {
            "kernels": len(self.kernels),
            "attentions": len(self.facts.attentions),
            "fused_attentions": len(self.facts.attentions) - len(self.unfused),
            "bytes_moved": self.bytes_moved,
            "minimum_bytes": self.facts.minimum_bytes,
            "constant_bytes": sum(kernel.constant_bytes for kernel in self.kernels),
            "flops": sum(flops),
            "precisions": self.precisions,
            "eight_bit_linears": len(self.facts.eight_bit),
            "eight_bit_products": self.eight_bit_products,
            "kinds": dict(sorted(Counter(kernel.kind for kernel in self.kernels).items())),
            "by_scope": by_scope(self.kernels),
            "largest": [_plain(self.kernels[i], flops[i]) for i in order[:LARGEST]],
            "bounds": {
                gpu.name: {"ms": round(bound, 3), "source": gpu.source}
                for gpu in GPUS
                if (bound := self.bound_ms(gpu)) is not None
            },
            "list": [_plain(kernel, count) for kernel, count in zip(self.kernels, flops, strict=True)],
        }


def audit(kernels: Iterable[Kernel], facts: GraphFacts, precision: Precision) -> Audit:
    """Compare an engine's kernels with its graph; AuditError when they cannot belong together."""
    listed = tuple(kernels)
    if not listed:
        raise AuditError("the engine lists no kernels")
    known = set(facts.flops) | set(facts.attentions)
    if not known.intersection(*[{n for k in listed for n in k.nodes}]):
        raise AuditError("the engine's kernels name no node of the graph: it was built from another one")
    return Audit(listed, facts, precision)


def by_scope(kernels: Sequence[Kernel]) -> dict[str, dict[str, int]]:
    """`kernels` and `bytes` by part of the graph, as `encoder.3`: the part that most of a kernel's nodes are in."""
    result: dict[str, dict[str, int]] = {}
    for kernel in kernels:
        scopes = Counter(node.split("/", 1)[0] for node in kernel.nodes)
        scope = scopes.most_common(1)[0][0] if scopes else "unnamed"
        entry = result.setdefault(scope, {"kernels": 0, "bytes": 0})
        entry["kernels"] += 1
        entry["bytes"] += kernel.bytes
    return result


def _reads_activations_in(kernel: Kernel, precision: str) -> bool:
    """Whether one of its inputs is of that precision; others may be residuals."""
    return any(PRECISIONS.get(tensor.dtype) == precision for tensor in kernel.inputs)


def _plain(kernel: Kernel, flops: int) -> dict[str, Any]:
    def views(tensors: Iterable[Any]) -> list[Mapping[str, Any]]:
        return [{"shape": list(t.shape), "type": t.dtype} for t in tensors]

    return {
        "name": kernel.name,
        "kind": kernel.kind,
        "precision": kernel.precision,
        "bytes": kernel.bytes,
        "flops": flops,
        "inputs": views(kernel.inputs),
        "constants": views(kernel.constants),
        "outputs": views(kernel.outputs),
        "nodes": list(kernel.nodes),
    }
