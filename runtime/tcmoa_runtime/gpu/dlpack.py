"""DLPack capsules of device memory, read and made with ctypes: numpy takes only those of the host.

The structures are those of DLPack 1.x; capsules of before 1.0 are taken and made, too, which is what every
library reads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

CPU: Final = 1
CUDA: Final = 2
CUDA_HOST: Final = 3
CUDA_MANAGED: Final = 13

HOST_DEVICES: Final = (CPU, CUDA_HOST)
GPU_DEVICES: Final = (CUDA, CUDA_MANAGED)

_CODES: Final = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}
_VERSION: Final = (1, 1)
"""Newest that is asked for; what it added to 1.0 is of no use here."""

# Renaming a capsule tells that it was taken; it keeps the pointer, so these must live as long as the module.
_NAMES: Final = ((b"dltensor", b"used_dltensor"), (b"dltensor_versioned", b"used_dltensor_versioned"))


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("index", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


class _ManagedVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", _Deleter),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_api = ctypes.pythonapi
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)
_set_name = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _api))
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", _api)
)
# A capsule that is being destroyed must not be touched as an object: by address only.
_is_valid_at = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer_at = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)


@dataclass
class Borrowed:
    """A tensor taken from another library, theirs until `release`: dtype as numpy names it, strides in elements."""

    pointer: int
    device: tuple[int, int]
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    _give_back: Callable[[], None] | None = field(repr=False)

    def release(self) -> None:
        """Tell the owner that it is not needed any more; again does nothing."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


def borrow(owner: Any, stream: int) -> Borrowed:
    """Take the tensor of an object with `__dlpack__` on a GPU; its owner makes it ready for `stream`.

    Raises what the owner raises, and ValueError on a capsule that cannot be read.
    """
    try:
        capsule = owner.__dlpack__(stream=stream, max_version=_VERSION)
    except TypeError:  # an owner of before DLPack 1.0 knows no max_version
        capsule = owner.__dlpack__(stream=stream)
    for (name, used), kind in zip(_NAMES, (_Managed, _ManagedVersioned), strict=True):
        if _is_valid(capsule, name):
            address = _get_pointer(capsule, name)
            managed: Any = kind.from_address(address)
            _set_name(capsule, used)
            give_back = partial(managed.deleter, address) if managed.deleter else None
            if kind is _ManagedVersioned and managed.major != _VERSION[0]:
                found = f"DLPack {managed.major}.{managed.minor}"
                if give_back is not None:
                    give_back()  # all that may be done with it
                raise ValueError(f"{found}: expected {_VERSION[0]}.x")
            return _read(managed.tensor, give_back)
    raise ValueError("its __dlpack__ gave no DLPack capsule, or one that was taken before")


def _read(tensor: Any, give_back: Callable[[], None] | None) -> Borrowed:
    dims = range(tensor.ndim)
    kind, bits, lanes = _CODES.get(tensor.dtype.code, "unknown"), tensor.dtype.bits, tensor.dtype.lanes
    return Borrowed(
        pointer=(tensor.data or 0) + tensor.byte_offset,
        device=(tensor.device.type, tensor.device.index),
        dtype=f"{kind}{bits}" if lanes == 1 else f"{kind}{bits}x{lanes}",
        shape=tuple(tensor.shape[i] for i in dims),
        strides=tuple(tensor.strides[i] for i in dims) if tensor.strides else None,
        _give_back=give_back,
    )


_lent: dict[int, tuple[Any, ...]] = {}
"""What must live until a capsule's taker calls its deleter, by address of its structure."""


def _take_back(address: int) -> None:
    _lent.pop(address, None)


def _drop_capsule(capsule: int) -> None:
    """Nobody took it: nobody else would call the deleter."""
    name = _NAMES[0][0]
    if _is_valid_at(capsule, name):
        _lent.pop(_pointer_at(capsule, name), None)


_taken_back = _Deleter(_take_back)
_capsule_dropped = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_drop_capsule)


def lend(owner: Any, pointer: int, device: int, dtype: str, shape: tuple[int, ...]) -> Any:
    """A DLPack capsule of C-contiguous memory on GPU `device`; `owner` is kept alive until it is given back.

    `dtype`: `uint8` or `float32`.
    """
    code, bits = {"uint8": (1, 8), "float32": (2, 32)}[dtype]
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    tensor = _Tensor(
        pointer,
        _Device(CUDA, device),
        len(shape),
        _DataType(code, bits, 1),
        ctypes.cast(sizes, ctypes.POINTER(ctypes.c_int64)),
        None,
        0,
    )
    managed = _Managed(tensor, None, _taken_back)
    address = ctypes.addressof(managed)
    _lent[address] = (managed, sizes, owner)
    return _new(address, _NAMES[0][0], ctypes.cast(_capsule_dropped, ctypes.c_void_p))
