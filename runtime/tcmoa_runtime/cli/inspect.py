"""`tcmoa inspect`: what a bundle is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer

from tcmoa_runtime.alignment import corners, moved
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli.build import engine_rows
from tcmoa_runtime.cli.progress import print_json
from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.engine import Engine, find_engines
from tcmoa_runtime.errors import BundleError

LARGEST: Final = 5
"""How many of an engine's largest kernels are shown; `--json` has them all."""


def inspect(
    bundle: Annotated[Path, typer.Argument(help="The bundle.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a bundle is and what it was checked for; all hashes are compared first."""
    opened = Bundle.open(bundle)
    opened.check()
    try:
        engines = engines_of(opened)
        if as_json:
            print_json(summary(opened, engines))
            return
        lines = rows(opened)
        for found in engines:
            lines += engine_lines(found)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # What fusing does not need is not checked on opening.
        raise BundleError(
            f"{bundle}: what bundle.json tells about the graph is incomplete ({type(error).__name__}: {error}); "
            f"export it again with `tcmoa export`"
        ) from error
    width = max(len(label) for label, _ in lines)
    for label, value in lines:
        print(f"{label:<{width}}  {value}")


@dataclass(frozen=True)
class Found:
    """An engine in the bundle: its description, or why it must not be used."""

    name: str
    engine: Engine | None
    problem: str | None


def engines_of(bundle: Bundle) -> list[Found]:
    """All engines of a bundle, hashes compared; a bad one is told about, the others are still shown."""
    found = []
    for path in find_engines(bundle):
        try:
            engine = Engine.open(bundle, path)
            engine.read()
        except BundleError as error:
            found.append(Found(path.name, None, str(error)))
        else:
            found.append(Found(path.name, engine, None))
    return found


def summary(bundle: Bundle, engines: Sequence[Found]) -> dict[str, Any]:
    """The manifest, `engines` with all their kernels, and the figures of the first sound engine at the top.

    Those keys are the ones that `tcmoa build` reports; without an engine they are null, but for what the graph
    tells.
    """
    graph = bundle.manifest["graph"]
    first = next((found.engine.manifest for found in engines if found.engine is not None), {})
    constants = {k: v for k, v in graph.get("constants", {}).items() if not k.startswith(("int", "bool"))}
    return {
        **bundle.manifest,
        "kernels": first.get("kernels"),
        "attentions": graph.get("attentions"),
        "fused_attentions": first.get("fused_attentions"),
        "bytes_moved": first.get("bytes_moved"),
        "precisions": first.get("precisions", constants),
        "engines": [
            {"file": f.name, "problem": f.problem, **(f.engine.manifest if f.engine else {})} for f in engines
        ],
    }


def engine_lines(found: Found) -> list[tuple[str, str]]:
    """Label and text of each line about an engine."""
    if found.engine is None:
        return [("engine", f"{found.name}: must not be used: {found.problem}")]
    figures = found.engine.manifest
    lines = engine_rows(found.engine)
    for kernel in figures["largest"][:LARGEST]:
        lines.append(("", f"{kernel['bytes'] / 1e6:8.2f} MB  {kernel['kind']:11}  {_described(kernel)}"))
    return lines


def _described(kernel: Mapping[str, Any]) -> str:
    """What a kernel computes, by its ONNX nodes, and on what."""
    scopes = list(dict.fromkeys(node.rsplit("/", 1)[0] for node in kernel["nodes"]))
    shapes = ", ".join("x".join(map(str, view["shape"])) for view in kernel["inputs"][:2])
    return f"{', '.join(scopes[:2]) or kernel['name']} on {shapes} {kernel['precision']}"


def alignment_row(bundle: Bundle) -> list[tuple[str, str]]:
    """What the bundle moves, where it does."""
    found = bundle.alignment
    if found is None:
        return []
    around = corners((bundle.contract.height, bundle.contract.width))
    farthest = float(np.hypot(*(moved(found.matrix, around) - around[:2])).max())
    return [
        (
            "alignment",
            f"{found.source} is moved by up to {farthest:.1f} pixels ({found.model}, sure to {found.residual_px:.2f}); "
            f"gradient correlation {found.score_before:.3f} before, {found.score_after:.3f} after, {found.pairs} pairs",
        )
    ]


def quantisation_row(bundle: Bundle) -> list[tuple[str, str]]:
    """What is in 8 bits, where something is."""
    said = bundle.manifest.get("quantisation")
    if not isinstance(said, dict):
        return []
    kept = said.get("kept_float32") or []
    stays = f"; float32: {', '.join(map(str, kept))}" if kept else ""
    figure = said.get("psnr_db")
    return [
        (
            "8 bits",
            f"{said.get('linears')} linears, smoothing {said.get('smoothing')}, ranges {said.get('ranges')}{stays}; "
            f"{'the same' if figure is None else f'{figure} dB'} to float32 on {len(said.get('held_pairs', []))} pairs",
        )
    ]


def rows(bundle: Bundle) -> list[tuple[str, str]]:
    """Label and text of each line."""
    manifest, contract, roles = bundle.manifest, bundle.contract, bundle.roles
    alpha, beta = bundle.default_prompt

    def tensor(spec: TensorSpec) -> str:
        return f"{spec.name} {spec.dtype} {list(spec.shape)}"

    result = [
        ("task", f"{bundle.task}: x is {roles['x']}, y is {roles['y']}"),
        ("model", f"{bundle.preset}, {manifest['graph'].get('parameters', 0) / 1e6:.2f} M parameters"),
        (
            "weights",
            f"{manifest['weights']['source'] or 'unnamed'}, SHA-256 {manifest['weights']['sha256'][:12]}…",
        ),
        ("frame", f"{contract.width}x{contract.height} {bundle.channel_order}, batch {contract.batch}"),
        (
            "fit",
            f"{bundle.fit}, {contract.grid[1]}x{contract.grid[0]} tokens of {bundle.token_pixels} pixels",
        ),
        ("color", str(manifest.get("color", "rgb"))),
        ("precision", bundle.precision),
        ("routers", ", ".join(manifest.get("routers", []))),
        ("prompt", f"alpha {alpha:g}, beta {beta:g} unless told otherwise"),
        *quantisation_row(bundle),
        *alignment_row(bundle),
        *(("input", tensor(spec)) for spec in contract.inputs),
        *(("output", tensor(spec)) for spec in contract.outputs),
        (
            "graph",
            f"{manifest['graph'].get('nodes')} nodes, {manifest['graph'].get('attentions')} windowed attentions, "
            f"tokens ordered for {str(manifest.get('target', 'gpu')).upper()}s",
        ),
    ]
    parity = manifest.get("parity")
    if parity:
        result.append(
            (
                "parity",
                f"largest difference {parity['max_difference']} grey levels, {parity['differing']:.4%} of values "
                f"differ from the unfolded model ({parity['frames']} frames, {parity['backend']})",
            )
        )
    result += [
        ("file", f"{name}, {entry['bytes']:,} bytes, hash right") for name, entry in bundle.files.items()
    ]
    result.append(("made with", ", ".join(f"{k} {v}" for k, v in manifest.get("tools", {}).items())))
    return result
