"""Removing from a report what tells who made it: paths, the name of the machine, the name of the user."""

from __future__ import annotations

import getpass
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from tcmoa_runtime.typing import JsonValue

_PATH: Final = re.compile(r"(?<![\w.~/])~?/(?:[^\s/'\"()<>:;,]+/)*([^\s/'\"()<>:;,]*)")
_MIN_NAME: Final = 4
"""Shorter names of users and machines occur in other words."""
_COMMON: Final = frozenset({"root", "user", "ubuntu", "nvidia", "localhost", "tcmoa", "jetson"})
"""Names that tell nothing."""


def without_private_data(value: JsonValue) -> JsonValue:
    """Return a value whose texts hold file names in place of paths, and no name of the machine or the user."""
    return _clean(value, _private_names())


def _clean(value: JsonValue, names: re.Pattern[str] | None) -> JsonValue:
    if isinstance(value, str):
        text = _PATH.sub(lambda match: f".../{match[1]}" if len(match[0]) > 1 else match[0], value)
        return text if names is None else names.sub("...", text)
    if isinstance(value, Mapping):
        return {key: _clean(item, names) for key, item in value.items()}
    if isinstance(value, bool | int | float) or value is None:
        return value
    return [_clean(item, names) for item in value]


def _private_names() -> re.Pattern[str] | None:
    """Return a pattern of the machine's and the user's name; None if they tell nothing."""
    found = {platform.node(), platform.node().split(".")[0]}
    with suppress(OSError, KeyError, ImportError):  # a user without an entry, as in containers
        found.add(getpass.getuser())
    private = {name for name in found if len(name) >= _MIN_NAME and name.lower() not in _COMMON}
    if not private:
        return None
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(private, key=len, reverse=True)))})\b")
