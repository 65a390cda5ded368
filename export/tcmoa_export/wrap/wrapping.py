"""Wrapping a network: plan, graph, bundle, gate."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnx

from tcmoa_export.graph_session import GraphSession
from tcmoa_export.parity import Parity
from tcmoa_export.wrap.gate import (
    MAX_PAIRS,
    ReferenceComparison,
    check_against_network,
    compare_with_reference,
    depends_on_whole_frame,
    find_references,
    read_pairs,
)
from tcmoa_export.wrap.network import Network, OnnxNetwork
from tcmoa_export.wrap.plan import Plan
from tcmoa_export.wrap.planning import make_plan, wrapped_graph
from tcmoa_export.wrapped_bundle import WrappedDescription, write_wrapped_bundle
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.bundle_write import check_target
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import format_size
from tcmoa_runtime.log import log_step
from tcmoa_runtime.options.wrap import Conventions, WrapOptions
from tcmoa_runtime.pairs import PairPaths, find_source_pairs
from tcmoa_runtime.shipped_pairs import shipped_pairs
from tcmoa_runtime.typing import JsonObject, OnMessage
from tcmoa_runtime.wrapped_network import MAX_NAME_CHARACTERS, WrappedNetwork, is_network_name

if TYPE_CHECKING:
    from torch.nn import Module

CONVENTIONS_SUFFIX: Final = ".toml"

_LOCAL: Final = frozenset(
    {
        "Abs",
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "Conv",
        "ConvTranspose",
    }
    | {
        "DepthToSpace",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gather",
        "Gelu",
        "Greater",
        "HardSigmoid",
        "HardSwish",
    }
    | {
        "Identity",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
        "Neg",
        "PRelu",
        "Pad",
        "Pow",
    }
    | {
        "Relu",
        "Resize",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Slice",
        "Softplus",
        "SpaceToDepth",
        "Split",
        "Sqrt",
    }
    | {"Sub", "Sum", "Tanh", "Transpose", "Where"}
)
"""Operators with which a pixel depends on its surroundings only. (MatMul over channels is among the others.)"""


@dataclass(frozen=True)
class WrapReport:
    """What came of wrapping a network.

    Attributes:
        bundle: The bundle.
        read: What was read off the network, in words.
        conventions: The conventions, complete.
        parity: The bundle against the original network with its conventions in NumPy.
        reference: The bundle against pictures of the network's own script, where there were any.
        can_tile: Whether tiles of larger frames may be fused each by itself.
    """

    bundle: Bundle
    read: tuple[str, ...]
    conventions: Conventions
    parity: Parity
    reference: ReferenceComparison | None
    can_tile: bool

    def describe(self) -> str:
        """Describe the bundle and how it compares with the network, in one line."""
        bundle, parity, reference = self.bundle, self.parity, self.reference
        psnr = "" if parity.psnr_db is None else f", {parity.psnr_db} dB"
        line = (
            f"{bundle.task}, {format_size(bundle.size)}; against the network: largest difference "
            f"{parity.max_difference} gray levels, {parity.differing:.4%} of values differ{psnr}"
        )
        if reference is None:
            return line
        equal = "equal" if reference.psnr_db is None else f"{reference.psnr_db} dB"
        unlike = "" if reference.is_close else " (unlike them: a convention is wrong)"
        return (
            f"{line}; against {len(reference.pictures)} reference pictures: {equal}, largest difference "
            f"{reference.max_difference}, {reference.beyond_one:.4%} of values by more than one{unlike}"
        )


def wrap_network(
    network: str | os.PathLike[str] | Module,
    options: WrapOptions,
    out: str | os.PathLike[str],
    *,
    on_message: OnMessage = log_step,
) -> WrapReport:
    """Wrap a fusion network into a bundle: uint8 frames in, one uint8 frame out.

    The bundle is compared with the original network before it is put in place.

    Args:
        network: An ONNX file, or a PyTorch module.
        options: Task, size, and the conventions of the network.
        out: Folder of the new bundle.
        on_message: Called with each step.

    Raises:
        QuestionsError: A convention is neither given nor said by the network.
        InputError: The network cannot be read or wrapped, or `out` must not be replaced.
        ParityError: The bundle's results differ from the network's.
    """
    target = Path(out)
    check_target(target, overwrite=options.overwrite)
    on_message("reading the network")
    opened = open_network(network)
    path = find_conventions(network, options)
    if path is not None:
        on_message(f"reading the conventions in {path}")
    conventions = read_conventions(network, options)
    _name_of(opened, options)  # what is wrong with it is said before the work
    pairs = find_source_pairs(options) if options.has_pairs else shipped_pairs(options.task)
    if options.reference is not None:
        find_references(options.reference, pairs)
    plan = make_plan(
        opened,
        conventions,
        task=options.task,
        size=options.size,
        batch=options.batch,
        channel_order=options.channel_order,
    )
    on_message("building the graph")
    proto = wrapped_graph(opened, plan)
    checked = _Check(opened, plan, pairs, options, on_message)
    can_tile = _can_tile(proto, plan, pairs)
    description = _describe(opened, plan, network, options, can_tile=can_tile)
    bundle = write_wrapped_bundle(proto, description, target, overwrite=options.overwrite, check=checked.run)
    assert checked.parity is not None
    return WrapReport(
        bundle, plan.read, plan.conventions, checked.parity, checked.reference, description.can_tile
    )


class _Check:
    """The check of a written bundle, and what it found."""

    def __init__(
        self,
        network: Network,
        plan: Plan,
        pairs: Sequence[PairPaths],
        options: WrapOptions,
        on_message: OnMessage,
    ) -> None:
        self._network, self._plan, self._pairs = network, plan, pairs
        self._options, self._on_message = options, on_message
        self.parity: Parity | None = None
        self.reference: ReferenceComparison | None = None

    def run(self, bundle: Bundle) -> JsonObject:
        """Check a bundle and return what bundle.json says about it."""
        plan, on_message = self._plan, self._on_message
        backend = load_backend(bundle, "onnxruntime")
        try:
            frames = read_pairs(self._pairs[:MAX_PAIRS], plan)
            self.parity = check_against_network(backend, self._network, plan, frames, on_message)
            found = self.parity.to_dict()
            if self._options.reference is not None:
                self.reference = compare_with_reference(
                    backend, plan, self._pairs, self._options.reference, on_message
                )
                found["reference"] = self.reference.to_dict()
        finally:
            backend.close()
        return found


def open_network(network: str | os.PathLike[str] | Module) -> Network:
    """Open an ONNX file, or prepare a PyTorch module.

    Raises:
        InputError: It cannot be read.
    """
    if isinstance(network, str | os.PathLike):
        return OnnxNetwork(Path(network))
    from tcmoa_export.wrap.modules import ModuleNetwork

    return ModuleNetwork(network)


def find_conventions(network: str | os.PathLike[str] | Module, options: WrapOptions) -> Path | None:
    """Return the file of the conventions: the given one, or that beside the network."""
    if options.conventions_file is not None or not isinstance(network, str | os.PathLike):
        return options.conventions_file
    beside = Path(network).with_suffix(CONVENTIONS_SUFFIX)
    return beside if beside.is_file() else None


def read_conventions(network: str | os.PathLike[str] | Module, options: WrapOptions) -> Conventions:
    """Return the conventions of the file, if any, with those of the options in place of its own.

    Raises:
        InputError: The file cannot be read, or a value is wrong.
    """
    path = find_conventions(network, options)
    found = options.conventions
    if path is not None:
        found = Conventions.from_toml(path).overridden_by(found, options.overrides)
    found.check_ranges()
    return found


def _can_tile(proto: onnx.ModelProto, plan: Plan, pairs: Sequence[PairPaths]) -> bool:
    """Whether tiles of a larger frame may be fused each by itself: no pixel depends on the whole frame.

    Convolutions, pooling and resampling reach so far only; where there are other operators, it is tried out.
    """
    given = plan.conventions
    if plan.stretches or given.small_inputs or given.chroma_weights == "picture":
        return False
    if {node.op_type for node in proto.graph.node} <= _LOCAL:
        return True
    session = GraphSession(proto, plan.contract, "fp32")
    return not depends_on_whole_frame(session, plan, read_pairs(pairs[:1], plan)[0])


def _name_of(network: Network, options: WrapOptions) -> str:
    """Return the name as given, or that of the network without what a name may not hold.

    Raises:
        InputError: The given one is none.
    """
    if options.name is None:
        name = re.sub(r"[^ -~]+", "-", network.name).strip("- ")
        return name[:MAX_NAME_CHARACTERS] or "network"
    if not is_network_name(options.name):
        raise InputError(
            f"{options.name!r}; expected 1 to {MAX_NAME_CHARACTERS} printable ASCII characters",
            subject="name",
        )
    return options.name


def _describe(
    network: Network,
    plan: Plan,
    given: str | os.PathLike[str] | Module,
    options: WrapOptions,
    *,
    can_tile: bool,
) -> WrappedDescription:
    source = options.source or (Path(given).name if isinstance(given, str | os.PathLike) else network.name)
    return WrappedDescription(
        task=options.task,
        contract=plan.contract,
        network=WrappedNetwork(
            name=_name_of(network, options),
            sha256=network.sha256,
            source=source,
            license=options.license,
            conventions=plan.conventions.to_json(),
        ),
        channel_order=plan.channel_order,
        color=plan.conventions.color_out or "rgb",
        tile_step=plan.conventions.multiple,
        can_tile=can_tile,
    )
