"""Arrays on a GPU: what callers give (`__dlpack__`, `__cuda_array_interface__`) and what they get.

DLPack is preferred where an object has both: its owner then orders its own work before ours, while PyTorch's
`__cuda_array_interface__` does not tell its stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.gpu import dlpack
from tcmoa_runtime.gpu.cuda import LEGACY_STREAM, memory_device
from tcmoa_runtime.images import as_array

_TYPESTR: Final = {"uint8": "|u1", "float32": "<f4"}


def is_on_gpu(value: Any) -> bool:
    """Whether it says that its memory is a GPU's, of whichever kind; nothing is read or waited for."""
    if isinstance(value, np.ndarray | np.generic):
        return False
    if hasattr(value, "__dlpack_device__"):
        return int(value.__dlpack_device__()[0]) not in dlpack.HOST_DEVICES
    return hasattr(value, "__cuda_array_interface__")


def dimensions(value: Any, name: str) -> int:
    """Number of axes of an array of the host or a GPU; InputError where it is none."""
    if not is_on_gpu(value):
        return host_array(value, name).ndim
    return len(value.shape if hasattr(value, "shape") else value.__cuda_array_interface__["shape"])


def host_array(value: Any, name: str) -> NDArray[Any]:
    """An array of the host as numpy's, without a copy where it is one or has `__dlpack__`; else InputError."""
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise InputError(f"{name} is a {type(value).__name__} that cannot be read ({error})") from error
    return as_array(value, name)


@dataclass(frozen=True)
class DeviceInput:
    """A caller's tensor on our GPU, C-contiguous and as the contract says; `release` once it was copied.

    `stream`: the owner's stream that has to be waited for, None where that was done or is not needed. `owner`
    is kept alive by this.
    """

    owner: Any
    pointer: int
    stream: int | None
    release: Callable[[], None]


def read_input(value: Any, spec: TensorSpec, device: int, stream: int) -> DeviceInput:
    """The tensor of `value` on GPU `device`, ready for work in `stream` once its own `stream` was waited for.

    A missing batch axis of 1 is taken as there. Raises InputError in one line when it lies elsewhere, is not
    contiguous, or has another type or shape.
    """
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        return _read_dlpack(value, spec, device, stream)
    return _read_interface(value, spec, device)


def _read_dlpack(value: Any, spec: TensorSpec, device: int, stream: int) -> DeviceInput:
    kind, index = (int(n) for n in value.__dlpack_device__())
    if kind not in dlpack.GPU_DEVICES or index != device:
        raise InputError(
            f"{spec.name} is on device {index} of DLPack type {kind}: expected CUDA device {device} (type "
            f"{dlpack.CUDA}), where this bundle is loaded; copy it there"
        )
    try:
        tensor = dlpack.borrow(value, stream)
    except Exception as error:  # whatever its owner raises, e.g. for a tensor that requires a gradient
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{spec.name} is a {type(value).__name__} that cannot be read ({reason})") from error
    try:
        steps = tensor.strides
        strides = None if steps is None else tuple(n * np.dtype(spec.dtype).itemsize for n in steps)
        _check_tensor(spec, tensor.dtype, tensor.shape, strides)
        _check_memory(spec, tensor.pointer, device)
    except BaseException:
        tensor.release()
        raise
    return DeviceInput(value, tensor.pointer, None, tensor.release)


def _read_interface(value: Any, spec: TensorSpec, device: int) -> DeviceInput:
    interface = value.__cuda_array_interface__
    try:
        shape = tuple(int(n) for n in interface["shape"])
        steps = interface.get("strides")
        strides = None if steps is None else tuple(int(n) for n in steps)
        pointer, dtype = int(interface["data"][0]), str(np.dtype(interface["typestr"]))
        stream = interface.get("stream")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{spec.name} has a __cuda_array_interface__ that cannot be read ({error!r})"
        ) from error
    if interface.get("mask") is not None:
        raise InputError(f"{spec.name} is masked: expected an array without a mask")
    if stream is not None and (not isinstance(stream, int) or stream <= 0):
        raise InputError(f"{spec.name} names the stream {stream!r}: expected None, or the number of a stream")
    _check_tensor(spec, dtype, shape, strides)
    _check_memory(spec, pointer, device)
    return DeviceInput(value, pointer, stream, lambda: None)


def _check_tensor(
    spec: TensorSpec, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...] | None
) -> None:
    if dtype != spec.dtype or shape not in (spec.shape, _frame_shape(spec.shape)):
        raise InputError(f"{spec.name} is {dtype} {list(shape)}: expected {spec.dtype} {list(spec.shape)}")
    wanted = contiguous_strides(shape, np.dtype(dtype).itemsize)
    if strides is None:
        return
    if any(n > 1 and a != b for n, a, b in zip(shape, strides, wanted, strict=True)):
        raise InputError(
            f"{spec.name} has strides {list(strides)}: expected {list(wanted)} (C-contiguous); make a contiguous copy"
        )


def _frame_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without its batch axis, where that is 1."""
    return shape[1:] if shape[0] == 1 else shape


def _check_memory(spec: TensorSpec, pointer: int, device: int) -> None:
    found = memory_device(pointer)
    if found != device:
        where = "no memory of a CUDA device" if found is None else f"memory of CUDA device {found}"
        raise InputError(
            f"{spec.name} points to {where}: expected CUDA device {device}, where this bundle is loaded; copy it there"
        )


def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Bytes from one element to the next along each axis of a C-contiguous array."""
    return tuple(itemsize * math.prod(shape[i + 1 :]) for i in range(len(shape)))


class Lease(Protocol):
    """A claim on the buffers that results lie in: while it is alive, they are neither written nor freed."""

    def let_wait(self, stream: int) -> None:
        """Let `stream` wait until the results are there, and the next user of the buffers wait for `stream`."""
        ...


class DeviceArray:
    """A result on the GPU, C-contiguous, for anything that reads `__dlpack__` or `__cuda_array_interface__`.

    Lifetime: it lies in one of the backend's slots and is valid, never overwritten, while any array of the same
    call or any DLPack view of it is alive, also after the backend was closed; dropping the last one gives the
    slot back. What was queued by then on the stream that the call named, or that `__dlpack__` was asked for, is
    waited for before the slot is written again; such streams have to live as long as the backend. A reader
    through `__cuda_array_interface__` on another stream has to keep the array until its reads are done.
    """

    def __init__(self, pointer: int, spec: TensorSpec, device: int, stream: int, lease: Lease) -> None:
        self.dtype, self.shape, self.device, self.stream = spec.dtype, spec.shape, device, stream
        self._spec, self._pointer, self._lease = spec, pointer, lease

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype} {list(self.shape)} on cuda:{self.device})"

    def frame(self) -> DeviceArray:
        """The same memory without the batch axis of 1: [H, W, C] of [1, H, W, C]."""
        spec = TensorSpec(self._spec.name, self.dtype, _frame_shape(self.shape))
        return DeviceArray(self._pointer, spec, self.device, self.stream, self._lease)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": _TYPESTR[self.dtype],
            "data": (self._pointer, False),
            "version": 3,
            "strides": None,
            "stream": self.stream,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if dl_device not in (None, self.__dlpack_device__()) or copy:
            raise BufferError("this array is only lent where it lies, without a copy")
        if stream == 0:
            raise ValueError("stream 0 is ambiguous: 1 is the legacy default stream, 2 the per-thread one")
        if stream != -1:
            self._lease.let_wait(LEGACY_STREAM if stream is None else stream)
        return dlpack.lend(self, self._pointer, self.device, self.dtype, self.shape)
