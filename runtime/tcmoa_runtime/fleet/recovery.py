"""Video files of a process that was killed: they lie under hidden names, and get their own.

A process that is killed leaves `.gate-20260131T142501Z.mkv.1a2b3c4d.partial`, which can be played. The next process of
the same pair renames it, unless another stream, e.g. of `tcmoa stream`, still writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tcmoa_runtime.location import path_of, printable, scheme_of
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.streams.output_locks import OutputLockedError, OutputLocks
from tcmoa_runtime.streams.sinks.video import CONTAINER_OF_SUFFIX

_TIME: Final = r"\d{8}T\d{6}Z"
"""What replaces `{time}`, see `streams.setup`."""
_END: Final = r"\.[0-9a-f]{8}\.partial"

_log = get_logger("fleet")


def recover_files(outs: Iterable[str]) -> Sequence[Path]:
    """Rename what an earlier process has left of the outputs of a pair.

    Args:
        outs: The outputs, with `{time}` in them.

    Returns:
        The files that have their names again.
    """
    found = []
    for out in outs:
        path = path_of(out)
        if scheme_of(out) in ("", "file") and path.suffix.lower() in CONTAINER_OF_SUFFIX:
            found += [file for partial in _partials(path) if (file := _rename(partial)) is not None]
    return found


def _partials(path: Path) -> list[Path]:
    """Return the hidden files that a path with `{time}` in its name or its folder's name can have left."""
    name = re.compile(rf"\.{_pattern(path.name)}{_END}")
    folder = re.compile(_pattern(path.parent.name))
    is_fixed = "{time}" not in path.parent.name
    try:
        folders = (
            [path.parent]
            if is_fixed
            else [each for each in path.parent.parent.iterdir() if folder.fullmatch(each.name)]
        )
        return sorted(file for each in folders for file in each.iterdir() if name.fullmatch(file.name))
    except OSError:
        return []


def _pattern(name: str) -> str:
    return _TIME.join(re.escape(part) for part in name.split("{time}"))


def _rename(partial: Path) -> Path | None:
    target = partial.with_name(re.sub(rf"^\.(.*){_END}$", r"\1", partial.name))
    locks = OutputLocks()
    try:
        locks.add([target])
        if partial.stat().st_size == 0:
            partial.unlink()
            return None
        if target.exists():
            return None
        partial.rename(target)
    except OutputLockedError:
        return None
    except OSError as error:
        _log.warning("%s: cannot be renamed: %s", printable(str(partial)), error.strerror)
        return None
    finally:
        locks.close()
    _log.warning("%s: kept, of a process that was killed", printable(str(target)))
    return target
