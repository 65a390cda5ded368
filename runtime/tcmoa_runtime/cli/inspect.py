"""`tcmoa inspect`: describe a bundle and its engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tcmoa_runtime.alignment import corner_points, map_points
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli.engine_rows import engine_rows
from tcmoa_runtime.cli.options import BundleArgument, JsonOption
from tcmoa_runtime.cli.printing import print_json, print_line
from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.engine import Engine
from tcmoa_runtime.engine_folders import find_engines
from tcmoa_runtime.errors import BundleError
from tcmoa_runtime.images import format_size
from tcmoa_runtime.typing import JsonObject

MAX_KERNELS: Final = 5
"""Number of largest kernels that are shown of each engine; `--json` has all."""

Row = tuple[str, str]
"""Label and text of a line."""


def inspect(bundle: BundleArgument, as_json: JsonOption = False) -> None:
    """Describe a bundle, its engines and its comparison with the model, after checking all hashes.

    Examples:

        tcmoa inspect night-640x480
        tcmoa inspect night-640x480 --json
    """
    opened = Bundle.open(bundle)
    opened.check()
    try:
        engines = check_engines(opened)
        if as_json:
            print_json(summarize(opened, engines))
            return
        lines = bundle_rows(opened)
        for checked in engines:
            lines += checked_rows(checked)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, BundleError):
            raise
        # Entries that fusing does not need are not checked on opening.
        raise BundleError(
            f"bundle.json describes the graph incompletely ({type(error).__name__}: {error})",
            subject=bundle,
            remedy="Export it again with `tcmoa export`",
        ) from error
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        print_line(f"{label:<{width}}  {text}")


@dataclass(frozen=True)
class CheckedEngine:
    """An engine of the bundle: its description, or the reason why it must not be used."""

    name: str
    engine: Engine | None
    problem: str | None


def check_engines(bundle: Bundle) -> list[CheckedEngine]:
    """Open all engines of a bundle and compare their hashes; a damaged one does not hide the others."""
    checked = []
    for path in find_engines(bundle):
        try:
            engine = Engine.open(bundle, path)
            engine.read()
        except BundleError as error:
            checked.append(CheckedEngine(path.name, None, str(error)))
        else:
            checked.append(CheckedEngine(path.name, engine, None))
    return checked


def summarize(bundle: Bundle, engines: Sequence[CheckedEngine]) -> JsonObject:
    """Return the manifest with `engines` and the statistics of the first valid engine.

    The statistics have the keys that `tcmoa build` reports. Without an engine they are null, except those of the graph.
    """
    graph: Mapping[str, Any] = bundle.section("graph").values
    first: Mapping[str, Any] = next((c.engine.manifest for c in engines if c.engine is not None), {})
    constants = {k: v for k, v in graph.get("constants", {}).items() if not k.startswith(("int", "bool"))}
    return {
        **bundle.manifest,
        "kernels": first.get("kernels"),
        "attentions": graph.get("attentions"),
        "fused_attentions": first.get("fused_attentions"),
        "bytes_moved": first.get("bytes_moved"),
        "precisions": first.get("precisions", constants),
        "engines": [
            {"file": c.name, "problem": c.problem, **(c.engine.manifest if c.engine else {})} for c in engines
        ],
    }


def checked_rows(checked: CheckedEngine) -> list[Row]:
    """Describe an engine and its largest kernels."""
    if checked.engine is None:
        return [("engine", f"{checked.name}: must not be used: {checked.problem}")]
    manifest: Mapping[str, Any] = checked.engine.manifest
    rows = engine_rows(checked.engine)
    for kernel in manifest.get("largest", ())[:MAX_KERNELS]:  # none where the audit failed
        text = f"{kernel['bytes'] / 1e6:8.2f} MB  {kernel['kind']:11}  {_describe_kernel(kernel)}"
        rows.append(("", text))
    return rows


def _describe_kernel(kernel: Mapping[str, Any]) -> str:
    """Name the ONNX nodes that a kernel computes, and its inputs."""
    scopes = list(dict.fromkeys(node.rsplit("/", 1)[0] for node in kernel["nodes"]))
    shapes = ", ".join("x".join(map(str, view["shape"])) for view in kernel["inputs"][:2])
    return f"{', '.join(scopes[:2]) or kernel['name']} on {shapes} {kernel['precision']}"


def _describe_precision(bundle: Bundle) -> str:
    stored = bundle.weight_storage
    return (
        bundle.precision if stored == bundle.precision else f"{bundle.precision}, weights stored in {stored}"
    )


def bundle_rows(bundle: Bundle) -> list[Row]:
    """Describe a bundle."""
    manifest: Mapping[str, Any] = bundle.manifest
    contract, roles = bundle.contract, bundle.roles
    graph, weights = manifest["graph"], manifest["weights"]
    rows = [
        ("task", f"{bundle.task}: x is {roles['x']}, y is {roles['y']}"),
        ("model", f"{bundle.preset}, {graph.get('parameters', 0) / 1e6:.2f} M parameters"),
        ("weights", f"{weights['source'] or 'unnamed'}, SHA-256 {weights['sha256'][:12]}…"),
        ("frame", f"{format_size(bundle.size)} {bundle.channel_order}, batch {contract.batch}"),
        ("fit", _describe_fit(bundle)),
        ("color", str(manifest.get("color", "rgb"))),
        ("precision", _describe_precision(bundle)),
        *_network_rows(bundle),
        *_quantization_rows(manifest.get("quantization"), bundle),
        *_alignment_rows(bundle),
        *(("input", _describe_tensor(spec)) for spec in contract.inputs),
        *(("output", _describe_tensor(spec)) for spec in contract.outputs),
        (
            "graph",
            f"{graph.get('nodes')} nodes"
            + (
                f", {graph.get('attentions')} windowed attentions, "
                f"tokens in the order for {str(manifest.get('target', 'gpu')).upper()}s"
                if bundle.network is None
                else ""
            ),
        ),
        *_parity_rows(manifest),
    ]
    rows += [("file", f"{name}, {entry.bytes:,} bytes, hash correct") for name, entry in bundle.files.items()]
    rows.append(("made with", ", ".join(f"{k} {v}" for k, v in manifest.get("tools", {}).items())))
    return rows


def _describe_fit(bundle: Bundle) -> str:
    if bundle.network is None:
        return f"{bundle.fit}, {format_size(bundle.contract.grid)} tokens of {bundle.token_pixels} pixels"
    if bundle.can_tile:
        return f"tiles of larger frames start at multiples of {bundle.tile_step} pixels"
    return "frames of other sizes are resized: each pixel depends on the whole frame"


def _network_rows(bundle: Bundle) -> list[Row]:
    """Describe the prompt of a TC-MoA model, or what is around a wrapped network."""
    network = bundle.network
    if network is None:
        alpha, beta = bundle.default_prompt
        manifest: Mapping[str, Any] = bundle.manifest
        return [
            ("routers", ", ".join(manifest.get("routers", []))),
            ("prompt", f"alpha {alpha:g}, beta {beta:g} by default"),
        ]
    conventions = ", ".join(f"{key} {value}" for key, value in network.conventions.items())
    stretches = bundle.contract.stretches
    return [
        ("network", f"{network.name}, wrapped; license {network.license or 'not given'}"),
        *([("conventions", conventions)] if conventions else []),
        *([("stretch", f"{stretches} pictures by their own minimum and maximum")] if stretches else []),
        ("prompt", "none"),
    ]


def _describe_tensor(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype} {list(spec.shape)}"


def _alignment_rows(bundle: Bundle) -> list[Row]:
    alignment = bundle.alignment
    if alignment is None:
        return []
    corners = corner_points(bundle.size)
    move = float(np.hypot(*(map_points(alignment.matrix, corners) - corners[:2])).max())
    return [
        (
            "alignment",
            f"{alignment.source} is moved by up to {move:.1f} pixels ({alignment.model}, uncertainty "
            f"{alignment.residual_px:.2f} pixels); gradient correlation {alignment.score_before:.3f} before, "
            f"{alignment.score_after:.3f} after, {alignment.pairs} pairs",
        )
    ]


def _quantization_rows(entry: Any, bundle: Bundle) -> list[Row]:
    if not isinstance(entry, dict):
        return []
    layers = "linear layers" if bundle.network is None else "convolutions and products"
    kept = entry.get("kept_float32") or []
    float32 = f"; float32: {', '.join(map(str, kept))}" if kept else ""
    psnr = entry.get("psnr_db")
    return [
        (
            "8 bits",
            f"{entry.get('linears')} {layers}, smoothing {entry.get('smoothing')}, "
            f"ranges {entry.get('ranges')}{float32}; {'identical' if psnr is None else f'{psnr} dB'} to float32 "
            f"on {len(entry.get('held_pairs', []))} pairs",
        )
    ]


def _parity_rows(manifest: Mapping[str, Any]) -> list[Row]:
    parity = manifest.get("parity")
    if not parity:
        return []
    reference = "float32 bundle" if "quantization" in manifest else "PyTorch model"
    return [
        (
            "parity",
            f"largest difference {parity['max_difference']} gray levels, {parity['differing']:.4%} of values differ "
            f"from the {reference} ({parity['frames']} frames, {parity['backend']})",
        )
    ]
