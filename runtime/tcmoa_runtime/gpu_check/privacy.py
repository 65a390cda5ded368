"""Removing from a report what tells who made it: paths, the name of the machine, the name of the user."""

from __future__ import annotations

import getpass
import platform
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from tcmoa_runtime.typing import JsonValue

_PATH: Final = re.compile(r"(?:file://|(?<![\w.~/])~?)/(?:[^\s/'\"()<>:;,]+/)*([^\s/'\"()<>:;,]*)")
_MIN_NAME: Final = 4
"""Shorter names of users and machines occur in other words."""
_COMMON: Final = frozenset({"root", "user", "ubuntu", "nvidia", "localhost", "tcmoa", "jetson"})
"""Names that tell nothing."""


def without_private_data(value: JsonValue) -> JsonValue:
    """Return a value whose texts hold file names in place of paths, and no name of the machine or the user."""
    return _clean(value, _private_folders(), _private_names())


def _clean(value: JsonValue, folders: re.Pattern[str] | None, names: re.Pattern[str] | None) -> JsonValue:
    if isinstance(value, str):
        text = value if folders is None else folders.sub("/", value)
        text = _PATH.sub(lambda match: f".../{match[1]}" if len(match[0]) > 1 else match[0], text)
        return text if names is None else names.sub("...", text)
    if isinstance(value, Mapping):
        return {key: _clean(item, folders, names) for key, item in value.items()}
    if isinstance(value, bool | int | float) or value is None:
        return value
    return [_clean(item, folders, names) for item in value]


def _private_folders() -> re.Pattern[str] | None:
    """Return a pattern of folders whose names may hold spaces or end in a user's name; None without any."""
    found = {sys.prefix}
    for find in (Path.home, Path.cwd, tempfile.gettempdir):
        with suppress(OSError, RuntimeError):  # a user without a home, or a current folder that was deleted
            found.add(str(find()))
    private = {folder.rstrip("/") for folder in found}
    return _any_of((folder for folder in private if folder.count("/") > 1), "", r"(?![\w-]|\.\w)/?")


def _private_names() -> re.Pattern[str] | None:
    """Return a pattern of the machine's and the user's name; None if they tell nothing."""
    found = {platform.node(), platform.node().split(".")[0]}
    with suppress(OSError, KeyError, ImportError):  # a user without an entry, as in containers
        found.add(getpass.getuser())
    private = {name for name in found if len(name) >= _MIN_NAME and name.lower() not in _COMMON}
    return _any_of(private, r"\b", r"\b", re.IGNORECASE)


def _any_of(texts: Iterable[str], before: str, after: str, flags: int = 0) -> re.Pattern[str] | None:
    """Return a pattern of any of some texts, the longest first, between two patterns; None without texts."""
    words = [re.escape(text) for text in sorted(texts, key=len, reverse=True)]
    return re.compile(f"{before}(?:{'|'.join(words)}){after}", flags) if words else None
