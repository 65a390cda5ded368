"""Options from TOML files: reading a file, unknown keys, and values of the types that fields have."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.location import redact_text


def read_toml(path: str | Path, example: str) -> dict[str, object]:
    """Read a TOML file.

    Args:
        path: The file.
        example: Lines that the file may hold, for the message.

    Raises:
        InputError: The file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}; expected a TOML file", subject=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not TOML ({error}); expected lines such as {example}", subject=path) from error


def unknown_key(key: str, known: Iterable[str], *, subject: object, what: str) -> InputError:
    """Return the error about a key that nothing reads, with the known key that is nearest to it.

    Args:
        key: The key of the file.
        known: The keys that are read.
        subject: Where the key is.
        what: What a key is the name of, e.g. "option".
    """
    near = difflib.get_close_matches(key.replace("-", "_"), list(known), 1)
    article = "an" if what[0] in "aeiou" else "a"
    expected = f"e.g. '{near[0]}'" if near else f"the name of {article} {what}"
    return InputError(f"'{key}' is no {what}; expected {expected}", subject=subject)


def field_value(value: object, hint: Any, subject: object) -> object:
    """Convert a value of TOML to that of a field of an options class.

    Args:
        value: What the file holds.
        hint: Type of the field: a string, path, number, fraction, choice, switch, pair of numbers, list of strings, or
            one of several of these. Which choices there are is checked by the class.
        subject: Name of the key, for messages.

    Raises:
        InputError: The value has another type.
    """
    kinds = _kinds_of(hint)
    for kind in kinds:
        found = _converted(value, kind)
        if found is not None:
            return found
    expected = " or ".join(dict.fromkeys(_describe(kind) for kind in kinds))
    raise InputError(f"{redact_text(repr(value))}; expected {expected}", subject=subject)


def _kinds_of(hint: Any) -> list[Any]:
    """Return the types of which a value may be one, None left out."""
    if get_origin(hint) is Annotated:
        return _kinds_of(get_args(hint)[0])
    if get_origin(hint) in (Literal, tuple, list) or not get_args(hint):
        return [] if hint is NoneType else [hint]
    return [kind for part in get_args(hint) for kind in _kinds_of(part)]


def _converted(value: object, kind: Any) -> object:
    """Return a value as one of a type; None where it is none."""
    if kind is bool:
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    if kind is int:
        return value if isinstance(value, int) else None
    if kind is float:
        return float(value) if isinstance(value, int | float) and not math.isnan(value) else None
    if kind is Fraction:
        return _fraction(value)
    if kind is str or get_origin(kind) is Literal:
        return value if isinstance(value, str) else None
    if kind is Path:
        return Path(value) if isinstance(value, str) else None
    if get_origin(kind) is tuple:
        return _numbers(value, len(get_args(kind)))
    if get_origin(kind) is list:
        return _texts(value)
    return None


def _fraction(value: object) -> Fraction | None:
    try:
        return Fraction(str(value)) if isinstance(value, int | float | str) else None
    except (ValueError, ZeroDivisionError):
        return None


def _numbers(value: object, count: int) -> tuple[float, ...] | None:
    if not isinstance(value, list) or len(value) != count:
        return None
    numbers = [_converted(item, float) for item in value]
    return None if None in numbers else tuple(numbers)  # type: ignore[arg-type]  # None is excluded


def _texts(value: object) -> list[str] | None:
    """Return a list of strings; a single one is a list of one, and a table one of NAME=VALUE."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = [f"{name}={item}" for name, item in value.items()]
    return list(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        return "two numbers, e.g. [1, 99]"
    if get_origin(kind) is list:
        return "a string, or a list of strings"
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        Fraction: "frames per second, e.g. 25 or '30000/1001'",
        str: "a string",
        Path: "a path",
    }
    return names.get(kind, str(kind))
