"""Keeping outputs apart from the files that they are made of."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tcmoa_runtime.errors import InputError


class SourceFiles:
    """Files and folders that must not be written to, known by device and inode.

    So it does not matter how a path is spelled: through `..`, a symbolic or hard link, or in another case on a file
    system that ignores case.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        """Look the paths up; those that do not exist are left out."""
        self._known = {key for key in map(_identify, paths) if key is not None}

    def check(self, target: Path, *, option: str = "out") -> Path:
        """Return `target`; raises InputError, which names `option`, if it is one of the sources."""
        if _identify(target) in self._known:
            raise InputError(
                "is a source; expected another path for the result",
                subject=target,
                remedy=f"Choose another {{{option}}}",
                settings={option: ...},
            )
        return target


def _identify(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # it does not exist yet; a NUL character
        return None
    return status.st_dev, status.st_ino
