"""Tensors of the Open Inference Protocol (KServe v2): their types, from and to JSON and binary data."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.typing import JsonValue

DataType: TypeAlias = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16",
    "BYTES",
]  # fmt: skip
"""A type of the protocol. BYTES are byte strings of any length, e.g. encoded image files."""

DATA_TYPES: Final[tuple[DataType, ...]] = get_args(DataType)

NUMPY_TYPES: Final = MappingProxyType[DataType, np.dtype[Any]](
    {
        "BOOL": np.dtype(np.bool_),
        "UINT8": np.dtype(np.uint8),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype(np.int8),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
        "BF16": np.dtype("<u2"),
    }
)
"""Type of each element in binary data; numpy has none for BF16, whose bits are the upper half of FP32."""

MAX_AXES: Final = 8
MAX_VALUES: Final = 1 << 40
MAX_ITEMS: Final = 1024
"""Byte strings of a tensor."""
_LENGTH_BYTES: Final = 4
"""Each byte string in binary data follows its length, a little-endian uint32."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a request or a response.

    Attributes:
        name: Its name.
        datatype: Its type.
        shape: Its shape.
        array: Its values in `shape`, BF16 as float32; None for BYTES.
        items: The byte strings in row-major order; empty for other types.
    """

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    array: NDArray[Any] | None = None
    items: tuple[bytes | memoryview, ...] = ()

    @classmethod
    def of_array(cls, name: str, array: NDArray[Any]) -> Tensor:
        """Return the tensor of a numpy array."""
        datatype = next(key for key, dtype in NUMPY_TYPES.items() if dtype == array.dtype.newbyteorder("<"))
        return cls(name, datatype, array.shape, array)

    @classmethod
    def of_items(cls, name: str, items: Sequence[bytes]) -> Tensor:
        """Return the tensor BYTES [count] of byte strings."""
        return cls(name, "BYTES", (len(items),), None, tuple(items))

    def to_binary(self) -> bytes:
        """Return the values as binary data."""
        if self.array is None:
            return b"".join(
                part for item in self.items for part in (struct.pack("<I", len(item)), bytes(item))
            )
        dtype = NUMPY_TYPES[self.datatype]
        return np.ascontiguousarray(self.array, dtype).tobytes()

    def to_json(self) -> list[JsonValue]:
        """Return the values as a flat list, byte strings in base64."""
        if self.array is None:
            return [base64.b64encode(item).decode() for item in self.items]
        values: list[JsonValue] = self.array.ravel().tolist()
        return values


def check_shape(shape: JsonValue, name: str) -> tuple[int, ...]:
    """Return the shape of a tensor.

    Raises:
        InputError: It is not a list of integers of 0 or more.
    """
    axes = shape if isinstance(shape, list) and len(shape) <= MAX_AXES else [None]
    sizes = [axis for axis in axes if type(axis) is int and axis >= 0]
    if len(sizes) != len(axes) or math.prod(axis or 1 for axis in sizes) > MAX_VALUES:
        raise InputError(
            f"shape {_shown(shape)}; expected at most {MAX_AXES} integers, e.g. [480, 640, 3]", subject=name
        )
    return tuple(sizes)


def check_datatype(datatype: JsonValue, name: str) -> DataType:
    """Return the type of a tensor.

    Raises:
        InputError: It is not one of the protocol.
    """
    for known in DATA_TYPES:
        if datatype == known:
            return known
    raise InputError(f"datatype {_shown(datatype)}; expected one of {', '.join(DATA_TYPES)}", subject=name)


def from_binary(name: str, datatype: DataType, shape: tuple[int, ...], data: memoryview) -> Tensor:
    """Return the tensor of binary data, which is not copied, except BF16.

    Raises:
        InputError: The data do not have the size of the shape, or a byte string is cut off.
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        return Tensor(name, datatype, shape, None, _split_items(name, data, count))
    dtype = NUMPY_TYPES[datatype]
    if len(data) != count * dtype.itemsize:
        raise InputError(
            f"{len(data)} bytes of binary data; expected {count * dtype.itemsize} for {datatype} {list(shape)}",
            subject=name,
        )
    array = np.frombuffer(data, np.uint8 if datatype == "BOOL" else dtype)
    if datatype == "BOOL":
        array = array.astype(np.bool_)  # any byte but 0 is true, not only 1
    if datatype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return Tensor(name, datatype, shape, array.reshape(shape))


def from_json(name: str, datatype: DataType, shape: tuple[int, ...], data: JsonValue) -> Tensor:
    """Return the tensor of a list, flat or nested as its shape; byte strings are in base64.

    Raises:
        InputError: The list has other values than its type, or not as many as its shape.
    """
    if not isinstance(data, list):
        raise InputError(f"data of type {_json_type(data)}; expected a list", subject=name)
    values = _flatten(name, data)
    count = math.prod(shape)
    if len(values) != count:
        raise InputError(f"{len(values)} values; expected {count} for shape {list(shape)}", subject=name)
    if datatype == "BYTES":
        _check_num_items(name, count)
        return Tensor(name, datatype, shape, None, tuple(_decode_base64(name, value) for value in values))
    if datatype == "BF16":
        raise InputError("BF16 in JSON; expected it as binary data", subject=name)
    return Tensor(name, datatype, shape, _array_of(name, datatype, values).reshape(shape))


def _split_items(name: str, data: memoryview, count: int) -> tuple[memoryview, ...]:
    _check_num_items(name, count)
    items: list[memoryview] = []
    position = 0
    while position < len(data) and len(items) < count:
        start = position + _LENGTH_BYTES
        if start > len(data):
            break
        end = start + int.from_bytes(data[position:start], "little")
        if end > len(data):
            break
        items.append(data[start:end])
        position = end
    if position != len(data) or len(items) != count:
        raise InputError(
            f"{len(items)} whole byte strings in {len(data)} bytes of binary data, which end at byte {position}; "
            f"expected {count}, each after its length as a little-endian uint32",
            subject=name,
        )
    return tuple(items)


def _check_num_items(name: str, count: int) -> None:
    if count > MAX_ITEMS:
        raise InputError(f"{count} byte strings; expected at most {MAX_ITEMS}", subject=name)


def _flatten(name: str, data: list[Any]) -> list[JsonValue]:
    """Return the values of lists in each other, all of one depth."""
    values = data
    while values and isinstance(values[0], list):
        if not all(isinstance(value, list) for value in values):
            raise InputError("lists and values beside each other; expected lists of one depth", subject=name)
        values = list(chain.from_iterable(values))
    return values


def _array_of(name: str, datatype: DataType, values: list[JsonValue]) -> NDArray[Any]:
    dtype = NUMPY_TYPES[datatype]
    allowed = {"b": (bool,), "f": (int, float)}.get(dtype.kind, (int,))
    wrong = [value for value in values if type(value) not in allowed]
    if not wrong:
        try:
            with np.errstate(over="ignore"):  # numbers beyond the type become infinity, as in binary data
                return np.array(values, dtype)
        except OverflowError:
            limits = np.iinfo(dtype)
            wrong = [v for v in values if isinstance(v, int) and not limits.min <= v <= limits.max]
    raise InputError(f"the value {_shown(wrong[0])}; expected values of {datatype}", subject=name)


def _decode_base64(name: str, value: JsonValue) -> bytes:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise InputError("a value that is not base64; expected each byte string as text in base64", subject=name)


def _json_type(value: JsonValue) -> str:
    names = {dict: "object", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
