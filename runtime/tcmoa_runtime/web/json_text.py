"""Parsing JSON of clients that may be hostile."""

from __future__ import annotations

import json
from typing import Final, Never

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.typing import JsonValue

MAX_DIGITS: Final = 18


def parse_json(text: str, subject: str, *, max_depth: int, max_digits: int = MAX_DIGITS) -> JsonValue:
    """Parse JSON of a client that may be hostile.

    Numbers beyond float64 are infinity, which checks of their range refuse.

    Args:
        text: The JSON.
        subject: What it is, for messages.
        max_depth: Levels of lists and objects in each other.
        max_digits: Integers of more characters become floats.

    Raises:
        InputError: It is not valid JSON, holds NaN, or has more than `max_depth` levels.
    """

    def parse_integer(digits: str) -> int | float:
        return int(digits) if len(digits) <= max_digits else float(digits)

    too_deep = InputError(f"more than {max_depth} levels of lists and objects", subject=subject)
    try:
        value: JsonValue = json.loads(text, parse_int=parse_integer, parse_constant=_refuse_constant)
    except RecursionError:
        raise too_deep from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", subject=subject) from error
    level: list[JsonValue] = [value]
    for _ in range(max_depth):
        level = [child for parent in level for child in _children(parent)]
    if level:
        raise too_deep
    return value


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not a number in JSON")


def _children(value: JsonValue) -> list[JsonValue]:
    """Return the lists and objects directly inside a value."""
    if not isinstance(value, dict | list):
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [child for child in inner if isinstance(child, dict | list)]
