"""The rules of `graph_rules.json`, which libtcmoa reads too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal, cast

RULES_FILE: Final = "graph_rules.json"

Wire = Literal["varint", "fixed32", "fixed64", "bytes"]
WIRE_NUMBERS: Final[Mapping[Wire, int]] = {"varint": 0, "fixed64": 1, "bytes": 2, "fixed32": 5}
"""Numbers of the wire types of protocol buffers."""


@dataclass(frozen=True)
class Field:
    """A field of a message: its name, how it is encoded, and whether it may occur more than once.

    `refused` describes the field's content where a bundle may not hold it.
    """

    name: str = ""
    wire: Wire = "bytes"
    repeated: bool = False
    refused: str = ""


@dataclass(frozen=True)
class Limit:
    """A limit that grows with the frames: `per_pixel` for each pixel, at least `floor`, at most `total`."""

    total: int
    per_pixel: int
    floor: int

    def at(self, pixels: int) -> int:
        """Return the limit for a graph whose frames have `pixels` pixels together."""
        return min(self.total, max(self.floor, self.per_pixel * pixels))


@dataclass(frozen=True)
class ElementType:
    """An element type: its name, bits, and the field of a tensor that holds its numbers one by one."""

    name: str
    bits: int
    field: str


@dataclass(frozen=True)
class Operator:
    """An operator: the rule for its output's shape, and the kinds of its attributes by name."""

    shape: str
    attributes: Mapping[bytes, str]


@dataclass(frozen=True)
class Rules:
    """What a graph may hold; the attributes are the keys of `graph_rules.json`."""

    ir_version: tuple[int, int]
    opset: tuple[int, int]
    counts: Mapping[str, int]
    elements: Limit
    live_elements: Limit
    operations: Limit
    element_types: Mapping[int, ElementType]
    messages: Mapping[str, Mapping[int, Field]]
    operators: Mapping[bytes, Operator]


@cache
def read_rules() -> Rules:
    """Return the rules; the file is read once."""
    values = json.loads(Path(__file__).with_name(RULES_FILE).read_bytes())
    limits = values["limits"]
    kinds = {name: Limit(**limits[name]) for name in ("elements", "live_elements", "operations")}
    messages = {}
    for message, described in values["messages"].items():
        fields: dict[int, Field] = {}
        for number, entry in described.items():
            field = Field(**entry)
            for wire in _wire_numbers(field):
                fields[int(number) << 3 | wire] = field
        messages[message] = fields
    return Rules(
        ir_version=cast("tuple[int, int]", tuple(values["ir_version"])),
        opset=cast("tuple[int, int]", tuple(values["opset"])),
        counts={name: limit for name, limit in limits.items() if name not in kinds},
        element_types={
            int(number): ElementType(**entry) for number, entry in values["element_types"].items()
        },
        messages=messages,
        operators={
            name.encode(): Operator(
                entry["shape"], {key.encode(): kind for key, kind in entry["attributes"].items()}
            )
            for name, entry in values["operators"].items()
        },
        **kinds,
    )


def _wire_numbers(field: Field) -> tuple[int, ...]:
    """Return the wire types that a field may have: repeated numbers may be packed, refused ones have any."""
    if field.refused:
        return tuple(WIRE_NUMBERS.values())
    number = WIRE_NUMBERS[field.wire]
    return (number, WIRE_NUMBERS["bytes"]) if field.repeated and field.wire != "bytes" else (number,)
