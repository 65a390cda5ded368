"""From a model to a bundle on disk: fold, write, check, and only then rename."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tcmoa import TCMoA
from tcmoa.presets import preset_name
from tcmoa.weights import weights_hash
from tcmoa_export.bundle_files import describe_graph, tool_versions, write_graph
from tcmoa_export.export_check import check_export
from tcmoa_export.network import build_graph
from tcmoa_export.spec import ExportSpec, make_spec
from tcmoa_runtime import __version__
from tcmoa_runtime.bundle import FORMAT, MODEL_VERSION, Bundle
from tcmoa_runtime.bundle_write import check_target, new_bundle, write_manifest
from tcmoa_runtime.contract import SOURCE_ROLES
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.log import log_step
from tcmoa_runtime.manifest import contract_to_json
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.pairs import PairPaths, find_source_pairs
from tcmoa_runtime.typing import JsonObject, OnMessage

LICENSES: Final[Mapping[str, str]] = dict.fromkeys(
    (
        "07b9ac7e86723e2067f57d77cd434b29186d8e9350833aee396630709a270eb0",  # nano
        "57e181a32d7c75fd838476a4c6111db4ff1ed30769c942cace328bc93becf535",  # tiny
        "0fa01c9ec02cc632c191e883a67bc72ddabde6e169d6af551e16516ef0b8fef3",  # earlier nano
        "14e8297bc023feae262f65c0eee76b1300002c5c54c78140bb802e21126dd531",  # earlier tiny
    ),
    "CC-BY-NC-4.0",
)
"""Licenses of the weights in the package by their hash, of this version and of earlier ones; see LICENSE-WEIGHTS."""


def export_bundle(
    model: TCMoA,
    options: ExportOptions,
    out: str | os.PathLike[str],
    *,
    weights_source: str = "",
    on_message: OnMessage = log_step,
) -> Bundle:
    """Export a model for one task and frame size into a bundle.

    The bundle is written beside `out`, compared there with the unfolded model, and renamed. So a bundle at `out` has
    passed the comparison.

    Args:
        model: The model; it is not changed.
        options: Task, size and everything else that shapes the graph.
        out: Folder of the new bundle.
        weights_source: Name of the checkpoint, recorded in bundle.json.
        on_message: Called with each step.

    Raises:
        InputError: The options do not fit the model, or `out` must not be replaced.
        ParityError: The graph's results differ from the model's.
    """
    spec = make_spec(model, options)
    _check_weights(model)
    target = Path(out)
    check_target(target, overwrite=options.overwrite)
    pairs = find_source_pairs(options) if options.has_pairs else []
    with (
        new_bundle(target, overwrite=options.overwrite) as partial,
        _evaluation_mode(model, as_published=options.as_published),
    ):
        _write_bundle(partial, model, spec, pairs, weights_source, on_message)
    return Bundle.open(target)


def graph_stem(model: TCMoA, spec: ExportSpec) -> str:
    """Return the beginning of a graph's name: what it is, without its fingerprint."""
    options, layout = spec.options, spec.layout
    stored = "" if options.weight_storage == "fp32" else f"_weights-{options.weight_storage}"
    return f"tcmoa_{options.task}_{preset_name(model.sizes)}_{layout.width}x{layout.height}{stored}"


def _check_weights(model: TCMoA) -> None:
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise InputError(
                f"'{name}' holds NaN or infinity; expected finite numbers",
                subject="weights",
                remedy="Use another checkpoint",
            )


@contextmanager
def _evaluation_mode(model: TCMoA, *, as_published: bool) -> Iterator[None]:
    """Set evaluation mode and the kind of positions inside the with-block."""
    was_training, was_published = model.training, model.as_published
    model.eval()
    model.as_published = as_published
    try:
        yield
    finally:
        model.train(was_training)
        model.as_published = was_published


def _write_bundle(
    folder: Path,
    model: TCMoA,
    spec: ExportSpec,
    pairs: Sequence[PairPaths],
    weights_source: str,
    on_message: OnMessage,
) -> None:
    on_message("folding the model")
    proto = build_graph(model, spec, graph_stem(model, spec), __version__)
    on_message("writing the graph")
    sha256 = weights_hash(model)
    manifest = {
        **_describe_export(model, spec),
        "graph": {**describe_graph(proto), "parameters": sum(p.numel() for p in model.parameters())},
        "model": model.sizes.to_dict(),
        "weights": {"sha256": sha256, "source": weights_source},
        "tools": tool_versions(),
    }
    weights_license = spec.options.weights_license or LICENSES.get(sha256)
    if weights_license is not None:
        manifest["license"] = weights_license
    write_graph(folder, proto, manifest)
    del proto  # the check below needs the memory
    manifest["parity"] = check_export(Bundle.open(folder), model, spec, pairs, on_message).to_dict()
    write_manifest(folder, manifest)


def _describe_export(model: TCMoA, spec: ExportSpec) -> JsonObject:
    """Describe what was exported: the entries of bundle.json that the runtime reads."""
    options, layout, contract = spec.options, spec.layout, spec.contract
    return {
        "format": FORMAT.name,
        "format_version": MODEL_VERSION,
        "task": options.task,
        "preset": preset_name(model.sizes),
        "precision": options.precision,
        "weight_storage": options.weight_storage if options.precision == "fp32" else options.precision,
        "channel_order": options.channel_order,
        "color": options.color,
        "sources": SOURCE_ROLES[options.task],
        "frame": {
            "height": contract.height,
            "width": contract.width,
            "batch": contract.batch,
            "x_channels": contract.x_channels,
            "y_channels": contract.y_channels,
            "grid": list(contract.grid),
            "prompts": contract.prompts,
            "with_prompt": contract.with_prompt,
        },
        "fit": layout.fit,
        "token_pixels": layout.token_px,
        "as_published": options.as_published,
        "target": options.target,
        "routers": [model.sizes.tasks[router] for router in spec.routers],
        "prompt_default": {"scale": 1.0, "shift": 0.0},
        "contract": contract_to_json(contract),
    }
