"""From the graph of a network to plain ONNX: one output, fixed shapes, folded constants, a current operator set."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import onnx
from onnx import numpy_helper, version_converter

from tcmoa_export.graph_builder import OPSET
from tcmoa_export.wrap.network import STANDARD_DOMAINS, Arrays, check_domains
from tcmoa_runtime.errors import InputError, first_line
from tcmoa_runtime.graph.rules import read_rules

_FIRST_WITH_MODES: Final = 11
"""First operator set whose Resize states how it maps coordinates; before, it had one way."""

_USUAL_RANK: Final = 4
_STDERR: Final = 2

_CONTROL_FLOW: Final = ("If", "Loop", "Scan", "SequenceMap")
_RANDOM: Final = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
)
_REASONS: Final[Mapping[str, str]] = {
    "Loop": "control flow, e.g. the loop of a diffusion model",
    "GridSample": "warping by a flow field, as registration networks do",
}


def prepare_graph(
    proto: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]],
    constants: Arrays,
    outputs: Sequence[str],
    subject: str,
) -> onnx.ModelProto:
    """Make a graph static and plain.

    Args:
        proto: The graph; it is changed.
        shapes: Shapes of its inputs by name.
        constants: Values of inputs that become part of the graph.
        outputs: Outputs to keep; what only others need is cut.
        subject: Name of the network in messages.

    Returns:
        The graph in operator set 18 or newer, whose outputs have their static shapes.

    Raises:
        InputError: The graph holds what cannot be wrapped.
    """
    _fix_inputs(proto, shapes, constants)
    _cut(proto, outputs)
    _keep_standard_domain(proto, subject)
    _infer_outputs(proto)
    proto = _simplify(proto, subject)
    _check_operators(proto.graph.node, subject)
    proto = _simplify(_convert(proto, subject), subject)
    _check_shapes(proto, subject)
    return proto


def shape_of(info: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Return the static shape of a value."""
    return tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)


def _fix_inputs(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], constants: Arrays) -> None:
    graph = proto.graph
    names = {tensor.name for tensor in graph.initializer} | constants.keys()
    kept = [info for info in graph.input if info.name not in names]
    del graph.input[:]
    graph.input.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    for info in graph.input:  # by position: exporters may give the same symbolic name to different sizes
        info.type.tensor_type.ClearField("shape")
        for size in shapes[info.name]:
            info.type.tensor_type.shape.dim.add().dim_value = size
    del graph.value_info[:]


def _cut(proto: onnx.ModelProto, outputs: Sequence[str]) -> None:
    """Keep the outputs, and the nodes and constants that they depend on."""
    graph = proto.graph
    by_name = {info.name: info for info in graph.output}
    kept_outputs = [by_name[name] for name in outputs]
    del graph.output[:]
    graph.output.extend(kept_outputs)
    needed = set(outputs)
    nodes: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(_reads(node))
    nodes.reverse()
    del graph.node[:]
    graph.node.extend(nodes)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _infer_outputs(proto: onnx.ModelProto) -> None:
    """Replace the shapes of the outputs, which may be those of another frame, by inferred ones, fixed or not."""
    for info in proto.graph.output:
        info.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.output
    for info, found in zip(proto.graph.output, inferred, strict=True):
        if found.type.tensor_type.HasField("shape"):
            info.type.tensor_type.shape.CopyFrom(found.type.tensor_type.shape)
        else:  # onnxsim expects a rank
            for _ in range(_USUAL_RANK):
                info.type.tensor_type.shape.dim.add()


def _reads(node: onnx.NodeProto) -> Iterable[str]:
    """Return what a node reads, also inside its subgraphs."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)


def _keep_standard_domain(proto: onnx.ModelProto, subject: str) -> None:
    check_domains(proto, subject)
    used = [entry for entry in proto.opset_import if entry.domain in STANDARD_DOMAINS]
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", used[0].version))


def _simplify(proto: onnx.ModelProto, subject: str) -> onnx.ModelProto:
    """Fold constants and shapes."""
    import onnxsim  # type: ignore[import-untyped]  # which takes seconds to import

    try:
        with _silent_native_stderr():
            simplified, _ = onnxsim.simplify(proto)
        return onnx.shape_inference.infer_shapes(simplified, data_prop=True)
    except Exception as error:  # of protocol buffers, ONNX, ONNX Runtime or onnxsim
        raise InputError(
            f"its shapes cannot be computed: {first_line(error, 200)}",
            subject=subject,
            remedy="Check the conventions: inputs, layout, channels and size",
        ) from error


@contextlib.contextmanager
def _silent_native_stderr() -> Iterator[None]:
    """Send file descriptor 2 to the null device: onnxsim prints a line there for each value that it cannot fold yet."""
    sys.stderr.flush()
    try:
        stderr = os.dup(_STDERR)
    except OSError:  # closed
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, _STDERR)
        yield
    finally:
        os.dup2(stderr, _STDERR)
        os.close(stderr)
        os.close(null)


def _check_operators(nodes: Iterable[onnx.NodeProto], subject: str) -> None:
    """Raise InputError for operators that no bundle may hold."""
    allowed = read_rules().operators
    for node in nodes:
        kind = node.op_type
        if kind.encode() in allowed or kind == "Upsample":  # which the converter replaces
            continue
        if kind in _CONTROL_FLOW:
            reason = _REASONS.get(kind, "control flow")
        elif kind in _RANDOM:
            reason = "random numbers, as diffusion models draw"
        else:
            reason = _REASONS.get(kind, "which a bundle may not hold")
        raise InputError(
            f"the node '{node.name}' is the operator {kind} ({reason}); expected operators that only compute on "
            f"tensors of fixed shapes",
            subject=subject,
            remedy="This network cannot be wrapped as it is",
        )


def _convert(proto: onnx.ModelProto, subject: str) -> onnx.ModelProto:
    """Bring the operator set up to `OPSET`, or down to the newest that a bundle may have."""
    opset = proto.opset_import[0].version
    target = min(max(opset, OPSET), read_rules().opset[1])
    if opset == target:
        return proto
    try:
        converted: onnx.ModelProto = version_converter.convert_version(proto, target)
    except Exception as error:  # the converter raises RuntimeError and its own errors
        raise InputError(
            f"operator set {opset} cannot be converted to {target}: {first_line(error, 200)}",
            subject=subject,
            remedy=f"Export it again with opset_version={OPSET}",
        ) from error
    if opset < _FIRST_WITH_MODES:
        # The converter leaves out how Upsample and Resize of these sets map coordinates: the default is another one.
        for node in converted.graph.node:
            if node.op_type == "Resize" and not any(
                a.name == "coordinate_transformation_mode" for a in node.attribute
            ):
                node.attribute.append(
                    onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric")
                )
                if not any(a.name == "nearest_mode" for a in node.attribute):
                    node.attribute.append(onnx.helper.make_attribute("nearest_mode", "floor"))
    return converted


def _check_shapes(proto: onnx.ModelProto, subject: str) -> None:
    for info in proto.graph.output:
        dims = info.type.tensor_type.shape.dim
        if not dims or any(dim.dim_value <= 0 for dim in dims):
            raise InputError(
                f"the size of its output '{info.name}' depends on the pictures; expected fixed shapes",
                subject=subject,
                remedy="This network cannot be wrapped as it is",
            )
