"""The bundles that the package ships, which commands and `Bundle.open` take by name.

They are in `ready/`, are never written to, and are made from the weights in `tcmoa/weights_data` by
`make ready-bundles`.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Final

from tcmoa_runtime.contract import TASKS, Task
from tcmoa_runtime.errors import BundleError

READY_PRESET: Final = "nano"
"""Weights that the ready bundles are made from."""
READY_NAMES: Final[dict[str, Task]] = {f"{READY_PRESET}-{task}": task for task in TASKS}
"""Names of the ready bundles, and the task of each."""
READY_FOLDER: Final = Path(__file__).parent / "ready"
"""Folder of the ready bundles; a bundle's folder has its name."""

MAKE_REMEDY: Final = "Make a bundle with `tcmoa export`"


def resolve_bundle(path: str | os.PathLike[str]) -> Path:
    """Return the folder that a path or the name of a ready bundle means. A path that exists wins.

    Raises:
        BundleError: There is neither a file or folder nor a ready bundle of that name.
    """
    given = Path(path)
    try:
        exists = given.exists()
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}", subject=given, remedy=MAKE_REMEDY) from error
    if exists:
        return given
    if str(given) in READY_NAMES:
        return READY_FOLDER / str(given)
    import difflib  # only for a mistake

    near = difflib.get_close_matches(given.name.lower(), READY_NAMES, n=1)
    raise BundleError(
        f"no such bundle; expected a folder or one of {', '.join(READY_NAMES)}",
        subject=given,
        remedy=f"Use {near[0]}, or make a bundle with `tcmoa export`" if near else MAKE_REMEDY,
    )


def shipped_weights() -> dict[str, Path]:
    """Return the weights that the package ships for exports and training, by name."""
    spec = importlib.util.find_spec("tcmoa")  # found without importing it: it needs PyTorch
    folders = [] if spec is None else spec.submodule_search_locations or []
    files = (path for folder in folders for path in (Path(folder) / "weights_data").glob("*.safetensors"))
    return {path.stem: path for path in sorted(files)}


def ready_name(folder: Path) -> str | None:
    """Return the name of the ready bundle in a folder; None for any other folder."""
    if folder.name not in READY_NAMES:
        return None
    return folder.name if folder.resolve().parent == READY_FOLDER.resolve() else None
