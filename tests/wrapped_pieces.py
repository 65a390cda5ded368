"""A small network of others in a bundle: its graph is written by hand, so that nothing is trained or exported."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tcmoa_export.wrapped_bundle import WrappedDescription, write_wrapped_bundle
from tcmoa_runtime.contract import Contract
from tcmoa_runtime.wrapped_network import WrappedNetwork

HEIGHT, WIDTH = 40, 56

NETWORK = WrappedNetwork(
    name="two-layers",
    sha256="ab" * 32,
    source="two_layers.onnx",
    license="MIT",
    conventions={"range_in": "0..1"},
)


def contract_of(height=HEIGHT, width=WIDTH, **changes):
    """Return the contract of a wrapped network."""
    return Contract(height, width, (0, 0), prompts=0, with_control=False, **changes)


def two_layers(contract, *, channels=8, seed=0):
    """Return a graph of two convolutions that follows the contract.

    With `stretches=1`, x is stretched by its minimum and maximum, or by those that are held.
    """
    rng = np.random.default_rng(seed)
    nodes, constants = [], []

    def constant(name, value, dtype=np.float32):
        constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def op(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], name=f"net/{output}", **attributes))
        return output

    planes = []
    for source in ("x", "y"):
        values = op("Cast", [source], f"{source}_float", to=TensorProto.FLOAT)
        values = op("Transpose", [values], f"{source}_planes", perm=[0, 3, 1, 2])
        if source == "x" and contract.stretches:
            values = _stretch(op, constant, values)
        else:
            values = op("Div", [values, constant(f"{source}_range", 255.0)], f"{source}_unit")
        planes.append(values)
    joined = op("Concat", planes, "joined", axis=1)
    count = contract.x_channels + contract.y_channels
    first = rng.normal(0, 0.3, (channels, count, 3, 3))
    second = rng.normal(0, 0.3, (3, channels, 3, 3))
    hidden = op("Conv", [joined, constant("w1", first)], "hidden", pads=[1, 1, 1, 1])
    active = op("Relu", [hidden], "active")
    output = op("Conv", [active, constant("w2", second)], "output", pads=[1, 1, 1, 1])
    unit = op("Sigmoid", [output], "unit")
    scaled = op("Mul", [unit, constant("range", 255.0)], "scaled")
    rounded = op("Round", [scaled], "rounded")
    pixels = op("Transpose", [rounded], "pixels", perm=[0, 2, 3, 1])
    op("Cast", [pixels], "fused", to=TensorProto.UINT8)
    types = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}

    def infos(specs):
        return [helper.make_tensor_value_info(s.name, types[s.dtype], s.shape) for s in specs]

    graph = helper.make_graph(nodes, "two-layers", infos(contract.inputs), infos(contract.outputs), constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _stretch(op, constant, planes):
    """Stretch x by its own extremes, or by the held ones, and output its own ones as `extremes`."""
    axes = constant("axes", [1, 2, 3], np.int64)
    own = [op(f"Reduce{kind}", [planes, axes], f"own_{kind}", keepdims=1) for kind in ("Min", "Max")]
    flat = [op("Squeeze", [v, constant(f"{v}_axis", [3], np.int64)], f"{v}_flat") for v in own]
    op("Concat", flat, "extremes", axis=2)
    held = op("Unsqueeze", ["held_extremes", constant("held_axis", [3], np.int64)], "held_4d")
    sides = []
    for index, name in enumerate(("low", "high")):
        ends = [constant(f"{name}_{end}", [index + end], np.int64) for end in (0, 1)]
        sides.append(op("Slice", [held, *ends, constant(f"{name}_axis", [2], np.int64)], f"held_{name}"))
    is_held = op("LessOrEqual", sides, "is_held")
    low, high = (op("Where", [is_held, h, o], f"use_{o}") for h, o in zip(sides, own, strict=True))
    span = op("Max", [op("Sub", [high, low], "difference"), constant("least", 1e-6)], "span")
    unit = op("Div", [op("Sub", [planes, low], "above"), span], "x_stretched")
    return op("Clip", [unit, constant("zero", 0.0), constant("one", 1.0)], "x_unit")


def write_two_layers(
    out, *, task="vif", network=NETWORK, seed=0, description=None, check=None, overwrite=False, **changes
):
    """Write the small network as a bundle and return its path.

    Args:
        out: The folder.
        task: Task of the bundle.
        network: What bundle.json says about the network.
        seed: Seed of its weights.
        description: Further fields of `WrappedDescription`.
        check: As for `write_wrapped_bundle`.
        overwrite: As for `write_wrapped_bundle`.
        **changes: Fields of the contract.
    """
    contract = contract_of(**changes)
    details = {"can_tile": not contract.stretches, **(description or {})}
    described = WrappedDescription(task=task, contract=contract, network=network, **details)
    write_wrapped_bundle(two_layers(contract, seed=seed), described, out, check=check, overwrite=overwrite)
    return out
