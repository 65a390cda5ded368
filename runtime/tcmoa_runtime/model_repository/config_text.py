"""The text of Triton's config.pbtxt: a protocol buffer `ModelConfig` in its text format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias


class Symbol(str):
    """A value of an enumeration, e.g. `TYPE_UINT8`, which is written without quotes."""

    __slots__ = ()


ConfigValue: TypeAlias = "str | int | bool | Symbol | Mapping[str, ConfigValue] | Sequence[ConfigValue]"
"""A value, a message by the names of its fields, or the values of a repeated field."""

Config: TypeAlias = Mapping[str, ConfigValue]
"""A message: its fields by name."""


def map_entries(values: Mapping[str, ConfigValue]) -> list[Config]:
    """Return the entries of a map field, e.g. `parameters`."""
    return [{"key": key, "value": value} for key, value in values.items()]


def format_config(config: Config) -> str:
    """Format a message as text; equal messages give equal text."""
    return "".join(f"{line}\n" for name, value in config.items() for line in _lines(name, value, ""))


def _lines(name: str, value: ConfigValue, indent: str) -> list[str]:
    if isinstance(value, Mapping):
        inner = [line for key, part in value.items() for line in _lines(key, part, f"{indent}  ")]
        return [f"{indent}{name} {{", *inner, f"{indent}}}"]
    if isinstance(value, Sequence) and not isinstance(value, str):
        if value and isinstance(value[0], Mapping):
            return [line for part in value for line in _lines(name, part, indent)]
        return [f"{indent}{name}: [{', '.join(_scalar(part) for part in value)}]"]
    return [f"{indent}{name}: {_scalar(value)}"]


def _scalar(value: ConfigValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Symbol | int):
        return str(value)
    if isinstance(value, str):
        return f'"{_escape(value)}"'
    raise TypeError(f"a {type(value).__name__} in a list; expected messages only, or none")


def _escape(text: str) -> str:
    """Escape what a quoted string cannot hold; other bytes than printable ASCII as octal numbers."""
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}"
        for byte in text.encode("utf-8", "backslashreplace")
    )
