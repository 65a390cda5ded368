"""`tcmoa models`: the bundles and weights that the package ships."""

from __future__ import annotations

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli.options import JsonOption
from tcmoa_runtime.cli.printing import print_json, print_line
from tcmoa_runtime.images import format_size
from tcmoa_runtime.ready_bundles import READY_NAMES
from tcmoa_runtime.typing import JsonObject


def models(as_json: JsonOption = False) -> None:
    """List the bundles that the package ships: task, size, license, quality and folder.

    Commands and `Fuser.load` take such a bundle by its name; a program in C opens the folder. The figures are means
    over held-out pairs, and the PSNR to the PyTorch model in float32.

    Examples:

        tcmoa models
        tcmoa models --json
    """
    found = [_describe(Bundle.open(name)) for name in READY_NAMES]
    if as_json:
        print_json({"models": found})
        return
    for model in found:
        figures = ", ".join(f"{name} {value:g}" for name, value in model["quality"].items())
        print_line(
            f"{model['name']}  {model['task']} ({model['x']} and {model['y']}), {model['size']}, "
            f"{model['bytes'] / 1e6:.1f} MB, {model['license']}"
        )
        print_line(f"          {figures}; {model['parity']['psnr_db']:g} dB to the PyTorch model")
        print_line(f"          {model['path']}")


def _describe(bundle: Bundle) -> JsonObject:
    manifest = bundle.manifest
    return {
        "name": bundle.path.name,
        "path": str(bundle.path),
        "task": bundle.task,
        **bundle.roles,
        "size": format_size(bundle.size),
        "preset": bundle.preset,
        "parameters": bundle.section("graph").get("parameters", int),
        "bytes": sum(entry.bytes for entry in bundle.files.values()),
        "license": manifest["license"],
        "quality": manifest["quality"],
        "parity": manifest["parity"],
    }
