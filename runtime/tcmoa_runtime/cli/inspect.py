"""`tcmoa inspect`: what a bundle is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli.progress import print_json
from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.errors import BundleError


def inspect(
    bundle: Annotated[Path, typer.Argument(help="The bundle.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a bundle is and what it was checked for; all hashes are compared first."""
    opened = Bundle.open(bundle)
    opened.check()
    try:
        if as_json:
            print_json(summary(opened))
            return
        lines = rows(opened)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # What fusing does not need is not checked on opening.
        raise BundleError(
            f"{bundle}: what bundle.json tells about the graph is incomplete ({type(error).__name__}: {error}); "
            f"export it again with `tcmoa export`"
        ) from error
    width = max(len(label) for label, _ in lines)
    for label, value in lines:
        print(f"{label:<{width}}  {value}")


def summary(bundle: Bundle) -> dict[str, Any]:
    """The manifest, and the keys that `tcmoa build` also reports: those of an engine are null without one."""
    graph = bundle.manifest["graph"]
    return {
        **bundle.manifest,
        "kernels": None,
        "attentions": graph.get("attentions"),
        "fused_attentions": None,
        "bytes_moved": None,
        "precisions": {k: v for k, v in graph.get("constants", {}).items() if not k.startswith("int")},
    }


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
        *(("input", tensor(spec)) for spec in contract.inputs),
        *(("output", tensor(spec)) for spec in contract.outputs),
        (
            "graph",
            f"{manifest['graph'].get('nodes')} nodes, {manifest['graph'].get('attentions')} windowed attentions",
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
