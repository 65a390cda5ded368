"""Reading protocol buffers without their library: bounded, and stricter than it.

Parsers of protocol buffers skip fields that they do not know, and take the last of two values where one is expected.
Here both are refused, so that every parser sees what was checked. Contents of long fields are skipped by their length.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn, cast

from tcmoa_runtime.graph.rules import read_rules

Span = tuple[int, int]
"""Start and end of a field's bytes."""
Value = int | Span
"""A number, or where the bytes of a field are."""
Message = dict[str, Value | list[Value]]
"""Fields by name; repeated ones as lists."""

_HIGH_BYTES: Final = bytes(range(0x80, 0x100))
_CHUNK_BYTES: Final = 1 << 20
_MAX_VARINT_BYTES: Final = 10
_MAX_SHOWN_BYTES: Final = 60
_PLAIN_NAME: Final = re.compile(rb"[ -\[\]-~]{0,60}")


class GraphError(Exception):
    """A graph that a bundle may not hold; the text says what was found and what was expected."""


def quoted(name: bytes) -> str:
    """Return a name for messages: in quotes, printable ASCII only, and not too long."""
    if _PLAIN_NAME.fullmatch(name):
        return f"'{name.decode()}'"
    shown = "".join(chr(c) if 32 <= c < 127 and c != 92 else f"\\x{c:02x}" for c in name[:_MAX_SHOWN_BYTES])
    return f"'{shown}…'" if len(name) > _MAX_SHOWN_BYTES else f"'{shown}'"


def as_signed(value: int) -> int:
    """Return the signed number of an int64 field."""
    return value - (1 << 64) if value >= 1 << 63 else value


class WireReader:
    """Reads the messages of one file.

    Args:
        data: The bytes of the file.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.fields_left = read_rules().counts["fields"]

    def spend_fields(self, count: int) -> None:
        """Count fields that were read before, of a message that occurs again."""
        self.fields_left -= count
        if self.fields_left < 0:
            raise GraphError(f"more than {read_rules().counts['fields']} fields; expected fewer")

    def message(self, span: Span, kind: str, where: object) -> Message:
        """Read the fields of a message; messages inside it are returned as spans.

        Args:
            span: Where the message is.
            kind: Name of its kind in `graph_rules.json`.
            where: What the message is, for errors, e.g. `the graph`.

        Raises:
            GraphError: The message is malformed, holds an unknown field, a field twice, or one that is refused.
        """
        data, fields = self.data, read_rules().messages[kind]
        position, end = span
        found: Message = {}
        while position < end:
            self.fields_left -= 1
            start = position
            tag = data[position]
            position += 1
            if tag >= 0x80:
                if position == end or not 0 < data[position] < 0x80:
                    self._malformed("a field that ONNX does not have", start)
                tag = tag & 0x7F | data[position] << 7
                position += 1
            field = fields.get(tag)
            if field is None:
                self._malformed("a field that ONNX does not have", start)
            if self.fields_left < 0:
                raise GraphError(f"more than {read_rules().counts['fields']} fields; expected fewer")
            if field.refused:
                raise GraphError(f"{where} holds {field.refused}; expected operators on tensors only")
            value: Value
            wire = tag & 7
            if wire == 2:
                if position < end and data[position] < 0x80:
                    length = data[position]
                    position += 1
                else:
                    length, position = self.varint(position, end)
                if length > end - position:
                    self._malformed("a length beyond its message", start)
                value = (position, position + length)
                position += length
            elif wire == 0:
                if position < end and data[position] < 0x80:
                    value = data[position]
                    position += 1
                else:
                    value, position = self.varint(position, end)
            else:
                width = 4 if wire == 5 else 8
                if width > end - position:
                    self._malformed("a length beyond its message", start)
                value = (position, position + width)
                position += width
            name = field.name
            if name not in found:
                found[name] = [value] if field.repeated else value
            elif field.repeated:
                cast("list[Value]", found[name]).append(value)
            else:
                raise GraphError(f"{where} states '{name}' twice; expected once")
        return found

    def varint(self, position: int, end: int) -> tuple[int, int]:
        """Read a number of up to 64 bits; return it and the position after it."""
        value = 0
        for index in range(min(_MAX_VARINT_BYTES, end - position)):
            byte = self.data[position + index]
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                if value >= 1 << 64:
                    break
                return value, position + index + 1
        return self._malformed("a number that is truncated or longer than 64 bits", position)

    def text(self, message: Message, name: str) -> bytes:
        """Return the bytes of a field; empty if it is absent."""
        span = message.get(name)
        return self.data[span[0] : span[1]] if isinstance(span, tuple) else b""

    def number(self, message: Message, name: str) -> int:
        """Return the number of a field; 0 if it is absent."""
        value = message.get(name, 0)
        return value if isinstance(value, int) else 0

    def spans(self, message: Message, name: str) -> list[Span]:
        """Return where the messages or texts of a repeated field are."""
        return cast("list[Span]", message.get(name, []))

    def numbers(self, message: Message, name: str, limit: int, where: object) -> list[int]:
        """Return the numbers of a repeated field of int64; GraphError if they are more than `limit`."""
        values = message.get(name, ())
        numbers: list[int] = []
        for value in values if isinstance(values, list) else ():
            if isinstance(value, int):
                numbers.append(as_signed(value))
            else:
                position, end = value
                while position < end and len(numbers) <= limit:
                    number, position = self.varint(position, end)
                    numbers.append(as_signed(number))
            if len(numbers) > limit:
                raise GraphError(f"{where} has more than {limit} numbers in '{name}'; expected fewer")
        return numbers

    def count(self, message: Message, name: str, width: int) -> int:
        """Count the numbers of a repeated field: `width` bytes each, or of varying width if that is 0."""
        values = message.get(name, ())
        total = 0
        for value in values if isinstance(values, list) else ():
            if isinstance(value, int):
                total += 1
                continue
            start, end = value
            if width:
                if (end - start) % width:
                    self._malformed("a list of numbers that is truncated", start)
                total += (end - start) // width
                continue
            if start < end and self.data[end - 1] >= 0x80:
                self._malformed("a number that is truncated or longer than 64 bits", start)
            for first in range(start, end, _CHUNK_BYTES):
                chunk = self.data[first : min(end, first + _CHUNK_BYTES)]
                total += len(chunk.translate(None, _HIGH_BYTES))
        return total

    def _malformed(self, problem: str, position: int) -> NoReturn:
        raise GraphError(
            f"not a valid ONNX file ({problem}, at byte {position}); expected the graph of a bundle"
        )
