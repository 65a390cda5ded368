"""The network that is wrapped: what it says about its inputs and outputs, and how to run it as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import onnx
import onnx.inliner
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs among the extras
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError, first_line

Arrays = Mapping[str, NDArray[Any]]
"""Tensors by name."""

MIN_OPSET: Final = 9

STANDARD_DOMAINS: Final = ("", "ai.onnx")

_TORCH_SUFFIXES: Final = (".pt", ".pth", ".ckpt", ".safetensors", ".pkl")


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a network.

    Attributes:
        name: Its name.
        dtype: Its element type.
        dims: Its sizes; None where one is not fixed, whatever symbolic name it has. Empty also if it has no shape.
    """

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int | None, ...]


class Network(Protocol):
    """A network that can be read, run and turned into a graph."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def subject(self) -> str:
        """What messages call it: its file, or its class."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of the original file, or of the exported module, hexadecimal."""
        ...

    @property
    def inputs(self) -> Sequence[TensorInfo]:
        """Its inputs."""
        ...

    @property
    def outputs(self) -> Sequence[str]:
        """Names of its outputs."""
        ...

    def graph(self, shapes: Mapping[str, tuple[int, ...]], constants: Arrays) -> onnx.ModelProto:
        """Return a graph of the network for inputs of these shapes; the caller may change it."""
        ...

    def takes(self, inputs: Arrays) -> bool:
        """Whether the network runs with inputs of these shapes."""
        ...

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run the original network and return its outputs by name."""
        ...


class OnnxNetwork:
    """A network in an ONNX file, which ONNX Runtime runs on the CPU as it is.

    Args:
        path: The file; weights may lie in further files beside it.

    Raises:
        InputError: The file cannot be read, or is no ONNX graph of operator set 9 or newer.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._proto = _load(self._path)
        self.name = self._path.stem
        self.subject = str(path)
        initializers = {tensor.name for tensor in self._proto.graph.initializer}
        # Before IR version 4 initializers are inputs too.
        self.inputs = [
            _tensor_info(info) for info in self._proto.graph.input if info.name not in initializers
        ]
        self.outputs = [info.name for info in self._proto.graph.output]
        self.sha256 = _hash(self._path, self._proto)
        self._session: ort.InferenceSession | None = None

    def graph(self, shapes: Mapping[str, tuple[int, ...]], constants: Arrays) -> onnx.ModelProto:
        """Return a copy of the graph; see `Network`."""
        return (
            onnx.inliner.inline_local_functions(self._proto) if self._proto.functions else _copy(self._proto)
        )

    def takes(self, inputs: Arrays) -> bool:
        """Whether ONNX Runtime runs the network with inputs of these shapes.

        Raises:
            InputError: ONNX Runtime cannot load it.
        """
        self._open()
        try:
            self.run(inputs)
        except InputError:
            return False
        return True

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run the network in ONNX Runtime; see `Network`.

        Raises:
            InputError: ONNX Runtime cannot load or run it.
        """
        session = self._open()
        try:
            values = session.run(self.outputs, dict(inputs))
        except Exception as error:  # ONNX Runtime has its own exceptions, of several types
            shapes = ", ".join(f"'{name}' {list(value.shape)}" for name, value in inputs.items())
            raise InputError(
                f"ONNX Runtime does not run it with {shapes}: {first_line(error)}",
                subject=self._path,
                remedy="Check the conventions: layout, channels, size and multiple",
            ) from error
        return dict(zip(self.outputs, (np.asarray(value) for value in values), strict=True))

    def _open(self) -> ort.InferenceSession:
        if self._session is None:
            options = ort.SessionOptions()
            options.log_severity_level = 4
            try:
                self._session = ort.InferenceSession(self._path, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # ONNX Runtime has its own exceptions, of several types
                check_domains(self._proto, self.subject)
                raise InputError(
                    f"ONNX Runtime does not load it: {first_line(error)}",
                    subject=self.subject,
                    remedy="Export it again, in float32 and with operators of ONNX",
                ) from error
        return self._session


def check_domains(proto: onnx.ModelProto, subject: str) -> None:
    """Raise InputError for an operator that is neither of the standard domain nor a function of the file."""
    functions = {(function.domain, function.name) for function in proto.functions}
    for node in proto.graph.node:
        if node.domain not in STANDARD_DOMAINS and (node.domain, node.op_type) not in functions:
            raise InputError(
                f"it holds the operator {node.op_type} of the domain '{node.domain}'; expected the standard one only",
                subject=subject,
                remedy="Export the network without contributed or custom operators",
            )


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def _load(path: Path) -> onnx.ModelProto:
    if path.suffix.lower() in _TORCH_SUFFIXES:
        raise InputError(
            "weights without the network; expected an ONNX file",
            subject=path,
            remedy="Build the module in Python and call tcmoa_export.wrap_network(module, ...), or export it with "
            "torch.onnx.export",
        )
    try:
        proto = onnx.load(path)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", subject=path) from error
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise InputError(
            f"no ONNX graph ({first_line(error, 120)}); expected an ONNX file", subject=path
        ) from error
    if not proto.graph.node or not proto.graph.output:
        raise InputError("no ONNX graph: it computes nothing; expected an ONNX file", subject=path)
    opset = next((entry.version for entry in proto.opset_import if entry.domain in STANDARD_DOMAINS), None)
    if opset is None or opset < MIN_OPSET:
        found = "no standard operators" if opset is None else f"operator set {opset}"
        raise InputError(
            f"{found}; expected operator set {MIN_OPSET} or newer",
            subject=path,
            remedy="Export it again, e.g. with opset_version=18",
        )
    return proto


def _hash(path: Path, proto: onnx.ModelProto) -> str:
    """Hash the file, and with it what it reads from other files."""
    digest = hashlib.sha256(path.read_bytes())
    names = {
        entry.value
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in sorted(names):
        digest.update((path.parent / name).read_bytes())
    return digest.hexdigest()


def _tensor_info(info: onnx.ValueInfoProto) -> TensorInfo:
    tensor = info.type.tensor_type
    if not tensor.elem_type:
        raise InputError("not a tensor; expected networks on tensors only", subject=f"input '{info.name}'")
    dims = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    return TensorInfo(info.name, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), dims)
