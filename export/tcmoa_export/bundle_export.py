"""From a model to a bundle on disk: fold, write, check, and only then put in place."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import convert_model_to_external_data

from tcmoa import TCMoA
from tcmoa.presets import preset_name
from tcmoa.weights import weights_hash
from tcmoa_export.gate import run_gate
from tcmoa_export.network import build_graph
from tcmoa_export.parity import Parity
from tcmoa_export.spec import ExportSpec, make_spec
from tcmoa_runtime import __version__
from tcmoa_runtime.bundle import FORMAT, GRAPH, GRAPH_DATA, MAX_INLINE_BYTES, Bundle
from tcmoa_runtime.bundle_write import check_target, record_files, new_bundle, write_manifest
from tcmoa_runtime.contract import SOURCE_ROLES
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.manifest import contract_to_json
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.pairs import PairPaths, find_pairs
from tcmoa_runtime.typing import OnMessage, ignore_message


def export_bundle(
    model: TCMoA,
    options: ExportOptions,
    out: str | os.PathLike[str],
    *,
    weights_source: str = "",
    on_message: OnMessage = ignore_message,
) -> Bundle:
    """Export a model for one task and frame size into a bundle.

    The bundle is written beside `out`, compared there with the unfolded model, and renamed: a bundle at `out` is a
    bundle that passed.

    Args:
        model: The model; it is left as it was.
        options: Task, size and everything else that shapes the graph.
        out: Folder of the new bundle.
        weights_source: Where the weights come from, for the manifest.
        on_message: Called with each step.

    Raises:
        InputError: The options do not fit the model, or `out` must not be replaced.
        GateError: The graph does not give the model's images.
    """
    spec = make_spec(model, options)
    _check_finite(model)
    place = Path(out)
    check_target(place, overwrite=options.overwrite)
    found = find_pairs(options.pairs) if options.pairs is not None else []
    with new_bundle(place) as partial, _evaluated(model, options.as_published):
        _write(partial, model, spec, found, weights_source, on_message)
    return Bundle.open(place)


def _check_finite(model: TCMoA) -> None:
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise InputError(
                f"the weights are broken: '{name}' holds NaN or infinity; give another checkpoint"
            )


@contextmanager
def _evaluated(model: TCMoA, as_published: bool) -> Iterator[None]:
    """The model in eval mode with the wanted positions; both are put back."""
    training, quirk = model.training, model.as_published
    model.eval()
    model.as_published = as_published
    try:
        yield
    finally:
        model.train(training)
        model.as_published = quirk


def _write(
    folder: Path,
    model: TCMoA,
    spec: ExportSpec,
    pairs: Sequence[PairPaths],
    weights_source: str,
    say: Callable[[str], None],
) -> None:
    say("folding the model")
    preset = preset_name(model.sizes)
    layout = spec.layout
    stem = f"tcmoa_{spec.task}_{preset}_{layout.width}x{layout.height}"
    proto = build_graph(model, spec, stem, __version__)
    say("writing the graph")
    figures = _graph_figures(proto, model)
    _write_graph(folder, proto)
    manifest = _manifest(model, spec, preset, proto.graph.name, weights_source, figures)
    del proto  # the check below needs the memory
    record_files(folder, manifest)
    write_manifest(folder, manifest)
    parity: Parity = run_gate(Bundle.open(folder), model, spec, pairs, say)
    manifest["parity"] = parity.to_dict()
    write_manifest(folder, manifest)


def _write_graph(folder: Path, proto: onnx.ModelProto) -> None:
    inline = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    if inline > MAX_INLINE_BYTES:
        convert_model_to_external_data(
            proto, all_tensors_to_one_file=True, location=GRAPH_DATA, size_threshold=1024
        )
        onnx.save_model(proto, folder / GRAPH)
    else:
        (folder / GRAPH).write_bytes(proto.SerializeToString())


def _graph_figures(proto: onnx.ModelProto, model: TCMoA) -> dict[str, Any]:
    blocks = sum(1 for node in proto.graph.node if node.op_type == "Softmax" and "/attention/" in node.name)
    counts: dict[str, int] = {}
    for tensor in proto.graph.initializer:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        kind = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16"}.get(kind, kind)
        size = 1
        for side in tensor.dims:
            size *= side
        counts[kind] = counts.get(kind, 0) + size
    return {
        "nodes": len(proto.graph.node),
        "attentions": blocks,
        "constants": counts,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _manifest(
    model: TCMoA, spec: ExportSpec, preset: str, name: str, weights_source: str, figures: dict[str, Any]
) -> dict[str, Any]:
    layout, contract = spec.layout, spec.contract
    tools = {
        package: importlib.metadata.version(package) for package in ("torch", "onnx", "onnxruntime", "numpy")
    }
    return {
        "format": FORMAT.name,
        "format_version": FORMAT.version,
        "task": spec.task,
        "preset": preset,
        "precision": spec.precision,
        "channel_order": spec.channel_order,
        "color": spec.color,
        "sources": SOURCE_ROLES[spec.task],
        "frame": {
            "height": layout.height,
            "width": layout.width,
            "batch": spec.batch,
            "x_channels": spec.x_channels,
            "y_channels": spec.y_channels,
            "grid": list(layout.grid),
            "prompts": contract.prompts,
            "with_prompt": spec.with_prompt,
        },
        "fit": layout.fit,
        "token_pixels": layout.token,
        "as_published": spec.as_published,
        "target": spec.target,
        "routers": [model.sizes.tasks[r] for r in spec.routers],
        "prompt_default": {"scale": 1.0, "shift": 0.0},
        "contract": contract_to_json(contract),
        "graph": {"name": name, **figures},
        "model": model.sizes.to_dict(),
        "weights": {"sha256": weights_hash(model), "source": weights_source},
        "tools": {"tcmoa": __version__, **tools},
    }
