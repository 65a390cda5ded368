"""A thin layer on `cuda.bindings` for the TensorRT backend; every call is checked.

Each class owns one handle, is a context manager, and can be closed more than once. Importing this module imports
no CUDA; the first call does.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any, Final, Self
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError, MemoryShortageError, MissingError, TcmoaError
from tcmoa_runtime.install import install_command, install_hint

_MODULE: Final = "cuda.bindings.runtime"
_DRIVER_MODULE: Final = "cuda.bindings.driver"

LEGACY_STREAM: Final = 1
"""Handle of the legacy default stream, which synchronizes with all other streams (`cudaStreamLegacy`)."""
PER_THREAD_STREAM: Final = 2
"""Handle of the per-thread default stream (`cudaStreamPerThread`)."""


_STICKY_ERRORS: Final = frozenset(
    {
        "cudaErrorECCUncorrectable",
        "cudaErrorIllegalAddress",
        "cudaErrorLaunchTimeout",
        "cudaErrorContextIsDestroyed",
        "cudaErrorAssert",
        "cudaErrorHardwareStackError",
        "cudaErrorIllegalInstruction",
        "cudaErrorMisalignedAddress",
        "cudaErrorInvalidAddressSpace",
        "cudaErrorInvalidPc",
        "cudaErrorLaunchFailure",
    }
)
"""Errors after which CUDA refuses every call of the process, by its documentation."""

_contexts: Final[WeakKeyDictionary[ModuleType, dict[int, Any]]] = WeakKeyDictionary()
"""Retained primary contexts by device, for each module that stands for the driver: tests replace it."""
_retaining: Final = threading.Lock()


def _runtime() -> Any:
    """Import `cuda.bindings.runtime`; raises MissingError when it is not installed."""
    return _import(_MODULE)


def _import(name: str) -> Any:
    module = sys.modules.get(name)
    if module is not None:
        return module
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingError(
            f"the package cuda-bindings cannot be imported ({error})",
            remedy=f"{install_hint('rtx')} or `{install_command('tensorrt')}`",
        ) from error


def _call(function: str, *arguments: Any) -> Any:
    """Call a function of the CUDA runtime and return its results; an error code becomes a TcmoaError."""
    runtime = _runtime()
    error, *results = getattr(runtime, function)(*arguments)
    if error != runtime.cudaError_t.cudaSuccess:
        runtime.cudaGetLastError()  # clears the error, which another library in this thread would read as its own
        raise _error_of(runtime, function, error)
    return results[0] if len(results) == 1 else results


def _call_driver(function: str, *arguments: Any) -> Any:
    """Call a function of the CUDA driver and return its result, None if it has none; see `_call`."""
    driver = _import(_DRIVER_MODULE)
    error, *results = getattr(driver, function)(*arguments)
    if error == driver.CUresult.CUDA_SUCCESS:
        return results[0] if results else None
    if error == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        raise out_of_memory(f"out of GPU memory in {function}")
    text = f"{_text(driver, 'cuGetErrorString', error)} ({_text(driver, 'cuGetErrorName', error)})"
    raise TcmoaError(f"CUDA failed in {function}: {text}", remedy="Check the GPU with `nvidia-smi`")


def _primary_context(index: int) -> Any:
    """Return the primary context of a device, which is made by the first call and kept until the process ends."""
    driver = _import(_DRIVER_MODULE)
    known = _contexts.get(driver, {})
    if index not in known:  # a lock is taken in the first call only: the garbage collector calls this, too
        with _retaining:
            _call_driver("cuInit", 0)
            context = _call_driver("cuDevicePrimaryCtxRetain", _call_driver("cuDeviceGet", index))
            _contexts[driver] = {**_contexts.get(driver, {}), index: context}
            return context
    return known[index]


def _error_of(runtime: Any, function: str, error: Any) -> TcmoaError:
    """Make the exception for an error code of CUDA."""
    codes = runtime.cudaError_t
    text = f"{_text(runtime, 'cudaGetErrorString', error)} ({_text(runtime, 'cudaGetErrorName', error)})"
    if error == codes.cudaErrorInsufficientDriver:
        version = runtime.cudaDriverGetVersion()[1]
        found = (
            f"the NVIDIA driver supports only CUDA {_format_version(version)}"
            if version
            else "no NVIDIA driver"
        )
        return MissingError(
            f"{found}: {text}",
            remedy="Install a newer driver, or use {backend}",
            settings={"backend": "onnxruntime"},
        )
    if error == codes.cudaErrorNoDevice:
        return MissingError(
            f"no CUDA device: {text}", remedy="Use {backend}", settings={"backend": "onnxruntime"}
        )
    if error == codes.cudaErrorMemoryAllocation:
        return out_of_memory(f"out of GPU memory in {function}")
    if getattr(error, "name", "") in _STICKY_ERRORS:
        return TcmoaError(
            f"CUDA failed in {function}: {text}",
            remedy="Start the program again: CUDA refuses all further calls of this process. Check the GPU with "
            "`nvidia-smi`",
        )
    return TcmoaError(f"CUDA failed in {function}: {text}", remedy="Check the GPU with `nvidia-smi`")


def out_of_memory(problem: str, subject: object = None) -> MemoryShortageError:
    """Make the error for too little GPU memory."""
    return MemoryShortageError(
        problem,
        subject=subject,
        remedy="Export smaller frames or a smaller batch, use fewer slots, or close other programs on the GPU",
    )


def _text(runtime: Any, function: str, error: Any) -> str:
    text = getattr(runtime, function)(error)[1]
    return str(text.decode(errors="replace"))


def _format_version(number: int) -> str:
    """Format CUDA's version number, e.g. 13000 as 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


@dataclass(frozen=True)
class CudaDevice:
    """A GPU.

    Attributes:
        index: Its number in CUDA.
        name: Its model.
        compute_capability: Its compute capability, e.g. `8.9`.
        memory_bytes: Its total memory.
        driver_cuda_version: Newest CUDA version that the driver supports, e.g. `13.0`.
    """

    index: int
    name: str
    compute_capability: str
    memory_bytes: int
    driver_cuda_version: str

    @staticmethod
    def current() -> CudaDevice:
        """Return the current device of the calling thread; raises MissingError without driver or device."""
        _call("cudaGetDeviceCount")
        return CudaDevice._at(int(_call("cudaGetDevice")))

    @staticmethod
    def all() -> list[CudaDevice]:
        """Return all devices by index; raises MissingError without driver or device."""
        return [CudaDevice._at(index) for index in range(int(_call("cudaGetDeviceCount")))]

    @staticmethod
    def _at(index: int) -> CudaDevice:
        properties = _call("cudaGetDeviceProperties", index)
        return CudaDevice(
            index=index,
            name=properties.name.rstrip(b"\0").decode(errors="replace"),
            compute_capability=f"{properties.major}.{properties.minor}",
            memory_bytes=int(properties.totalGlobalMem),
            driver_cuda_version=_format_version(_call("cudaDriverGetVersion")),
        )

    @property
    def target(self) -> str:
        """Its compute capability as TensorRT-RTX names it, e.g. `sm89`."""
        return "sm" + self.compute_capability.replace(".", "")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the primary context of this device the calling thread's inside the with-block.

        `cudaSetDevice` would make a context on the device that was current before, too, when it restores that.
        """
        _call_driver("cuCtxPushCurrent", _primary_context(self.index))
        try:
            yield
        finally:
            with suppress(TcmoaError):  # an earlier error, which the next call raises
                _call_driver("cuCtxPopCurrent")

    def check_stream(self, handle: int, subject: str = "stream") -> None:
        """Check that a caller's stream belongs to the primary context of this device, which must be current.

        CUDA refuses to record this device's events in other streams.

        Raises:
            InputError: The stream belongs to another device or context.
        """
        # Before CUDA 12.8 a stream does not tell its device.
        has_device = hasattr(_runtime(), "cudaStreamGetDevice")
        index = int(_call("cudaStreamGetDevice", handle)) if has_device else self.index
        if index != self.index:
            raise InputError(
                f"a stream of CUDA device {index}; expected one of device {self.index}, where the bundle is loaded",
                subject=subject,
            )
        if handle in (0, LEGACY_STREAM, PER_THREAD_STREAM):
            return  # they belong to the current context
        if int(_call_driver("cuStreamGetCtx", handle)) != int(_primary_context(self.index)):
            raise InputError(
                "a stream of another CUDA context; expected one of the primary context of the GPU",
                subject=subject,
                remedy="Create it in the primary context, e.g. with `import pycuda.autoprimaryctx` in place of "
                "`pycuda.autoinit`",
            )


def memory_info() -> tuple[int, int]:
    """Return (free, total) bytes of the current device's memory."""
    free, total = _call("cudaMemGetInfo")
    return int(free), int(total)


def memory_device(pointer: int) -> int | None:
    """Return the index of the device that `pointer` belongs to (managed memory too), None for host memory."""
    runtime = _runtime()
    error, attributes = runtime.cudaPointerGetAttributes(pointer)
    if error == runtime.cudaError_t.cudaErrorInvalidValue:  # memory that CUDA does not know
        runtime.cudaGetLastError()
        return None
    if error != runtime.cudaError_t.cudaSuccess:
        raise _error_of(runtime, "cudaPointerGetAttributes", error)
    types = runtime.cudaMemoryType
    on_device = attributes.type in (types.cudaMemoryTypeDevice, types.cudaMemoryTypeManaged)
    return int(attributes.device) if on_device else None


@dataclass(frozen=True)
class MemoryRows:
    """Rows of equal length at equal distances in memory.

    Attributes:
        count: Number of rows.
        nbytes: Bytes of a row.
        pitch: Bytes from the start of a row to the next.
    """

    count: int
    nbytes: int
    pitch: int


class _Handle:
    """A handle of CUDA that `close` destroys, once."""

    _destroy: str
    """Name of the CUDA function that destroys the handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def handle(self) -> int:
        """The handle or address as a number; raises TcmoaError once it is closed."""
        if self._handle is None:
            raise TcmoaError(f"this {type(self).__name__} is closed", remedy="Load the bundle again")
        return int(self._handle)

    def close(self) -> None:
        """Destroy the handle; further calls do nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _call(self._destroy, handle)


def _allocate(function: str, nbytes: int, kind: str, *flags: int) -> Any:
    """Allocate memory; `kind` names it in the error."""
    runtime = _runtime()
    error, address = getattr(runtime, function)(nbytes, *flags)
    if error == runtime.cudaError_t.cudaErrorMemoryAllocation:
        runtime.cudaGetLastError()
        free = ""
        with suppress(TcmoaError):
            free = "; {} of {} bytes are free on the GPU".format(*memory_info())
        raise out_of_memory(f"out of {kind} memory: {nbytes} bytes requested{free}")
    if error != runtime.cudaError_t.cudaSuccess:
        raise _error_of(runtime, function, error)
    return address


class DeviceBuffer(_Handle):
    """`nbytes` of the current device's memory; `handle` is the address."""

    _destroy = "cudaFree"

    def __init__(self, nbytes: int) -> None:
        super().__init__(_allocate("cudaMalloc", nbytes, "GPU"))
        self.nbytes = nbytes


class PinnedBuffer(_Handle):
    """`nbytes` of page-locked host memory, which copies from and to the GPU run on asynchronously."""

    _destroy = "cudaFreeHost"

    def __init__(self, nbytes: int) -> None:
        super().__init__(_allocate("cudaHostAlloc", nbytes, "page-locked", _runtime().cudaHostAllocDefault))
        self.nbytes = nbytes

    def array(self, dtype: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
        """Return a view of the memory, valid until `close`."""
        view = (ctypes.c_uint8 * self.nbytes).from_address(self.handle)
        return np.frombuffer(memoryview(view), np.uint8).view(dtype).reshape(shape)


class CudaEvent(_Handle):
    """A point in a stream that other streams and the host can wait for."""

    _destroy = "cudaEventDestroy"

    def __init__(self) -> None:
        super().__init__(_call("cudaEventCreateWithFlags", _runtime().cudaEventDisableTiming))

    def record(self, stream: CudaStream) -> None:
        """Capture what is queued in `stream` now, in place of an earlier recording."""
        _call("cudaEventRecord", self.handle, stream.handle)

    def synchronize(self) -> None:
        """Block until the recorded work is done; return at once if nothing was recorded."""
        _call("cudaEventSynchronize", self.handle)


class CudaStream(_Handle):
    """A queue of work on the GPU.

    Args:
        handle: A caller's stream, which is used and never destroyed; None: a new stream that does not synchronize
            with the default stream.
    """

    _destroy = "cudaStreamDestroy"

    def __init__(self, handle: int | None = None) -> None:
        self.is_external = handle is not None
        if handle is None:
            handle = _call("cudaStreamCreateWithFlags", _runtime().cudaStreamNonBlocking)
        super().__init__(handle)

    def close(self) -> None:
        """Destroy the stream unless it is a caller's."""
        if self.is_external:
            self._handle = None
        super().close()

    def synchronize(self) -> None:
        """Block until all queued work is done; errors of that work are raised here."""
        _call("cudaStreamSynchronize", self.handle)

    def wait_event(self, event: CudaEvent) -> None:
        """Make later work wait for the current recording of `event`, if there is one."""
        _call("cudaStreamWaitEvent", self.handle, event.handle, 0)

    def wait_stream(self, other: CudaStream, event: CudaEvent) -> None:
        """Make later work wait for all work that is queued in `other` now; `event` is recorded for that."""
        event.record(other)
        self.wait_event(event)

    def upload(self, target: DeviceBuffer, source: PinnedBuffer) -> None:
        """Queue a copy from host to device, of the size of `target`."""
        self._copy(target.handle, source.handle, target.nbytes, "cudaMemcpyHostToDevice")

    def download(self, target: PinnedBuffer, source: DeviceBuffer) -> None:
        """Queue a copy from device to host, of the size of `target`."""
        self._copy(target.handle, source.handle, target.nbytes, "cudaMemcpyDeviceToHost")

    def download_array(self, target: NDArray[np.generic], pointer: int) -> None:
        """Copy from device to a C-contiguous array in any host memory, and block until it is done."""
        kind = _runtime().cudaMemcpyKind.cudaMemcpyDeviceToHost
        _call("cudaMemcpyAsync", target.ctypes.data, pointer, target.nbytes, kind, self.handle)
        self.synchronize()

    def copy_on_device(self, target: DeviceBuffer, pointer: int, rows: MemoryRows | None = None) -> None:
        """Queue a copy within the device, of the size of `target`.

        Args:
            target: Filled without gaps.
            pointer: Address of the source.
            rows: Rows of the source, together as many bytes as `target`; None: the source has no gaps.
        """
        if rows is None:
            self._copy(target.handle, pointer, target.nbytes, "cudaMemcpyDeviceToDevice")
            return
        kind = _runtime().cudaMemcpyKind.cudaMemcpyDeviceToDevice
        width, height = rows.nbytes, rows.count
        _call(
            "cudaMemcpy2DAsync", target.handle, width, pointer, rows.pitch, width, height, kind, self.handle
        )

    def _copy(self, target: int, source: int, nbytes: int, kind: str) -> None:
        kinds = _runtime().cudaMemcpyKind
        _call("cudaMemcpyAsync", target, source, nbytes, getattr(kinds, kind), self.handle)


class CudaGraph(_Handle):
    """Captured work that is launched as a whole."""

    _destroy = "cudaGraphExecDestroy"

    @classmethod
    def capture(cls, stream: CudaStream, work: Callable[[], None]) -> Self:
        """Capture what `work` queues in `stream`, without running it.

        Other threads may use CUDA meanwhile: only calls of this thread can invalidate the capture.

        Raises:
            TcmoaError: The work cannot be captured.
        """
        mode = _runtime().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _call("cudaStreamBeginCapture", stream.handle, mode)
        try:
            work()
        except BaseException:
            with suppress(TcmoaError):  # the first error matters, not that the capture is invalid
                _destroy_template(_call("cudaStreamEndCapture", stream.handle))
            raise
        template = _call("cudaStreamEndCapture", stream.handle)
        try:
            return cls(_call("cudaGraphInstantiate", template, 0))
        finally:
            _destroy_template(template)

    def launch(self, stream: CudaStream) -> None:
        """Queue the captured work in `stream`."""
        _call("cudaGraphLaunch", self.handle, stream.handle)


def _destroy_template(template: Any) -> None:
    """Destroy the `cudaGraph_t` of a capture; a failure does not matter, the executable graph is independent."""
    if template is not None and int(template):
        with suppress(TcmoaError):
            _call("cudaGraphDestroy", template)
