"""A thin layer on `cuda.bindings.runtime`: what the TensorRT backend needs of CUDA, every call checked.

Each class owns one handle, is a context manager, and closes once however often it is asked. Importing this
module imports no CUDA; the first call does.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import MemoryShortageError, MissingError, TcmoaError

_MODULE: Final = "cuda.bindings.runtime"
_SMALLER: Final = "export a smaller frame or batch, take fewer slots, or end what else holds memory"

LEGACY_STREAM: Final = 1
"""Handle of the default stream that waits for all others; 2 is the default stream of each thread."""
PER_THREAD_STREAM: Final = 2


def _runtime() -> Any:
    """The module `cuda.bindings.runtime`; MissingError when it is not installed."""
    module = sys.modules.get(_MODULE)
    if module is not None:
        return module
    try:
        return importlib.import_module(_MODULE)
    except ImportError as error:
        raise MissingError(
            f"cuda.bindings cannot be imported ({error}); run `pip install 'tcmoa[rtx]'` or "
            f"`pip install 'tcmoa[tensorrt]'`"
        ) from error


def _call(function: str, *arguments: Any) -> Any:
    """Call a function of the runtime: its one result, or None; an error of CUDA becomes ours."""
    runtime = _runtime()
    error, *results = getattr(runtime, function)(*arguments)
    if error != runtime.cudaError_t.cudaSuccess:
        runtime.cudaGetLastError()  # or the library that shares this thread would find it
        raise _translated(runtime, function, error)
    return results[0] if len(results) == 1 else results


def _translated(runtime: Any, function: str, error: Any) -> TcmoaError:
    codes = runtime.cudaError_t
    text = f"{_text(runtime, 'cudaGetErrorString', error)} ({_text(runtime, 'cudaGetErrorName', error)})"
    if error == codes.cudaErrorInsufficientDriver:
        version = runtime.cudaDriverGetVersion()[1]
        found = f"an NVIDIA driver for CUDA {_version(version)}" if version else "no NVIDIA driver"
        return MissingError(f"there is {found}: {text}; install a newer driver, or use --backend onnxruntime")
    if error == codes.cudaErrorNoDevice:
        return MissingError(f"there is no CUDA device: {text}; use --backend onnxruntime")
    if error == codes.cudaErrorMemoryAllocation:
        return MemoryShortageError(f"out of GPU memory in {function}; {_SMALLER}")
    return TcmoaError(f"CUDA failed in {function}: {text}; check the GPU with `nvidia-smi`")


def _text(runtime: Any, function: str, error: Any) -> str:
    text = getattr(runtime, function)(error)[1]
    return str(text.decode(errors="replace"))


def _version(number: int) -> str:
    """13000 as 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


@dataclass(frozen=True)
class Device:
    """What is known of a GPU; `memory` in bytes, `driver` the CUDA version that the driver supports."""

    index: int
    name: str
    compute_capability: str
    memory: int
    driver: str

    @staticmethod
    def current() -> Device:
        """The calling thread's device. Raises MissingError without driver or device."""
        _call("cudaGetDeviceCount")
        return Device._of(int(_call("cudaGetDevice")))

    @staticmethod
    def all() -> list[Device]:
        """All devices that CUDA shows, by index. Raises MissingError without driver or device."""
        return [Device._of(index) for index in range(int(_call("cudaGetDeviceCount")))]

    @staticmethod
    def _of(index: int) -> Device:
        properties = _call("cudaGetDeviceProperties", index)
        return Device(
            index=index,
            name=properties.name.rstrip(b"\0").decode(errors="replace"),
            compute_capability=f"{properties.major}.{properties.minor}",
            memory=int(properties.totalGlobalMem),
            driver=_version(_call("cudaDriverGetVersion")),
        )

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make it the calling thread's device for a while: CUDA keeps a current device for each thread."""
        before = int(_call("cudaGetDevice"))
        if before == self.index:
            yield
            return
        _call("cudaSetDevice", self.index)
        try:
            yield
        finally:
            _call("cudaSetDevice", before)


def free_memory() -> tuple[int, int]:
    """(free, total) bytes of the current device."""
    free, total = _call("cudaMemGetInfo")
    return int(free), int(total)


def memory_device(pointer: int) -> int | None:
    """Index of the device whose memory `pointer` lies in (or managed memory); None for memory of the host."""
    runtime = _runtime()
    error, found = runtime.cudaPointerGetAttributes(pointer)
    if error == runtime.cudaError_t.cudaErrorInvalidValue:  # not known to CUDA at all
        runtime.cudaGetLastError()
        return None
    if error != runtime.cudaError_t.cudaSuccess:
        raise _translated(runtime, "cudaPointerGetAttributes", error)
    types = runtime.cudaMemoryType
    on_device = found.type in (types.cudaMemoryTypeDevice, types.cudaMemoryTypeManaged)
    return int(found.device) if on_device else None


class _Owned:
    """A handle that is destroyed once, by `close`; after that it raises."""

    _destroy: str

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
        """The handle or address as a number."""
        if self._handle is None:
            raise TcmoaError(f"this {type(self).__name__} is closed; load the bundle again")
        return int(self._handle)

    def close(self) -> None:
        """Free it; again does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _call(self._destroy, handle)


def _allocated(function: str, nbytes: int, where: str, *flags: int) -> Any:
    runtime = _runtime()
    error, address = getattr(runtime, function)(nbytes, *flags)
    if error == runtime.cudaError_t.cudaErrorMemoryAllocation:
        runtime.cudaGetLastError()
        room = ""
        with suppress(TcmoaError):
            room = " ({} of {} free on the GPU)".format(*free_memory())
        raise MemoryShortageError(f"out of {where} memory: {nbytes} bytes were asked for{room}; {_SMALLER}")
    if error != runtime.cudaError_t.cudaSuccess:
        raise _translated(runtime, function, error)
    return address


class DeviceBuffer(_Owned):
    """`nbytes` of the current device's memory; `handle` is the address."""

    _destroy = "cudaFree"

    def __init__(self, nbytes: int) -> None:
        super().__init__(_allocated("cudaMalloc", nbytes, "GPU"))
        self.nbytes = nbytes


class PinnedBuffer(_Owned):
    """`nbytes` of page-locked host memory, which the GPU copies from and to while the CPU does something else."""

    _destroy = "cudaFreeHost"

    def __init__(self, nbytes: int) -> None:
        super().__init__(_allocated("cudaHostAlloc", nbytes, "page-locked", _runtime().cudaHostAllocDefault))
        self.nbytes = nbytes

    def array(self, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """A view of the memory, valid until `close`."""
        view = (ctypes.c_uint8 * self.nbytes).from_address(self.handle)
        return np.frombuffer(memoryview(view), np.uint8).view(dtype).reshape(shape)


class Event(_Owned):
    """A point in a stream that other streams, and the host, can wait for."""

    _destroy = "cudaEventDestroy"

    def __init__(self) -> None:
        super().__init__(_call("cudaEventCreateWithFlags", _runtime().cudaEventDisableTiming))

    def record(self, stream: Stream) -> None:
        """Mark what is queued in `stream` up to now; what was marked before is forgotten."""
        _call("cudaEventRecord", self.handle, stream.handle)

    def synchronize(self) -> None:
        """Block until what was marked is done; at once when nothing was."""
        _call("cudaEventSynchronize", self.handle)


class Stream(_Owned):
    """A queue of work. Without `handle` a new one that does not wait for the default stream.

    With `handle`, a caller's stream: used, never destroyed.
    """

    _destroy = "cudaStreamDestroy"

    def __init__(self, handle: int | None = None) -> None:
        self.borrowed = handle is not None
        if handle is None:
            handle = _call("cudaStreamCreateWithFlags", _runtime().cudaStreamNonBlocking)
        super().__init__(handle)

    def close(self) -> None:
        """Destroy it when it is ours."""
        if self.borrowed:
            self._handle = None
        super().close()

    def synchronize(self) -> None:
        """Block until all queued work is done; an error of that work is raised here."""
        _call("cudaStreamSynchronize", self.handle)

    def wait(self, event: Event) -> None:
        """Let later work wait for what `event` marks now; at once when it marks nothing."""
        _call("cudaStreamWaitEvent", self.handle, event.handle, 0)

    def follow(self, other: Stream, event: Event) -> None:
        """Let later work wait for all that is queued in `other` now; `event` is only used on the way."""
        event.record(other)
        self.wait(event)

    def upload(self, target: DeviceBuffer, source: PinnedBuffer) -> None:
        """Queue a copy from host to device of the whole buffer."""
        self._copy(target.handle, source.handle, target.nbytes, "cudaMemcpyHostToDevice")

    def download(self, target: PinnedBuffer, source: DeviceBuffer) -> None:
        """Queue a copy from device to host of the whole buffer."""
        self._copy(target.handle, source.handle, target.nbytes, "cudaMemcpyDeviceToHost")

    def gather(self, target: DeviceBuffer, pointer: int) -> None:
        """Queue a copy within the device, as many bytes as `target` has."""
        self._copy(target.handle, pointer, target.nbytes, "cudaMemcpyDeviceToDevice")

    def _copy(self, target: int, source: int, nbytes: int, kind: str) -> None:
        kinds = _runtime().cudaMemcpyKind
        _call("cudaMemcpyAsync", target, source, nbytes, getattr(kinds, kind), self.handle)


class Graph(_Owned):
    """Work that was captured once and is launched as one."""

    _destroy = "cudaGraphExecDestroy"

    @classmethod
    def capture(cls, stream: Stream, work: Callable[[], None]) -> Self:
        """Record what `work` queues in `stream`; nothing of it runs yet.

        Only what this very thread does meanwhile can disturb the capture, so that other threads may go on
        using CUDA. Raises what `work` raises, and TcmoaError when it cannot be captured.
        """
        mode = _runtime().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _call("cudaStreamBeginCapture", stream.handle, mode)
        try:
            work()
        except BaseException:
            with suppress(TcmoaError):  # the reason matters, not that capturing came to nothing
                _forget_graph(_call("cudaStreamEndCapture", stream.handle))
            raise
        graph = _call("cudaStreamEndCapture", stream.handle)
        try:
            return cls(_call("cudaGraphInstantiate", graph, 0))
        finally:
            _forget_graph(graph)

    def launch(self, stream: Stream) -> None:
        """Queue the captured work in `stream`."""
        _call("cudaGraphLaunch", self.handle, stream.handle)


def _forget_graph(graph: Any) -> None:
    """Destroy what a capture gave; a failure there is no reason to lose the executable graph made of it."""
    if graph is not None and int(graph):
        with suppress(TcmoaError):
            _call("cudaGraphDestroy", graph)
