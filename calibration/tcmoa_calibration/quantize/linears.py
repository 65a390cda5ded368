"""The linear layers of the backbone in an exported graph, which are what gets quantized.

They do nearly all of the multiplications. Routers, adapters, LayerNorms, the products inside attention and the
re-standardization stay in float32: they are small, or the image depends strongly on them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import onnx

from tcmoa_runtime.errors import InputError

_NAME: Final = re.compile(r"((?:encoder|decoder)\.\d+)/(attention|mlp)/MatMul(\.\d+)?")


@dataclass(frozen=True)
class BackboneLinear:
    """A MatMul [M, C] x [C, N] with a constant weight.

    Attributes:
        node: Name of the MatMul and of its result, [M, N].
        input: Name of its input, the activations [M, C].
        weight: Name of its weight [C, N].
        norm: Name of the LayerNormalization that gives its input; None if something else does.
        group: The half block that it belongs to, e.g. `encoder.0/mlp`; the layers of a group are quantized together.
        shape: (C, N).
    """

    node: str
    input: str
    weight: str
    norm: str | None
    group: str
    shape: tuple[int, int]

    @property
    def is_projection(self) -> bool:
        """Whether it is the projection of an attention's result."""
        return self.norm is None and self.group.endswith("/attention")

    @property
    def is_before_gelu(self) -> bool:
        """Whether it is the first layer of an MLP."""
        return self.norm is not None and self.group.endswith("/mlp")


def backbone_linears(model: onnx.ModelProto) -> list[BackboneLinear]:
    """Return the linear layers of the backbone in the order of the graph.

    Raises:
        InputError: There are none, so the graph is not a float32 graph of this exporter.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for node in model.graph.node:
        match = _NAME.fullmatch(node.name)
        if node.op_type != "MatMul" or match is None or node.input[1] not in constants:
            continue
        producer, weight = producers[node.input[0]], constants[node.input[1]]
        found.append(
            BackboneLinear(
                node=node.name,
                input=node.input[0],
                weight=node.input[1],
                norm=producer.name if producer.op_type == "LayerNormalization" else None,
                group=f"{match[1]}/{match[2]}",
                shape=(weight.dims[0], weight.dims[1]),
            )
        )
    if not found:
        raise InputError(
            "no linear layers with float32 weights; expected those of the backbone",
            subject="graph",
            remedy="Export the bundle with {precision}",
            settings={"precision": "fp32"},
        )
    return found


def group_linears(linears: Sequence[BackboneLinear]) -> dict[str, list[BackboneLinear]]:
    """Return the layers by group, in the order of the graph."""
    groups: dict[str, list[BackboneLinear]] = {}
    for linear in linears:
        groups.setdefault(linear.group, []).append(linear)
    return groups
