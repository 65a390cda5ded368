"""A built engine's kernels as data: what TensorRT's builder and engine inspector tell, in one structure.

Both describe an engine layer by layer once the engine was built with profiling verbosity DETAILED. The builder
writes one line of text per layer into its log ("Engine Layer Information"), which works on a machine without a
GPU; the inspector of a deserialised engine gives JSON (`IEngineInspector.get_engine_information`). A "layer" of an
engine is one kernel launch, but for the stream markers `signal` and `wait`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tcmoa_runtime.errors import TcmoaError

Kind = Literal["attention", "matmul", "convolution", "normalise", "other"]

ELEMENT_BYTES = {
    "Float": 4,
    "Half": 2,
    "BFloat16": 2,
    "FP8": 1,
    "Int8": 1,
    "UInt8": 1,
    "Bool": 1,
    "Int32": 4,
    "Int64": 8,
}
"""Bytes of an element by the name that TensorRT prints."""

PRECISIONS = {"Float": "fp32", "Half": "fp16", "BFloat16": "bf16", "FP8": "fp8", "Int8": "int8"}
"""Our names of the types that arithmetic happens in."""

MARKERS = ("signal", "wait")
"""Layer types that order streams and launch nothing."""


def operator_of(node: str) -> str:
    """Operator of a node by the name that `Graph` gives: `MatMul` of `encoder.0/attention/MatMul.1`."""
    return node.rsplit("/", 1)[-1].split(".")[0]


class AuditError(TcmoaError):
    """The builder's or inspector's list cannot be read: it is not the form that this version knows."""


@dataclass(frozen=True)
class Tensor:
    """A tensor as a kernel reads or writes it: a view, so that three slices of one buffer are three of these."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Bytes of all its elements."""
        return math.prod(self.shape) * ELEMENT_BYTES[self.dtype]


@dataclass(frozen=True)
class Kernel:
    """One launch: its tensors, and the ONNX nodes that it computes, wholly or in part.

    `constants` are weights and other numbers baked into the engine.
    """

    name: str
    layer: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        """What it mainly does: by the ONNX nodes it computes, and by TensorRT's layer type where those leave it open.

        A kernel that only prepares a product's operand names that product among its nodes, too.
        """
        ops = {operator_of(node) for node in self.nodes}
        if {"MatMul", "Softmax"} <= ops and any("/attention/" in node for node in self.nodes):
            return "attention"
        if "onv" in self.layer or self.layer == "correlation":
            return "convolution"
        if self.layer in ("gemm", "MatrixMultiply", "matmul") or re.search(r"_(Fc|Dot|Gemm)", self.name):
            return "matmul"
        return "normalise" if "LayerNormalization" in ops else "other"

    @property
    def activation_bytes(self) -> int:
        """Bytes of activations read and written, each view once."""
        return sum(t.bytes for t in (*self.inputs, *self.outputs))

    @property
    def constant_bytes(self) -> int:
        """Bytes of weights and other constants read."""
        return sum(t.bytes for t in self.constants)

    @property
    def bytes(self) -> int:
        """All bytes that it must move when each view is read or written once and no cache helps."""
        return self.activation_bytes + self.constant_bytes

    @property
    def precision(self) -> str:
        """The type of its weights where it is a product with some, else of its first tensor of real numbers.

        fp32, fp16, bf16, fp8, int8, or `none`. A product's first tensor can be a float32 residual; scale factors
        of its arithmetic are single float32 numbers.
        """
        weights = [t for t in self.constants if t.dtype in PRECISIONS and math.prod(t.shape) > 1]
        if weights and self.kind in ("matmul", "convolution"):
            return PRECISIONS[max(weights, key=lambda t: math.prod(t.shape)).dtype]
        for tensor in (*self.inputs, *self.outputs):
            if tensor.dtype in PRECISIONS:
                return PRECISIONS[tensor.dtype]
        return "none"


_TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<shape>[\d,]{0,200})\].*?Datatype: (?P<dtype>\w+)"
)
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


def kernels_from_log(lines: Iterable[str]) -> list[Kernel]:
    """Kernels from the builder's verbose log lines, in launch order; AuditError when it holds no readable list."""
    rows = [row for line in lines for row in line.splitlines() if row.startswith("Name: ")]
    if not rows:
        raise AuditError(
            "the builder's log lists no kernels; profiling verbosity must be DETAILED and the logger verbose"
        )
    return _launched(_kernel_from_row(row) for row in rows)


def _kernel_from_row(row: str) -> Kernel:
    # Tensors end in "}" and shapes hold brackets, so lists are cut at the keys that follow them.
    parts = re.split(r", (Inputs|Constants|Outputs|LayerType|TacticName|StreamId|Metadata): ", row)
    fields = dict(zip(parts[1::2], parts[2::2], strict=True))
    if not {"LayerType", "Inputs", "Outputs"} <= fields.keys():
        raise AuditError(f"the builder's log has a row of another form: {row[:120]!r}")
    return Kernel(
        parts[0].removeprefix("Name: "),
        fields["LayerType"],
        _tensors(fields["Inputs"], row),
        _tensors(fields.get("Constants", ""), row),
        _tensors(fields["Outputs"], row),
        tuple(_NODE.findall(fields.get("Metadata", ""))),
    )


def _tensors(text: str, row: str) -> tuple[Tensor, ...]:
    found = [
        _tensor(m["name"], [int(n) for n in m["shape"].split(",") if n], m["dtype"])
        for m in _TENSOR.finditer(text)
    ]
    if len(found) != text.count("{ Name: "):
        raise AuditError(f"the builder's log has a tensor of another form in: {row[:120]!r}")
    return tuple(found)


def _tensor(name: str, shape: Sequence[int], dtype: str) -> Tensor:
    if dtype not in ELEMENT_BYTES:
        raise AuditError(f"tensor {name!r} has type {dtype!r}: expected one of {', '.join(ELEMENT_BYTES)}")
    return Tensor(name, tuple(shape), dtype)


_FORMAT_TYPES = {
    "FP32": "Float",
    "FP16": "Half",
    "BF16": "BFloat16",
    **{name.upper(): name for name in ELEMENT_BYTES},
}


def kernels_from_inspector(text: str) -> list[Kernel]:
    """Kernels from `get_engine_information(LayerInformationFormat.JSON)`, in launch order; else AuditError."""
    try:
        layers = json.loads(text)["Layers"]
        return _launched(_kernel_from_layer(layer) for layer in layers)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AuditError(
            f"the engine inspector's list has another form ({type(error).__name__}: {error}); "
            f"build the engine with profiling verbosity DETAILED"
        ) from error


def _kernel_from_layer(layer: Mapping[str, Any]) -> Kernel:
    def tensors(key: str) -> tuple[Tensor, ...]:
        return tuple(
            _tensor(_text(t["Name"]), [_size(n) for n in t["Dimensions"]], _dtype(t))
            for t in layer.get(key, [])
        )

    return Kernel(
        _text(layer["Name"]),
        _text(layer["LayerType"]),
        tensors("Inputs"),
        tensors("Constants"),
        tensors("Outputs"),
        tuple(_NODE.findall(layer.get("Metadata", ""))),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _size(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} is no size")
    return value


def _dtype(tensor: Mapping[str, Any]) -> str:
    """`Datatype`, or the type inside older versions' `Format/Datatype`, as "Row major linear FP16 format"."""
    if "Datatype" in tensor:
        return str(tensor["Datatype"])
    words = re.findall(r"[A-Z]+\d*", str(tensor["Format/Datatype"]).upper())
    return next((_FORMAT_TYPES[word] for word in words if word in _FORMAT_TYPES), "unknown")


def _launched(kernels: Iterable[Kernel]) -> list[Kernel]:
    return [kernel for kernel in kernels if kernel.layer not in MARKERS]
