"""`tcmoa models`: the bundles and weights that the package ships."""

from __future__ import annotations

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli.options import JsonOption
from tcmoa_runtime.cli.printing import print_json, print_line
from tcmoa_runtime.images import format_size
from tcmoa_runtime.ready_bundles import READY_NAMES, shipped_weights
from tcmoa_runtime.typing import JsonObject


def models(as_json: JsonOption = False) -> None:
    """List the bundles and weights that the package ships: task, size, license, quality and folder.

    Commands and `Fuser.load` take such a bundle by its name; a program in C opens the folder. The figures are means
    over held-out pairs, and the PSNR to the PyTorch model in float32.

    Examples:

        tcmoa models
        tcmoa models --json
    """
    bundles = [Bundle.open(name) for name in READY_NAMES]
    weights = shipped_weights()
    if as_json:
        listed = [
            {"name": name, "path": str(path), "bytes": path.stat().st_size} for name, path in weights.items()
        ]
        print_json({"models": [_to_json(bundle) for bundle in bundles], "weights": listed})
        return
    for bundle in bundles:
        for line in _describe(bundle):
            print_line(line)
    print_line(f"weights for `tcmoa export --weights` and training: {', '.join(weights)}")


def _describe(bundle: Bundle) -> tuple[str, str, str]:
    name, x, y = bundle.path.name, bundle.roles["x"], bundle.roles["y"]
    quality = ", ".join(f"{metric} {value}" for metric, value in bundle.section("quality").values.items())
    psnr_db = bundle.section("parity").get("psnr_db", float)
    return (
        f"{name}  {bundle.task} ({x} and {y}), {format_size(bundle.size)}, {_num_bytes(bundle) / 1e6:.1f} MB, "
        f"{bundle.manifest['license']}",
        f"{'':{len(name)}}  {quality}; {psnr_db:g} dB to the PyTorch model",
        f"{'':{len(name)}}  {bundle.path}",
    )


def _to_json(bundle: Bundle) -> JsonObject:
    manifest = bundle.manifest
    return {
        "name": bundle.path.name,
        "path": str(bundle.path),
        "task": bundle.task,
        **bundle.roles,
        "size": format_size(bundle.size),
        "preset": bundle.preset,
        "parameters": bundle.section("graph").get("parameters", int),
        "bytes": _num_bytes(bundle),
        "license": manifest["license"],
        "quality": manifest["quality"],
        "parity": manifest["parity"],
    }


def _num_bytes(bundle: Bundle) -> int:
    return sum(entry.bytes for entry in bundle.files.values())
