"""A simulated `cuda.bindings.runtime`, see the package's docstring."""
# ruff: noqa: N801, N802, N815, N818
# The names are CUDA's.

import ctypes
import enum
import random
import re
import sys
import threading
import types
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

GUARD = 256
POISON = 0xA5
FREED = 0xDD
ALIGNMENT = 256
"""Of every address that `cudaMalloc` returns, by the CUDA programming guide."""
MODULE, DRIVER_MODULE = "cuda.bindings.runtime", "cuda.bindings.driver"
LEGACY, PER_THREAD = 1, 2


class Misuse(AssertionError):
    """A call that is undefined behavior, or silently wrong, on a real GPU."""


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400
    cudaErrorIllegalAddress = 700
    cudaErrorMisalignedAddress = 716
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901
    cudaErrorUnknown = 999


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_DEVICE = 101
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_UNKNOWN = 999


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1
    cudaStreamCaptureModeRelaxed = 2


class cudaMemoryType(enum.IntEnum):
    cudaMemoryTypeUnregistered = 0
    cudaMemoryTypeHost = 1
    cudaMemoryTypeDevice = 2
    cudaMemoryTypeManaged = 3


ENUMS = (cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode, cudaMemoryType)
CONSTANTS = {"cudaHostAllocDefault": 0, "cudaStreamNonBlocking": 1, "cudaEventDisableTiming": 2}
OK = cudaError_t.cudaSuccess
STICKY = (
    cudaError_t.cudaErrorIllegalAddress,
    cudaError_t.cudaErrorMisalignedAddress,
    cudaError_t.cudaErrorLaunchFailure,
)
"""Errors that leave the process without a usable context: every later call returns the same one."""


@dataclass
class Memory:
    """An allocation between two guards."""

    nbytes: int
    device: int | None  # None: page-locked host memory
    whole: np.ndarray = field(init=False, repr=False)
    start: int = field(init=False, repr=False)
    freed: bool = False

    def __post_init__(self):
        self.whole = np.full(self.nbytes + 2 * GUARD + ALIGNMENT, POISON, np.uint8)
        whole = self.whole.ctypes.data
        self.start = GUARD + -(whole + GUARD) % ALIGNMENT
        self.address = whole + self.start

    @property
    def content(self):
        return self.whole[self.start : self.start + self.nbytes]

    def check_guards(self):
        if (self.whole[: self.start] != POISON).any() or (
            self.whole[self.start + self.nbytes :] != POISON
        ).any():
            raise Misuse(f"something wrote outside of the {self.nbytes} bytes at {self.address:#x}")


@dataclass
class Record:
    """A recording of an event; done once the stream has reached it."""

    stream: "Stream"
    done: bool = False


@dataclass
class Stream:
    handle: int
    device: int
    context: int | None = None  # the primary one of its device
    queue: deque = field(default_factory=deque)
    capture: "Capture | None" = None
    destroyed: bool = False


@dataclass
class Capture:
    thread: int
    mode: int
    operations: list = field(default_factory=list)
    invalid: bool = False


@dataclass
class Event:
    handle: int
    device: int
    record: Record | None = None


@dataclass
class Operation:
    """Work in a stream: `run` executes it, once the recording `after` is done."""

    run: object
    after: Record | None = None


class Device:
    """CUDA as a process sees it. Without `seed`, work runs as late as possible; with one, in random turns."""

    def __init__(self, *, devices=1, seed=None, capability=(8, 9), memory=8 << 30):
        self.devices, self.capability, self.memory = devices, capability, memory
        self.random = None if seed is None else random.Random(seed)
        self.lock = threading.RLock()
        self.current = threading.local()
        self.memories, self.graphs, self.executables, self.events = [], {}, {}, {}
        self.streams, self.defaults = {}, {}
        self.primary = set()  # devices with a primary context, which costs hundreds of MB on a real GPU
        self.pushed = Counter()  # contexts by thread
        self.sticky = None
        self.misuses, self.calls, self.counts = [], [], Counter()
        self.failures = {}  # (function or None for all, nth call from 1) -> error
        self.driver = 13000
        self.next_handle = 0x1000
        self.pageable_copies = 0

    # --- for tests ---------------------------------------------------------------------------------------

    def fail(self, nth, error, function=None):
        """Make the `nth` call of `function` (None: of any function) from now on return `error`."""
        self.failures[function, self.counts[function] + nth] = error

    def live(self):
        """Resources that are not freed, by kind."""
        held = {
            "device": [m for m in self.memories if not m.freed and m.device is not None],
            "pinned": [m for m in self.memories if not m.freed and m.device is None],
            "streams": list(self.streams),
            "events": list(self.events),
            "graphs": list(self.graphs),
            "executables": list(self.executables),
            "work": [s.handle for s in self.every_stream() if s.queue],
            "contexts": [thread for thread, count in self.pushed.items() if count],
        }
        return {kind: things for kind, things in held.items() if things}

    def check(self):
        """Fail on misuse whose exception was caught, and on writes outside of allocations."""
        for memory in self.memories:
            if not memory.freed:
                memory.check_guards()
        assert not self.misuses

    def finish(self):
        """Run all queued work."""
        with self.lock:
            for stream in self.every_stream():
                self.drain(stream)

    def crash(self, handle, error=cudaError_t.cudaErrorIllegalAddress):
        """Enqueue work that ends the context, as a kernel does that reads a wrong address."""
        self.queue(handle, lambda: setattr(self, "sticky", error))

    def array(self, values, device=0):
        """Allocate device memory with these values; `release` frees it."""
        values = np.ascontiguousarray(values)
        memory = Memory(values.nbytes, device)
        memory.content[:] = values.reshape(-1).view(np.uint8)
        self.memories.append(memory)
        return memory

    def release(self, memory):
        memory.check_guards()
        memory.content[:] = FREED
        memory.freed = True

    def stream(self, device=0, context=None):
        """Create a caller's stream, in the primary context unless another one is given."""
        self.next_handle += 0x10
        self.streams[self.next_handle] = Stream(self.next_handle, device, context)
        return self.next_handle

    def queue(self, handle, run):
        """Enqueue a caller's work in a stream."""
        self.push(self.stream_of(handle), Operation(run))

    # --- the simulation ---------------------------------------------------------------------------------

    def misuse(self, text):
        error = Misuse(text)
        self.misuses.append(text)
        raise error

    def find(self, address, nbytes, device):
        """Return the bytes at an address in memory of `device` (None: page-locked host memory)."""
        for memory in self.memories:
            if memory.address <= address < memory.address + memory.nbytes and not memory.freed:
                if memory.device != device:
                    self.misuse(f"{address:#x} is memory of {memory.device}, used as that of {device}")
                start = address - memory.address
                if start + nbytes > memory.nbytes:
                    self.misuse(f"{nbytes} bytes at {address:#x} go beyond the {memory.nbytes} of the memory")
                return memory.content[start : start + nbytes]
        self.misuse(f"{address:#x} is not allocated, or was freed")
        return None

    def known(self, address):
        return any(m.address <= address < m.address + max(m.nbytes, 1) and not m.freed for m in self.memories)

    def device(self):
        """The device of the thread's current context; without one, the runtime's choice for the thread."""
        stack = getattr(self.current, "stack", None)
        return stack[-1] if stack else getattr(self.current, "device", 0)

    def every_stream(self):
        return [*self.streams.values(), *self.defaults.values()]

    def stream_of(self, handle):
        handle = LEGACY if int(handle) == 0 else int(handle)
        if handle in (LEGACY, PER_THREAD):  # each device has its own, and each thread its own per-thread one
            key = (handle, self.device(), threading.get_ident() if handle == PER_THREAD else None)
            return self.defaults.setdefault(key, Stream(handle, self.device()))
        if handle not in self.streams:
            self.misuse(f"stream {handle:#x} does not exist, or was destroyed")
        return self.streams[handle]

    def event_of(self, handle):
        if int(handle) not in self.events:
            self.misuse(f"event {int(handle):#x} does not exist, or was destroyed")
        return self.events[int(handle)]

    def push(self, stream, operation):
        if stream.capture is not None:
            stream.capture.operations.append(operation)
        else:
            stream.queue.append(operation)

    def step(self, stream):
        """Run a stream's next operation, after the work that it waits for."""
        if self.sticky is not None:
            stream.queue.clear()
            return
        operation = stream.queue[0]
        if operation.after is not None and not operation.after.done:
            self.reach(operation.after)
        if stream.queue:  # else the work it waited for ended the context
            stream.queue.popleft()
            operation.run()

    def reach(self, record):
        while not record.done and self.sticky is None:
            if not record.stream.queue:
                self.misuse("an event waits for a recording that never comes")
            self.step(record.stream)

    def drain(self, stream):
        while stream.queue:
            self.step(stream)

    def wander(self):
        """Run a few operations of random streams, as a GPU may do at any time."""
        if self.random is None:
            return
        for _ in range(self.random.randrange(4)):
            busy = [s for s in self.every_stream() if s.queue]
            if not busy:
                return
            self.step(self.random.choice(busy))

    def forbid_in_capture(self):
        """Return the error of a call that invalidates a capture, None outside of a capture."""
        me = threading.get_ident()
        for stream in self.every_stream():
            capture = stream.capture
            if capture is None or capture.mode == cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed:
                continue
            if capture.thread == me or capture.mode == cudaStreamCaptureMode.cudaStreamCaptureModeGlobal:
                capture.invalid = True
                return cudaError_t.cudaErrorStreamCaptureUnsupported
        return None

    def handle(self):
        self.next_handle += 0x10
        return self.next_handle

    # --- the functions of cuda.bindings.runtime -----------------------------------------------------------

    def cudaGetDeviceCount(self):
        return OK, self.devices

    def cudaGetDevice(self):
        return OK, self.device()

    def cudaSetDevice(self, device):
        if not 0 <= device < self.devices:
            return (cudaError_t.cudaErrorInvalidDevice,)
        stack = getattr(self.current, "stack", None)
        if stack:
            stack[-1] = device
        else:
            self.current.device = device
        self.primary.add(device)  # at once, since CUDA 12
        return (OK,)

    def cudaGetDeviceProperties(self, device):
        properties = types.SimpleNamespace(
            name=b"Simulated GPU (no GPU)", major=self.capability[0], minor=self.capability[1]
        )
        properties.totalGlobalMem = self.memory
        return OK, properties

    def cudaDriverGetVersion(self):
        return OK, self.driver

    def cudaMemGetInfo(self):
        held = sum(m.nbytes for m in self.memories if not m.freed and m.device == self.device())
        return OK, self.memory - held, self.memory

    def cudaGetLastError(self):
        return (OK,)

    def cudaGetErrorName(self, error):
        return OK, error.name.encode()

    def cudaGetErrorString(self, error):
        return OK, f"simulated {error.name}".encode()

    def cudaPointerGetAttributes(self, ptr):
        for memory in self.memories:
            if memory.address <= ptr < memory.address + memory.nbytes and not memory.freed:
                kind = cudaMemoryType.cudaMemoryTypeDevice
                if memory.device is None:
                    kind = cudaMemoryType.cudaMemoryTypeHost
                return OK, types.SimpleNamespace(type=kind, device=memory.device or 0)
        return OK, types.SimpleNamespace(type=cudaMemoryType.cudaMemoryTypeUnregistered, device=-2)

    def allocate(self, size, device):
        if (error := self.forbid_in_capture()) is not None:
            return error, None
        if size <= 0:
            self.misuse(f"{size} bytes requested")
        memory = Memory(size, device)
        self.memories.append(memory)
        return OK, memory.address

    def free(self, address, on_device):
        if (error := self.forbid_in_capture()) is not None:
            return (error,)
        for memory in self.memories:
            if memory.address == address and not memory.freed and (memory.device is not None) == on_device:
                self.release(memory)
                return (OK,)
        self.misuse(f"{address:#x} is freed twice, by the wrong function, or was never allocated")
        return None

    def cudaMalloc(self, size):
        return self.allocate(size, self.device())

    def cudaFree(self, devPtr):
        return self.free(devPtr, on_device=True)

    def cudaHostAlloc(self, size, flags):
        return self.allocate(size, None)

    def cudaFreeHost(self, ptr):
        return self.free(ptr, on_device=False)

    def cudaStreamCreateWithFlags(self, flags):
        if flags != CONSTANTS["cudaStreamNonBlocking"]:
            self.misuse("a stream that synchronizes with the default stream")
        return OK, self.stream(self.device())

    def cudaStreamGetDevice(self, hStream):
        return OK, self.stream_of(hStream).device

    def cudaStreamDestroy(self, stream):
        found = self.stream_of(stream)
        if found.queue or found.capture:
            self.misuse(f"stream {found.handle:#x} is destroyed with {len(found.queue)} operations pending")
        del self.streams[found.handle]
        return (OK,)

    def cudaStreamSynchronize(self, stream):
        found = self.stream_of(stream)
        if (error := self.forbid_in_capture()) is not None:
            return (error,)
        self.drain(found)
        return (OK,)

    def cudaStreamWaitEvent(self, stream, event, flags):
        found, record = self.stream_of(stream), self.event_of(event).record
        if record is not None and not record.done:
            self.push(found, Operation(lambda: None, after=record))
        return (OK,)

    def cudaEventCreateWithFlags(self, flags):
        handle = self.handle()
        self.events[handle] = Event(handle, self.device())
        return OK, handle

    def cudaEventDestroy(self, event):
        found = self.event_of(event)
        if found.record is not None and not found.record.done:
            self.misuse(f"event {found.handle:#x} is destroyed before its stream reached it")
        del self.events[found.handle]
        return (OK,)

    def cudaEventRecord(self, event, stream):
        found, target = self.event_of(event), self.stream_of(stream)
        if found.device != target.device:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        record = found.record = Record(target)

        def reached():
            record.done = True

        self.push(target, Operation(reached))
        return (OK,)

    def cudaEventSynchronize(self, event):
        found = self.event_of(event)
        if (error := self.forbid_in_capture()) is not None:
            return (error,)
        if found.record is not None:
            self.reach(found.record)
        return (OK,)

    def cudaMemcpyAsync(self, dst, src, count, kind, stream):
        found, kinds = self.stream_of(stream), cudaMemcpyKind
        device = found.device
        target_at = device if kind in (kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToDevice) else None
        source_at = device if kind in (kinds.cudaMemcpyDeviceToHost, kinds.cudaMemcpyDeviceToDevice) else None
        pageable = [p for p, at in ((dst, target_at), (src, source_at)) if at is None and not self.known(p)]
        if pageable:  # allowed, but synchronous
            self.pageable_copies += 1
            self.drain(found)
            if target_at is None:
                ctypes.memmove(dst, self.find(src, count, source_at).tobytes(), count)
            else:
                self.find(dst, count, target_at)[:] = np.frombuffer(ctypes.string_at(src, count), np.uint8)
            return (OK,)
        self.find(dst, count, target_at)
        self.find(src, count, source_at)

        def copy():
            self.find(dst, count, target_at)[:] = self.find(src, count, source_at)

        self.push(found, Operation(copy))
        return (OK,)

    def cudaMemcpy2DAsync(self, dst, dpitch, src, spitch, width, height, kind, stream):
        found = self.stream_of(stream)
        if kind != cudaMemcpyKind.cudaMemcpyDeviceToDevice:
            self.misuse("only copies within the GPU are simulated row by row")
        if width > dpitch or width > spitch:
            return (cudaError_t.cudaErrorInvalidValue,)
        device = found.device
        reach = [(dst, (height - 1) * dpitch + width), (src, (height - 1) * spitch + width)]
        for address, nbytes in reach:
            self.find(address, nbytes, device)

        def copy():
            target, source = (self.find(address, nbytes, device) for address, nbytes in reach)
            for row in range(height):
                target[row * dpitch : row * dpitch + width] = source[row * spitch : row * spitch + width]

        self.push(found, Operation(copy))
        return (OK,)

    def cudaStreamBeginCapture(self, stream, mode):
        found = self.stream_of(stream)
        if found.handle in (LEGACY, PER_THREAD) or found.capture is not None:
            return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
        found.capture = Capture(threading.get_ident(), mode)
        return (OK,)

    def cudaStreamEndCapture(self, stream):
        found = self.stream_of(stream)
        capture, found.capture = found.capture, None
        if capture is None or capture.thread != threading.get_ident():
            self.misuse("a capture is ended by a thread that did not begin it")
        if capture.invalid:
            return cudaError_t.cudaErrorStreamCaptureInvalidated, None
        handle = self.handle()
        self.graphs[handle] = capture.operations
        return OK, handle

    def cudaGraphInstantiate(self, graph, flags):
        handle = self.handle()
        self.executables[handle] = list(self.graphs[int(graph)])
        return OK, handle

    def cudaGraphLaunch(self, graphExec, stream):
        found = self.stream_of(stream)
        if int(graphExec) not in self.executables:
            self.misuse("a graph is launched that was destroyed")
        if found.device != self.device():
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        for operation in self.executables[int(graphExec)]:
            self.push(found, operation)
        return (OK,)

    def cudaGraphExecDestroy(self, graphExec):
        if self.executables.pop(int(graphExec), None) is None:
            self.misuse("a graph is destroyed twice")
        return (OK,)

    def cudaGraphDestroy(self, graph):
        if self.graphs.pop(int(graph), None) is None:
            self.misuse("a graph is destroyed twice")
        return (OK,)

    # --- the functions of cuda.bindings.driver ------------------------------------------------------------

    def cuInit(self, Flags):
        return (CUresult.CUDA_SUCCESS,)

    def cuDeviceGet(self, ordinal):
        if not 0 <= ordinal < self.devices:
            return CUresult.CUDA_ERROR_INVALID_DEVICE, None
        return CUresult.CUDA_SUCCESS, ordinal

    def cuDevicePrimaryCtxRetain(self, dev):
        self.primary.add(dev)
        return CUresult.CUDA_SUCCESS, 0xC000 + dev

    def cuCtxPushCurrent(self, ctx):
        if not hasattr(self.current, "stack"):
            self.current.stack = []
        self.current.stack.append(ctx - 0xC000)
        self.pushed[threading.get_ident()] += 1
        return (CUresult.CUDA_SUCCESS,)

    def cuCtxPopCurrent(self):
        if not getattr(self.current, "stack", None):
            return CUresult.CUDA_ERROR_INVALID_CONTEXT, None
        self.pushed[threading.get_ident()] -= 1
        return CUresult.CUDA_SUCCESS, 0xC000 + self.current.stack.pop()

    def cuStreamGetCtx(self, hStream):
        stream = self.stream_of(hStream)
        return CUresult.CUDA_SUCCESS, 0xC000 + stream.device if stream.context is None else stream.context

    def cuGetErrorName(self, error):
        return CUresult.CUDA_SUCCESS, error.name.encode()

    def cuGetErrorString(self, error):
        return CUresult.CUDA_SUCCESS, f"simulated {error.name}".encode()


FUNCTIONS = tuple(name for name in vars(Device) if name.startswith("cuda"))
DRIVER_FUNCTIONS = tuple(name for name in vars(Device) if re.match("cu[A-Z]", name))
RESULTS = {  # number of results besides the error, of functions that return some
    **dict.fromkeys(("cudaMemGetInfo",), 2),
    **dict.fromkeys(
        (
            "cudaGetDeviceCount",
            "cudaGetDevice",
            "cudaGetDeviceProperties",
            "cudaDriverGetVersion",
            "cudaMalloc",
        ),
        1,
    ),
    **dict.fromkeys(("cudaHostAlloc", "cudaStreamCreateWithFlags", "cudaEventCreateWithFlags"), 1),
    **dict.fromkeys(("cudaStreamGetDevice", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPopCurrent"), 1),
    **dict.fromkeys(("cuStreamGetCtx",), 1),
    **dict.fromkeys(("cudaStreamEndCapture", "cudaGraphInstantiate", "cudaPointerGetAttributes"), 1),
}
ASIDE = (
    "cudaGetLastError",
    "cudaGetErrorName",
    "cudaGetErrorString",
    "cuGetErrorName",
    "cuGetErrorString",
)
"""Functions about errors, which are not counted and never fail."""
WITHOUT_CONTEXT = (
    *(
        "cudaGetDeviceCount",
        "cudaGetDevice",
        "cudaSetDevice",
        "cudaGetDeviceProperties",
        "cudaDriverGetVersion",
    ),
    *DRIVER_FUNCTIONS,
)
"""Functions that make no primary context of the current device, and work without one."""


def install(monkeypatch, device):
    """Replace `cuda.bindings.runtime` by a simulation of `device` until the test ends."""
    module = types.ModuleType(MODULE)
    for kind in ENUMS:
        setattr(module, kind.__name__, kind)
    for name, value in CONSTANTS.items():
        setattr(module, name, value)
    for name in FUNCTIONS:
        setattr(module, name, _counted(device, name))
    monkeypatch.setitem(sys.modules, MODULE, module)
    driver = types.ModuleType(DRIVER_MODULE)
    driver.CUresult = CUresult
    for name in DRIVER_FUNCTIONS:
        setattr(driver, name, _counted(device, name))
    monkeypatch.setitem(sys.modules, DRIVER_MODULE, driver)
    return module


def _counted(device, name):
    function = getattr(device, name)

    def failed(error):
        if name in DRIVER_FUNCTIONS:
            error = CUresult(int(error))
        return (error, *[None] * RESULTS.get(name, 0))

    def call(*arguments):
        with device.lock:
            if name in ASIDE:
                return function(*arguments)
            device.calls.append(name)
            for key in (name, None):
                device.counts[key] += 1
                error = device.failures.pop((key, device.counts[key]), None)
                if error is not None:
                    if name == "cudaStreamEndCapture":  # which ends the capture in any case
                        device.stream_of(arguments[0]).capture = None
                    if name == "cuCtxPopCurrent":  # it reports an earlier error
                        function()
                    if error in STICKY:
                        device.sticky = error
                    return failed(error)
            if name not in WITHOUT_CONTEXT:
                device.primary.add(device.device())
                if device.sticky is not None:
                    return failed(device.sticky)
            device.wander()
            result = function(*arguments)
            if name not in WITHOUT_CONTEXT and device.sticky is not None:
                return failed(device.sticky)
            return result

    return call
