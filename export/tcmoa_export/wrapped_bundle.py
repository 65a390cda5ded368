"""From the graph of a wrapped network to a bundle on disk: write, check, and only then rename."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from tcmoa_export.bundle_files import describe_graph, tool_versions, write_graph
from tcmoa_runtime.bundle import FORMAT, MAX_TILE_STEP, WRAPPED_VERSION, Bundle
from tcmoa_runtime.bundle_write import check_target, new_bundle, write_manifest
from tcmoa_runtime.contract import SOURCE_ROLES, Contract, Task
from tcmoa_runtime.errors import BundleError
from tcmoa_runtime.graph_forms import name_nodes
from tcmoa_runtime.manifest import contract_to_json
from tcmoa_runtime.options.option import check_range
from tcmoa_runtime.typing import ChannelOrder, JsonObject
from tcmoa_runtime.wrapped_network import WrappedNetwork

BundleCheck = Callable[[Bundle], JsonObject]
"""Compares a written bundle with the original network; returns what bundle.json says about it, or raises."""

_FLOATS: Final = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.DOUBLE,
)
_FINGERPRINT_DIGITS: Final = 12


@dataclass(frozen=True, kw_only=True)
class WrappedDescription:
    """What bundle.json says about a wrapped network.

    Attributes:
        task: Task of the bundle.
        contract: Contract of the graph, without control of a prompt.
        network: The network.
        channel_order: Order of the three channels of sources and result.
        color: Where the color of the result is from, e.g. `rgb` or `luma`.
        tile_step: Multiple of pixels at which the tiles of larger frames may start, 1 to 64: that of the network's
            own size, so that a tile is computed as the same pixels of a larger frame.
        can_tile: Whether tiles may be fused each by itself. False where a pixel depends on the whole frame, e.g. on its
            minimum and maximum: then frames of other sizes are resized.
    """

    task: Task
    contract: Contract
    network: WrappedNetwork
    channel_order: ChannelOrder = "rgb"
    color: str = "rgb"
    tile_step: int = 8
    can_tile: bool = True

    def __post_init__(self) -> None:
        """Refuse a contract with a prompt, and a step out of range."""
        check_range("tile_step", self.tile_step, 1, MAX_TILE_STEP)
        if self.contract.with_control:
            raise ValueError("the contract has a prompt; expected Contract(with_control=False)")
        if self.contract.stretches and self.can_tile:
            raise ValueError("tiles stretched by their own extremes would differ; expected can_tile=False")


def write_wrapped_bundle(
    proto: onnx.ModelProto,
    description: WrappedDescription,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    check: BundleCheck | None = None,
) -> Bundle:
    """Write the graph of a wrapped network as a bundle.

    The bundle is written beside `out`, checked there, and renamed: what is at `out` has passed the check.

    Args:
        proto: The graph: inputs and outputs of the contract, in float32. Its name and metadata are replaced.
        description: What bundle.json says about it.
        out: Folder of the new bundle.
        overwrite: Replace a bundle at `out`.
        check: Compares the bundle with the original network; its result becomes the entry `gate` of bundle.json.

    Raises:
        InputError: `out` must not or cannot be written.
        BundleError: The graph holds what a bundle may not hold, or does not follow the contract.
    """
    target = Path(out)
    check_target(target, overwrite=overwrite)
    with new_bundle(target, overwrite=overwrite) as partial:
        name_nodes(proto)
        proto.graph.name = _graph_name(proto, description)
        manifest = _describe(proto, description)
        write_graph(partial, proto, manifest)
        try:
            bundle = Bundle.open(partial)
            bundle.check()
        except BundleError as error:  # of files that are gone when the message is read
            raise BundleError(
                error.problem, subject=target, remedy="This network cannot be wrapped as it is"
            ) from error
        if check is not None:
            manifest["gate"] = check(bundle)
            write_manifest(partial, manifest)
    return Bundle.open(target)


def _graph_name(proto: onnx.ModelProto, description: WrappedDescription) -> str:
    """Return a name that is unique to the graph and its weights."""
    contract = description.contract
    size = f"{contract.width}x{contract.height}"
    stem = re.sub(r"[^A-Za-z0-9-]+", "-", description.network.name).strip("-") or "network"
    proto.graph.name = ""
    del proto.metadata_props[:]
    fingerprint = hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
    return f"wrapped_{description.task}_{stem}_{size}_{fingerprint[:_FINGERPRINT_DIGITS]}"


def _describe(proto: onnx.ModelProto, description: WrappedDescription) -> JsonObject:
    contract, network = description.contract, description.network
    parameters = sum(math.prod(t.dims) for t in proto.graph.initializer if t.data_type in _FLOATS)
    manifest: JsonObject = {
        "format": FORMAT.name,
        "format_version": WRAPPED_VERSION,
        "network": network.to_json(),
        "task": description.task,
        "precision": "fp32",
        "weight_storage": "fp32",
        "channel_order": description.channel_order,
        "color": description.color,
        "sources": dict(SOURCE_ROLES[description.task]),
        "frame": {
            "height": contract.height,
            "width": contract.width,
            "batch": contract.batch,
            "x_channels": contract.x_channels,
            "y_channels": contract.y_channels,
            "stretches": contract.stretches,
        },
        "fit": "pad" if description.can_tile else "resize",
        "tile_step": description.tile_step,
        "contract": contract_to_json(contract),
        "graph": {**describe_graph(proto), "parameters": parameters},
        "weights": {"sha256": network.sha256, "source": network.source},
        "tools": tool_versions(),
    }
    if network.license is not None:
        manifest["license"] = network.license
    return manifest
