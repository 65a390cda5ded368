"""What the NVIDIA driver says, asked without `cuda-bindings`: to say what to install before anything is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_LIBRARY: Final = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76
"""`CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`."""
_NAME_BYTES: Final = 256

Load = Callable[[str], ctypes.CDLL]


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver.

    Attributes:
        cuda_version: Newest CUDA version that it supports, e.g. (13, 0).
        gpus: Name and compute capability of each GPU, e.g. ("NVIDIA GeForce RTX 4090", "8.9").
    """

    cuda_version: tuple[int, int]
    gpus: tuple[tuple[str, str], ...]


def probe_driver(load: Load = ctypes.CDLL) -> Driver | None:
    """Ask the driver's library for its version and GPUs; makes no context.

    Args:
        load: Loads a shared library.

    Returns:
        None where the library is not found or does not answer.
    """
    try:
        return _ask(load(_LIBRARY))
    except (OSError, AttributeError):  # no library, or one that is something else
        return None


def _ask(library: ctypes.CDLL) -> Driver | None:
    version, count = ctypes.c_int(), ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    gpus = []
    if library.cuInit(0) == 0 and library.cuDeviceGetCount(ctypes.byref(count)) == 0:
        gpus = [_describe(library, index) for index in range(count.value)]
    return Driver(
        (version.value // 1000, version.value % 1000 // 10), tuple(gpu for gpu in gpus if gpu is not None)
    )


def _describe(library: ctypes.CDLL, index: int) -> tuple[str, str] | None:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    answers = (
        library.cuDeviceGet(ctypes.byref(device), index),
        library.cuDeviceGetName(name, _NAME_BYTES, device),
        library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device),
        library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device),
    )
    if any(answers):
        return None
    return name.value.decode(errors="replace"), f"{major.value}.{minor.value}"
