"""How to install what is missing, as this copy of the project was installed: from a checkout, or as a wheel."""

from __future__ import annotations

import json
import shlex
import sys
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from tcmoa_runtime.machine import package_version

PROJECT: Final = "tcmoa"
TORCH_ON_CPUS: Final = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
"""PyTorch for Linux without the CUDA packages, which take about 3 GB."""

_REINSTALL: Final = "pip install --force-reinstall --no-deps"

_WITH_TORCH: Final = frozenset({"export", "train"})


def install_command(*extras: str) -> str:
    """Return the command that installs extras, e.g. `pip install 'tcmoa[stream]'`.

    For `gpu`, it leaves onnxruntime-gpu alone, and for `onnxruntime-rtx`, onnxruntime where onnxruntime-gpu is
    installed too.
    """
    names = f"[{','.join(extras)}]"
    checkout, is_editable = _find_checkout()
    if checkout is None:
        command = f"pip install '{PROJECT}{names}'"
    else:
        target = shlex.quote(f"{checkout}{names}")
        command = f"pip install -e {target}" if is_editable else f"pip install {target}"
    if "gpu" in extras:
        return f"{command} && {_leave_alone('onnxruntime-gpu', 'onnxruntime')}"
    if "onnxruntime-rtx" in extras and package_version("onnxruntime-gpu") is not None:
        return f"{command} && {_leave_alone('onnxruntime', 'onnxruntime-gpu')}"
    return command


def _leave_alone(package: str, other: str) -> str:
    """Return the commands that leave one of two packages which bring the same Python module.

    pip lets the one that is installed last overwrite the other. Uninstalling one deletes files of both, so the one that
    stays is installed again.
    """
    return f"pip uninstall -y {other} && {_REINSTALL} {package}"


def install_hint(*extras: str) -> str:
    """Return a sentence that says how to install extras; for those with PyTorch, also how to do without CUDA."""
    hint = f"Run `{install_command(*extras)}`"
    if _WITH_TORCH.isdisjoint(extras) or not sys.platform.startswith("linux"):
        return hint
    return f"{hint}; for CPUs only, run `{TORCH_ON_CPUS}` before it"


@cache
def _find_checkout() -> tuple[Path | None, bool]:
    """Return the folder that the project was installed from, None for a wheel, and whether it is still used.

    PEP 610: `direct_url.json` is written for what is not installed from an index. A project that is imported from its
    own folder, without being installed, is a checkout too.
    """
    from importlib import metadata  # takes 20 ms, and most programs lack nothing

    try:
        text = metadata.distribution(PROJECT).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        folder = Path(__file__).parents[2]
        return (folder, True) if (folder / "pyproject.toml").is_file() else (None, False)
    try:
        origin = json.loads(text or "{}")
        url, folder_info = urlsplit(origin["url"]), origin["dir_info"]
        is_editable = bool(folder_info.get("editable", False))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, False
    folder = Path(unquote(url.path))
    if url.scheme != "file" or not (folder / "pyproject.toml").is_file():
        return None, False
    return folder, is_editable
