"""Arrays in GPU memory: inputs that callers give, and results that stay there.

An input is anything with `__dlpack__` or `__cuda_array_interface__`. DLPack is preferred where an object has both: its
owner then orders its work before the copy, while PyTorch's `__cuda_array_interface__` does not name its stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.gpu import dlpack
from tcmoa_runtime.gpu.cuda import LEGACY_STREAM, MemoryRows, memory_device
from tcmoa_runtime.images import as_array
from tcmoa_runtime.typing import DeviceArrayLike, SupportsCudaArrayInterface, SupportsDLPack

TYPESTRS: Final = {"uint8": "|u1", "float32": "<f4"}
"""Types of tensors, as `__cuda_array_interface__` spells them."""


def is_on_gpu(value: object) -> TypeGuard[DeviceArrayLike]:
    """Return whether an array says that it is in GPU memory, of any vendor; nothing is read or waited for."""
    if isinstance(value, np.ndarray | np.generic):
        return False
    if hasattr(value, "__dlpack_device__"):
        return int(value.__dlpack_device__()[0]) not in dlpack.HOST_DEVICES
    return hasattr(value, "__cuda_array_interface__")


def num_axes(value: object, name: str) -> int:
    """Return the number of axes of an array in host or GPU memory.

    Raises:
        InputError: It is not an array.
    """
    if not is_on_gpu(value):
        return host_array(value, name).ndim
    shape = getattr(value, "shape", None)
    if not isinstance(shape, Sequence) and hasattr(value, "__cuda_array_interface__"):
        shape = _interface_of(value).get("shape")
    if isinstance(shape, Sequence):
        return len(shape)
    try:  # e.g. a plane of PyAV
        tensor = dlpack.import_tensor(cast("SupportsDLPack", value), LEGACY_STREAM)
    except Exception as error:  # whatever its owner raises
        raise _unreadable(value, name, str(error) or type(error).__name__) from error
    tensor.release()
    return len(tensor.shape)


def host_array(value: object, name: str) -> NDArray[np.generic]:
    """Return an array in host memory as a NumPy array, without a copy if it is one or supports DLPack.

    Raises:
        InputError: It is not an array, or cannot be read.
    """
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise _unreadable(value, name, str(error)) from error
    return as_array(value, name)


@dataclass(frozen=True)
class DeviceInput:
    """A caller's tensor on the GPU, in C order and as the contract says.

    Attributes:
        owner: The caller's array, kept alive by this object.
        pointer: Address of the first element.
        rows: Where its rows are; None: it is C-contiguous.
        stream: The owner's stream to wait for; None where waiting is done or not needed.
        release: Tells the owner that the tensor has been copied.
    """

    owner: object
    pointer: int
    rows: MemoryRows | None
    stream: int | None
    release: Callable[[], None]


def read_device_input(value: DeviceArrayLike, spec: TensorSpec, device: int, stream: int) -> DeviceInput:
    """Check an input in GPU memory.

    Args:
        value: The caller's array; a batch axis of 1 may be missing, and then the axis of a single channel too. Rows of
            frames may be padded: [W, C] must be contiguous, and the distance of rows be the same everywhere.
        spec: What the graph expects.
        device: Index of the CUDA device where the graph runs.
        stream: Handle of the stream that reads the input, after it has waited for `DeviceInput.stream`.

    Raises:
        InputError: The array is on another device, not in C order, or of another type or shape.
    """
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        return _read_dlpack(cast("SupportsDLPack", value), spec, device, stream)
    return _read_interface(value, spec, device)


def _read_dlpack(value: SupportsDLPack, spec: TensorSpec, device: int, stream: int) -> DeviceInput:
    kind, index = (int(number) for number in value.__dlpack_device__())
    if kind not in dlpack.GPU_DEVICES or index != device:
        raise InputError(
            f"on device {index} of DLPack device type {kind}; "
            f"expected CUDA device {device} (type {dlpack.CUDA}), where the bundle is loaded",
            subject=spec.name,
            remedy="Copy the array there",
        )
    try:
        tensor = dlpack.import_tensor(value, stream)
    except Exception as error:  # whatever its owner raises, e.g. for a tensor that requires a gradient
        raise _unreadable(value, spec.name, str(error) or type(error).__name__) from error
    try:
        itemsize = np.dtype(spec.dtype).itemsize
        strides = None if tensor.strides is None else tuple(itemsize * step for step in tensor.strides)
        rows = _check_layout(spec, tensor.dtype, tensor.shape, strides)
        _check_memory(spec, tensor.pointer, device)
    except BaseException:
        tensor.release()
        raise
    return DeviceInput(value, tensor.pointer, rows, tensor.stream, tensor.release)


def _read_interface(value: SupportsCudaArrayInterface, spec: TensorSpec, device: int) -> DeviceInput:
    interface = _interface_of(value)
    try:
        shape = tuple(int(size) for size in interface["shape"])
        steps = interface.get("strides")
        strides = None if steps is None else tuple(int(step) for step in steps)
        pointer, dtype = int(interface["data"][0]), str(np.dtype(interface["typestr"]))
        stream = interface.get("stream")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"its __cuda_array_interface__ cannot be read ({error!r})", subject=spec.name
        ) from error
    if interface.get("mask") is not None:
        raise InputError("masked; expected an array without a mask", subject=spec.name)
    if stream is not None and (not isinstance(stream, int) or stream <= 0):
        raise InputError(
            f"__cuda_array_interface__ names the stream {stream!r}; expected None or a positive number",
            subject=spec.name,
        )
    rows = _check_layout(spec, dtype, shape, strides)
    _check_memory(spec, pointer, device)
    return DeviceInput(value, pointer, rows, stream, lambda: None)


def _interface_of(value: Any) -> Mapping[str, Any]:
    interface: Mapping[str, Any] = value.__cuda_array_interface__
    return interface


def _unreadable(value: object, name: str, reason: str) -> InputError:
    line = (reason.splitlines() or [""])[0][:120]
    return InputError(f"a {type(value).__name__} that cannot be read ({line})", subject=name)


def _check_layout(
    spec: TensorSpec, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...] | None
) -> MemoryRows | None:
    """Check type, shape and strides (in bytes) of an input, and return its rows if these are padded."""
    if dtype != spec.dtype or shape not in _accepted_shapes(spec.shape):
        planes = (spec.shape[-1], *spec.shape[1:-1])
        is_planar = len(spec.shape) == 4 and spec.shape[-1] > 1 and shape[-3:] == planes
        raise InputError(
            f"{dtype} {list(shape)}; expected {spec.dtype} {list(spec.shape)}",
            subject=spec.name,
            remedy="Move the channels to the last axis and make a contiguous copy" if is_planar else None,
        )
    if strides is None:
        return None
    itemsize = np.dtype(dtype).itemsize
    rows = _find_rows(shape, strides, itemsize)
    row_nbytes = itemsize * math.prod(spec.shape[2:])
    if rows is None or (rows.count > 1 and rows.nbytes < row_nbytes):
        expected = list(contiguous_strides(shape, itemsize))
        raise InputError(
            f"strides {list(strides)}; expected {expected} (C-contiguous), or padded rows",
            subject=spec.name,
            remedy="Make a contiguous copy",
        )
    return rows if rows.count > 1 else None


def _accepted_shapes(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Shapes that stand for `shape`: without a batch axis of 1, and then without a single channel."""
    single = _without_batch_axis(shape)
    without_channel = single[:-1] if len(single) == 3 and single[-1] == 1 and len(shape) == 4 else single
    return shape, single, without_channel


def _find_rows(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> MemoryRows | None:
    """Return the rows of an array in C order: as long as possible, and one if it has no gaps.

    None if it is in another order, or its rows are not equally far apart.
    """
    axes = [(size, step) for size, step in zip(shape, strides, strict=True) if size > 1]
    nbytes = itemsize
    while axes and axes[-1][1] == nbytes:
        nbytes *= axes.pop()[0]
    if not axes:
        return MemoryRows(1, nbytes, nbytes)
    count, pitch = 1, axes[-1][1]
    while axes:
        size, step = axes.pop()
        if step != count * pitch:
            return None
        count *= size
    return MemoryRows(count, nbytes, pitch) if pitch >= nbytes else None


def _without_batch_axis(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[H, W, C] of [1, H, W, C]; other shapes are returned unchanged."""
    return shape[1:] if shape[0] == 1 else shape


def _check_memory(spec: TensorSpec, pointer: int, device: int) -> None:
    found = memory_device(pointer)
    if found != device:
        where = "not memory of a CUDA device" if found is None else f"memory of CUDA device {found}"
        raise InputError(
            f"{where}; expected CUDA device {device}, where the bundle is loaded",
            subject=spec.name,
            remedy="Copy the array there",
        )


def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the strides of a C-contiguous array in bytes."""
    return tuple(itemsize * math.prod(shape[i + 1 :]) for i in range(len(shape)))


class Lease(Protocol):
    """A claim on the buffers that hold results: while it is alive, they are neither overwritten nor freed."""

    def add_reader(self, stream: int) -> None:
        """Make `stream` wait for the results, and the next use of the buffers wait for `stream`."""
        ...

    def copy_to_host(self, array: NDArray[np.generic], pointer: int, stream: int) -> None:
        """Copy results at `pointer`, which `stream` may read, to `array`, and block until it is done."""
        ...


class DeviceArray:
    """A result in GPU memory, C-contiguous, for anything that reads `__dlpack__` or `__cuda_array_interface__`.

    The memory is one of the backend's slots. It is valid and not overwritten while any array of the same call, or a
    DLPack view of one, is alive, even after the backend is closed; the slot is free once the last one is garbage
    collected. Before the slot is used again, the backend waits for the work that was queued until then on the stream
    that the call named and on those that `__dlpack__` was called with; these streams must live as long as the backend.
    If you read the array through `__cuda_array_interface__` on another stream, keep it until the reads are done.

    Attributes:
        dtype: `uint8` or `float32`.
        shape: [B, H, W, C] of the fused frames, or [B, K, 2, gh, gw] of the prompts.
        nbytes: Its size in bytes.
        pointer: Address of its first element.
        device: Index of the CUDA device.
        stream: Handle of the stream on which the result is ready.
    """

    def __init__(self, pointer: int, spec: TensorSpec, device: int, stream: int, lease: Lease) -> None:
        self.dtype: str = spec.dtype
        self.shape: tuple[int, ...] = spec.shape
        self.device: int = device
        self.stream: int = stream
        self.pointer: int = pointer
        self.nbytes: int = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
        self._spec, self._lease = spec, lease

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype} {list(self.shape)} on cuda:{self.device})"

    def without_batch_axis(self) -> DeviceArray:
        """Return the same memory without the batch axis of 1: [H, W, C] of [1, H, W, C]."""
        spec = TensorSpec(self._spec.name, self.dtype, _without_batch_axis(self.shape))
        return DeviceArray(self.pointer, spec, self.device, self.stream, self._lease)

    def copy_to_host(self) -> NDArray[np.generic]:
        """Wait for the result and return a copy as a NumPy array."""
        array = np.empty(self.shape, self.dtype)
        self._lease.copy_to_host(array, self.pointer, self.stream)
        return array

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {
            "shape": self.shape,
            "typestr": TYPESTRS[self.dtype],
            "data": (self.pointer, False),
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
    ) -> object:
        if dl_device not in (None, self.__dlpack_device__()) or copy:
            raise BufferError("a DeviceArray is exported from its own device, without a copy")
        if stream == 0:
            raise ValueError("stream 0 is ambiguous; expected 1 (legacy default) or 2 (per-thread default)")
        if stream != -1:
            self._lease.add_reader(LEGACY_STREAM if stream is None else stream)
        return dlpack.export_tensor(self, self.pointer, self.device, self.dtype, self.shape)
