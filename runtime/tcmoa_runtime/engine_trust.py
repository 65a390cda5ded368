"""Which engines may be loaded: those that this user built, and those that the user says to trust.

An engine is native code, and its hash is written by whoever made the bundle. So `tcmoa build` records the hash of what
it built in the user's data folder, where no bundle can write. The C library reads the same record.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Final

from tcmoa_runtime.engine import Engine
from tcmoa_runtime.errors import UntrustedEngineError, in_remedy
from tcmoa_runtime.regular_file import MAX_SMALL_BYTES, open_regular_file
from tcmoa_runtime.user_folders import UnsafeFolderError, open_user_folder, write_private_file

_RECORD: Final = "built-engines"
"""Folder with a file for each engine, named by its SHA-256."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def record_built(engine: Engine) -> Path | None:
    """Record that this user built an engine; `is_built_here` is true from now on.

    Returns:
        The folder of the record; None, after a warning, if it cannot be written.
    """
    entry = {"engine": str(engine.path.absolute()), "graph": engine.bundle.graph_name}
    try:
        folder = open_user_folder("data", _RECORD, create=True)
        for digest in _hashes(engine):
            write_private_file(folder / digest, (json.dumps(entry, indent=1) + "\n").encode())
    except OSError as error:
        warnings.warn(
            f"{error.filename}: {error.strerror}; the engine is loaded only where it is trusted by option",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    return folder


def is_built_here(engine: Engine) -> bool:
    """Return whether this user built an engine, and the weights that it is refitted with."""
    try:
        folder = open_user_folder("data", _RECORD)
        for digest in _hashes(engine):
            if not _SHA256.fullmatch(digest):
                return False
            open_regular_file(folder / digest, max_bytes=MAX_SMALL_BYTES).close()
    except UnsafeFolderError as error:
        warnings.warn(
            f"{error.filename}: {error.strerror}; its record of engines is not used",
            RuntimeWarning,
            stacklevel=3,
        )
        return False
    except OSError:
        return False
    return True


def untrusted(engine: Engine) -> UntrustedEngineError:
    """Make the error for an engine that must not be loaded."""
    return UntrustedEngineError(
        "this user did not build this engine, and an engine is native code; expected one that was built here",
        subject=engine.path,
        remedy=f"Build it here with `tcmoa build {in_remedy(engine.bundle.spelling)}`, or load it with "
        f"{{trust_engines}} if you trust whoever built it",
        settings={"trust_engines": True},
    )


def _hashes(engine: Engine) -> list[str]:
    weights = engine.weights_entry
    return [engine.engine_entry.sha256, *([] if weights is None else [weights.sha256])]
