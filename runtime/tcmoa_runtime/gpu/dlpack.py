"""DLPack capsules of GPU memory, imported and exported with ctypes: NumPy only imports those of host memory.

The structures are those of DLPack 1.x. Both the versioned capsules of DLPack 1.0 and the older unversioned ones are
imported; unversioned ones are exported, which every library reads.
See https://dmlc.github.io/dlpack/latest/python_spec.html.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from tcmoa_runtime.gpu.cuda import LEGACY_STREAM
from tcmoa_runtime.typing import SupportsDLPack

CPU: Final = 1
CUDA: Final = 2
CUDA_HOST: Final = 3
CUDA_MANAGED: Final = 13

HOST_DEVICES: Final = (CPU, CUDA_HOST)
"""DLPack device types of host memory."""
GPU_DEVICES: Final = (CUDA, CUDA_MANAGED)
"""DLPack device types of memory that CUDA reaches."""

_TYPE_NAMES: Final = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}
_VERSION: Final = (1, 1)
"""Newest version that is requested; what it adds to 1.0 is not used here."""

# (name of a fresh capsule, name of a consumed one). A capsule keeps the pointer to its name, so these must live as
# long as the module.
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
# A capsule that is being destroyed must not become a Python object again, so it is passed by address.
_is_valid_at = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer_at = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)


@dataclass
class ImportedTensor:
    """A tensor in memory of another library, which must keep it until `release`.

    Attributes:
        pointer: Address of the first element.
        device: (DLPack device type, device index).
        dtype: Element type by NumPy's name, e.g. `uint8`.
        shape: Size of each axis.
        strides: Elements from one to the next along each axis; None: C-contiguous.
        stream: Handle of the stream to wait for before reading; None: the owner has arranged that.
    """

    pointer: int
    device: tuple[int, int]
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    stream: int | None
    _delete: Callable[[], None] | None = field(repr=False)

    def release(self) -> None:
        """Call the deleter of the owner; further calls do nothing."""
        delete, self._delete = self._delete, None
        if delete is not None:
            delete()


def import_tensor(owner: SupportsDLPack, stream: int) -> ImportedTensor:
    """Import the tensor of another library.

    Args:
        owner: The array, in GPU memory.
        stream: Handle of the CUDA stream on which the owner makes the data ready.

    Raises:
        ValueError: `__dlpack__` returned a capsule that cannot be read.
        Exception: What the owner raises, e.g. for a tensor that requires a gradient.
    """
    capsule, awaited = _request_capsule(owner, stream)
    for (name, used), kind in zip(_NAMES, (_Managed, _ManagedVersioned), strict=True):
        if _is_valid(capsule, name):
            address = _get_pointer(capsule, name)
            managed: Any = kind.from_address(address)
            _set_name(capsule, used)
            delete = partial(managed.deleter, address) if managed.deleter else None
            if kind is _ManagedVersioned and managed.major != _VERSION[0]:
                found = f"DLPack {managed.major}.{managed.minor}"
                if delete is not None:
                    delete()  # the only field that may be used whatever the major version
                raise ValueError(f"{found}; expected {_VERSION[0]}.x")
            return _read(managed.tensor, delete, awaited)
    raise ValueError("__dlpack__ returned no DLPack capsule, or a consumed one")


def _request_capsule(owner: Any, stream: int) -> tuple[object, int | None]:
    """Return a capsule, and the handle of a stream to wait for if the owner does not order its work before `stream`."""
    try:
        return _call_dlpack(owner, stream), None
    except (
        NotImplementedError
    ):  # PyAV takes no stream; None promises data that the legacy default stream may read
        return _call_dlpack(owner, None), LEGACY_STREAM


def _call_dlpack(owner: Any, stream: int | None) -> object:
    try:
        return owner.__dlpack__(stream=stream, max_version=_VERSION)
    except TypeError:  # before DLPack 1.0 there was no max_version
        return owner.__dlpack__(stream=stream)


def _read(tensor: Any, delete: Callable[[], None] | None, awaited: int | None) -> ImportedTensor:
    axes = range(tensor.ndim)
    kind = _TYPE_NAMES.get(tensor.dtype.code, "unknown")
    bits, lanes = tensor.dtype.bits, tensor.dtype.lanes
    return ImportedTensor(
        pointer=(tensor.data or 0) + tensor.byte_offset,
        device=(tensor.device.type, tensor.device.index),
        dtype=f"{kind}{bits}" if lanes == 1 else f"{kind}{bits}x{lanes}",
        shape=tuple(tensor.shape[i] for i in axes),
        strides=tuple(tensor.strides[i] for i in axes) if tensor.strides else None,
        stream=awaited,
        _delete=delete,
    )


_exported: dict[int, tuple[object, ...]] = {}
"""What must live until the consumer calls the deleter, by address of the managed tensor."""


def _delete_exported(address: int) -> None:
    _exported.pop(address, None)


def _destroy_capsule(capsule: int) -> None:
    """Release the tensor of a capsule that was not consumed: then no consumer calls the deleter."""
    name = _NAMES[0][0]
    if _is_valid_at(capsule, name):
        _exported.pop(_pointer_at(capsule, name), None)


_deleter = _Deleter(_delete_exported)
_capsule_destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_destroy_capsule)


def export_tensor(owner: object, pointer: int, device: int, dtype: str, shape: tuple[int, ...]) -> object:
    """Make a DLPack capsule of C-contiguous GPU memory.

    Args:
        owner: Object that keeps the memory valid; it is kept alive until the consumer releases the capsule.
        pointer: Address of the first element.
        device: Index of the CUDA device.
        dtype: `uint8` or `float32`.
        shape: Size of each axis.
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
    managed = _Managed(tensor, None, _deleter)
    address = ctypes.addressof(managed)
    _exported[address] = (managed, sizes, owner)
    return _new(address, _NAMES[0][0], ctypes.cast(_capsule_destructor, ctypes.c_void_p))
