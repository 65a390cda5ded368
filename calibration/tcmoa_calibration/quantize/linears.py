"""The backbone's linears in an exported graph: what low precision is for.

They do nearly all of the multiplying. Routers, adapters, LayerNorms, attention's own products and the
re-standardisation are not touched: they are small, or decide much.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import onnx

from tcmoa_runtime.errors import InputError

_NAME: Final = re.compile(r"((?:encoder|decoder)\.\d+)/(attention|mlp)/MatMul(\.\d+)?")


@dataclass(frozen=True)
class Linear:
    """A MatMul [M, C] x [C, N] with a constant weight."""

    node: str
    source: str
    """Name of its input, the activations [M, C]."""
    weight: str
    """Name of its weight [C, N]."""
    norm: str | None
    """Name of the LayerNormalization that makes its input, where one does."""
    group: str
    """The half block that it belongs to, as `encoder.0/mlp`: what is kept in float32 together."""
    channels: tuple[int, int]
    """(C, N)."""


def backbone_linears(model: onnx.ModelProto) -> list[Linear]:
    """All of them in the graph's order.

    Raises InputError when there is none: the graph is no float32 one of this exporter.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for node in model.graph.node:
        match = _NAME.fullmatch(node.name)
        if node.op_type != "MatMul" or match is None or node.input[1] not in constants:
            continue
        maker = makers[node.input[0]]
        found.append(
            Linear(
                node.name,
                node.input[0],
                node.input[1],
                maker.name if maker.op_type == "LayerNormalization" else None,
                f"{match[1]}/{match[2]}",
                (constants[node.input[1]].dims[0], constants[node.input[1]].dims[1]),
            )
        )
    if not found:
        raise InputError(
            "the graph holds no float32 linears of a backbone: export the bundle with --precision fp32"
        )
    return found


def groups_of(linears: list[Linear]) -> dict[str, list[Linear]]:
    """Linears by group, in the graph's order."""
    groups: dict[str, list[Linear]] = {}
    for linear in linears:
        groups.setdefault(linear.group, []).append(linear)
    return groups
