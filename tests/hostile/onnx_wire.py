"""Writing protocol buffers by hand, also such as no library would write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

FLOAT, UINT8, INT64, STRING = 1, 2, 7, 8


def varint(value: int) -> bytes:
    """Encode a number; negative ones as 64 bits."""
    value %= 1 << 64
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*parts, value))


def number(field: int, value: int) -> bytes:
    """Encode a field with a number."""
    return varint(field << 3) + varint(value)


def blob(field: int, value: bytes | str) -> bytes:
    """Encode a field with a text, bytes or a message."""
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(data)) + data


def blobs(field: int, values: Iterable[bytes | str]) -> bytes:
    """Encode a repeated field."""
    return b"".join(blob(field, value) for value in values)


def attribute(name: str, value: int | str | Sequence[int]) -> bytes:
    """Encode an AttributeProto."""
    if isinstance(value, int):
        return blob(1, name) + number(3, value) + number(20, 2)
    if isinstance(value, str):
        return blob(1, name) + blob(4, value) + number(20, 3)
    return blob(1, name) + b"".join(number(8, v) for v in value) + number(20, 7)


def node(
    op: str, inputs: Sequence[str], outputs: Sequence[str], *attributes: bytes, extra: bytes = b""
) -> bytes:
    """Encode a NodeProto, named like its first output."""
    name = outputs[0] if outputs else "node"
    return blobs(1, inputs) + blobs(2, outputs) + blob(3, name) + blob(4, op) + blobs(5, attributes) + extra


def tensor(
    name: str, dims: Sequence[int], data: bytes, element_type: int = FLOAT, extra: bytes = b""
) -> bytes:
    """Encode a TensorProto with raw data."""
    return (
        b"".join(number(1, d) for d in dims) + number(2, element_type) + blob(8, name) + blob(9, data) + extra
    )


def integers(name: str, *values: int) -> bytes:
    """Encode a vector of int64."""
    return tensor(name, [len(values)], b"".join(v.to_bytes(8, "little", signed=True) for v in values), INT64)


def external(name: str, dims: Sequence[int], **entries: object) -> bytes:
    """Encode a TensorProto of float32 whose data is in another file."""
    parts = (blob(1, key) + blob(2, str(value)) for key, value in entries.items())
    return (
        b"".join(number(1, d) for d in dims)
        + number(2, FLOAT)
        + blob(8, name)
        + blobs(13, parts)
        + number(14, 1)
    )


def value_info(name: str, element_type: int, dims: Sequence[int | str]) -> bytes:
    """Encode a ValueInfoProto of a tensor; a text is a size that is not fixed."""
    sides = (number(1, d) if isinstance(d, int) else blob(2, d) for d in dims)
    return blob(1, name) + blob(2, blob(1, number(1, element_type) + blob(2, blobs(1, sides))))


def graph(
    name: str, nodes: Iterable[bytes], tensors: Iterable[bytes], infos: Sequence[bytes], extra: bytes = b""
) -> bytes:
    """Encode a GraphProto; `infos` are encoded inputs and outputs."""
    return blobs(1, nodes) + blob(2, name) + blobs(5, tensors) + b"".join(infos) + extra


def model(
    graph: bytes, *, ir_version: int = 8, opset: int = 18, domain: str = "", extra: bytes = b""
) -> bytes:
    """Encode a ModelProto."""
    opset_import = (blob(1, domain) if domain else b"") + number(2, opset)
    return number(1, ir_version) + blob(7, graph) + blob(8, opset_import) + extra
