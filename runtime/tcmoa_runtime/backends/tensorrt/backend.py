"""TensorRT and TensorRT-RTX: frames on the GPU, several in flight.

Each slot has its own buffers on both sides, its own execution context and CUDA graph. Three streams share the
work, so that the copies of one frame run while another is computed:

    copy in:   wait for the slot's last `computed` -> upload   -> event `uploaded`
    compute:   wait for `uploaded`                 -> graph    -> event `computed`
    copy out:  wait for `computed`                 -> download -> event `downloaded`

A slot is used again when its result was taken or dropped, so nobody misses what the next frame overwrites. All
contexts share one scratch memory, which is safe because there is one compute stream.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.backends.base import check_array, check_names
from tcmoa_runtime.backends.tensorrt.engine_loading import LoadedEngine, choose_engine
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import Contract, TensorSpec
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.gpu.cuda import (
    LEGACY_STREAM,
    PER_THREAD_STREAM,
    DeviceBuffer,
    Event,
    Graph,
    PinnedBuffer,
    Stream,
)
from tcmoa_runtime.gpu.device_arrays import DeviceArray, DeviceInput, host_array, is_on_gpu, read_input

_CLOSED: Final = "this backend is closed; load the bundle again"
_MOST_SLOTS: Final = 64
_POLL_SECONDS: Final = 0.01
"""How often a blocked caller looks for dropped results, which come back without waking anybody."""


class _Slot:
    """The buffers of one frame in flight, and how far it has come.

    What has to be freed is put into `stack`; the outputs into `output_stack`, as they may outlive a backend.
    """

    def __init__(self, contract: Contract, stack: ExitStack) -> None:
        self.output_stack = stack.enter_context(ExitStack())
        self.uploaded, self.computed, self.downloaded, self.joined = (
            stack.enter_context(Event()) for _ in range(4)
        )
        self.device_inputs = {s.name: stack.enter_context(DeviceBuffer(_bytes(s))) for s in contract.inputs}
        self.pinned_inputs = {s.name: stack.enter_context(PinnedBuffer(_bytes(s))) for s in contract.inputs}
        self.device_outputs = {
            s.name: self.output_stack.enter_context(DeviceBuffer(_bytes(s))) for s in contract.outputs
        }
        self.pinned_outputs = {s.name: stack.enter_context(PinnedBuffer(_bytes(s))) for s in contract.outputs}
        self.context: Any = None
        self.graph: Graph | None = None
        self.borrowed: list[DeviceInput] = []
        self.holder: int | None = None
        self.readers: set[int] = set()
        """Streams that may still read the outputs, when those stay on the device."""
        self.lent = False

    @property
    def addresses(self) -> dict[str, int]:
        """Where the engine reads and writes, by tensor name."""
        return {name: b.handle for name, b in (self.device_inputs | self.device_outputs).items()}

    def give_back_inputs(self) -> None:
        """Tell the owners of device inputs that those were copied."""
        borrowed, self.borrowed = self.borrowed, []
        for tensor in borrowed:
            tensor.release()


def _bytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize


class Ticket:
    """A frame in flight, from `submit`. Dropping it without `result` gives its slot back."""

    def __init__(self, backend: TensorRTBackend, slot: _Slot) -> None:
        self._backend, self._lock = backend, threading.Lock()
        self._slot: _Slot | None = slot
        self._outputs: dict[str, NDArray[Any]] | None = None

    def result(self) -> dict[str, NDArray[Any]]:
        """Wait for the frame and give its outputs, new arrays; the same ones when asked again.

        Raises TcmoaError when the GPU failed or the backend was closed before.
        """
        with self._lock:
            if self._outputs is None:
                if self._slot is None:
                    raise TcmoaError("this frame failed before; submit it again")
                with self._backend._using():
                    slot, self._slot = self._slot, None
                    self._outputs = self._backend._collect(slot)
            return self._outputs

    def __del__(self) -> None:
        if self._slot is not None:
            self._backend._hand_back(self._slot)


class _Lease:
    """Keeps a slot for the results that lie in it, until the last of them is dropped."""

    def __init__(self, backend: TensorRTBackend, slot: _Slot) -> None:
        self._backend, self._slot = backend, slot

    def let_wait(self, stream: int) -> None:
        """Let `stream` wait for the results, and the slot's next use for `stream`."""
        self._backend._let_wait(self._slot, stream)

    def __del__(self) -> None:
        self._backend._hand_back(self._slot)


class TensorRTBackend:
    """An engine of a bundle, loaded; see `Backend`.

    `engine`: path of the engine in the bundle; without, the first that fits this machine, of `flavor` and
    `precision` where given (see `choose_engine`). `stream`: handle of a caller's stream to compute in, which
    has to outlive this and is never destroyed; otherwise an own one. `cuda_graph`: launch the engine as one
    captured graph. `slots`: frames in flight, each with its own buffers. Works on the device that is current
    when it is made, from any thread.

    Inputs are arrays of the host, or of the GPU (anything with `__dlpack__` or `__cuda_array_interface__`,
    PyTorch, CuPy and PyCUDA among them), which are copied within the GPU only.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: str | os.PathLike[str] | None = None,
        *,
        flavor: str | None = None,
        precision: str | None = None,
        stream: int | None = None,
        cuda_graph: bool = True,
        slots: int = 2,
    ) -> None:
        if not 1 <= slots <= _MOST_SLOTS:
            raise InputError(f"slots is {slots}: expected 1 to {_MOST_SLOTS}")
        handle = None if stream is None else _stream_handle(stream)
        self._contract = bundle.contract
        description, library, self.device = choose_engine(bundle, engine, flavor=flavor, precision=precision)
        kind = f"{description.flavor} {description.version}"
        self._name = f"tensorrt ({kind}, {self.device.name}, {description.precision})"
        self._ready = threading.Condition()
        self._queueing = threading.Lock()
        self._returned: deque[_Slot] = deque()
        self._active = 0
        self._closed = self._over = False
        with self.device.active(), ExitStack() as stack:
            self._loaded = LoadedEngine(description, library)
            stack.callback(self._loaded.close)
            self._copy_in = stack.enter_context(Stream())
            self._compute = stack.enter_context(Stream(handle))
            self._copy_out = stack.enter_context(Stream())
            ours = (self._copy_in, self._compute, self._copy_out)
            self._own_streams = {s.handle for s in ours if not s.borrowed}
            scratch = stack.enter_context(DeviceBuffer(max(1, self._loaded.scratch_bytes)))
            self._slots = [_Slot(self._contract, stack) for _ in range(slots)]
            for slot in self._slots:
                stack.callback(_drop_context, slot)
                slot.context = self._loaded.new_context(scratch, slot.addresses)
            stack.callback(_settle, self._copy_in)
            self._warm_up(cuda_graph, stack)
            self._free = deque(self._slots)
            self._stack = stack.pop_all()

    @property
    def name(self) -> str:
        """As `tensorrt (rtx 1.7.1.116, NVIDIA GeForce RTX 4090, fp16)`."""
        return self._name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `infer` takes."""
        return self._contract.inputs

    @property
    def uses_graph(self) -> bool:
        """Whether the engine is launched as a captured CUDA graph."""
        return all(slot.graph is not None for slot in self._slots)

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Run the engine once and wait for it; see `Backend`. Inputs may lie on the GPU, too."""
        return self.submit(inputs).result()

    def submit(self, inputs: Mapping[str, Any], *, wait: bool = False) -> Ticket:
        """Start a frame and return at once; its result is taken from the ticket.

        Host inputs may be changed afterwards; device inputs not before the result was taken, but for those
        whose `__cuda_array_interface__` names their stream, which then waits. Blocks while all slots are in use
        by other threads. When the calling thread holds them all itself, raises TcmoaError, as nobody could
        free one; with `wait` it blocks then, too, for programs that take results in another thread.
        """
        with self._using():
            return Ticket(self, self._start(inputs, wait, None))

    def infer_device(self, inputs: Mapping[str, Any], stream: int | None = None) -> dict[str, DeviceArray]:
        """Start a frame whose results stay on the GPU, without waiting for it on the host.

        `stream`: handle of the caller's stream (0 or 1: the legacy default one), which has to live as long as
        the backend. What was queued there before is waited for, and what is queued there afterwards finds the
        results. Without, it is the stream that the backend was made with, or the backend's own, and readers
        wait for the stream that the results name. Results hold their slot: see `DeviceArray` for how long.
        Blocks and raises as `submit`.
        """
        with self._using():
            named = self._compute.handle if stream is None else _stream_handle(stream)
            slot = self._start(inputs, False, Stream(named))
            lease = _Lease(self, slot)
            return {
                spec.name: DeviceArray(
                    slot.device_outputs[spec.name].handle, spec, self.device.index, named, lease
                )
                for spec in self._contract.outputs
            }

    def close(self) -> None:
        """Wait for all frames, save what was compiled, free everything; again does nothing.

        Results on the GPU keep their memory until they are dropped; tickets without a result lose theirs.
        """
        with self._ready:
            if self._closed:
                return
            self._closed = True
            self._ready.notify_all()
            while self._active:
                self._ready.wait()
        try:
            with self.device.active(), self._stack:
                self._take_returned()
                self._drain()
                for slot in self._slots:
                    slot.give_back_inputs()
                    if slot.lent:
                        slot.output_stack = slot.output_stack.pop_all()
                self._loaded.save_cache()
        finally:
            self._stack.close()  # nothing is left of it unless the device could not be made current
            self._over = True
            with self.device.active():
                self._free_returned()

    @contextmanager
    def _using(self) -> Iterator[None]:
        """A call in progress on our device, which `close` waits for."""
        with self._ready:
            if self._closed:
                raise TcmoaError(_CLOSED)
            self._active += 1
        try:
            with self.device.active():
                yield
        finally:
            with self._ready:
                self._active -= 1
                self._ready.notify_all()

    def _warm_up(self, cuda_graph: bool, stack: ExitStack) -> None:
        """Run each context once, as TensorRT compiles and allocates then, and capture what it queues.

        Not in the compute stream: that may be a caller's, and graphs are launched in any stream.
        """
        for slot in self._slots:
            self._loaded.enqueue(slot.context, self._copy_in)
        self._copy_in.synchronize()
        if not cuda_graph:
            return
        try:
            for slot in self._slots:
                slot.graph = stack.enter_context(self._capture(slot))
        except TcmoaError as error:
            for slot in self._slots:
                graph, slot.graph = slot.graph, None
                if graph is not None:
                    graph.close()
            warnings.warn(
                f"{self._name}: runs without a CUDA graph, each frame costs the CPU more ({error})",
                RuntimeWarning,
                stacklevel=3,
            )

    def _capture(self, slot: _Slot) -> Graph:
        if not self._loaded.can_capture(slot.context, self._copy_in):
            raise TcmoaError("the engine says that it cannot be captured")
        return Graph.capture(self._copy_in, lambda: self._loaded.enqueue(slot.context, self._copy_in))

    def _start(self, inputs: Mapping[str, Any], wait: bool, reader: Stream | None) -> _Slot:
        """Queue a frame in a free slot. `reader`: the stream that reads the results; None: the host does."""
        check_names(self._contract.inputs, inputs)
        on_gpu = {name: array for name, array in inputs.items() if is_on_gpu(array)}
        on_host = {n: host_array(array, n) for n, array in inputs.items() if n not in on_gpu}
        for spec in self._contract.inputs:
            if spec.name in on_host:
                check_array(spec, on_host[spec.name])
        slot = self._acquire(wait)
        try:
            slot.uploaded.synchronize()  # what is written below was still being read
            slot.give_back_inputs()
            for spec in self._contract.inputs:
                if spec.name in on_host:
                    staged = slot.pinned_inputs[spec.name].array(spec.dtype, spec.shape)
                    np.copyto(staged, on_host[spec.name])
            with self._queueing:
                self._queue(slot, on_gpu, reader)
        except BaseException:
            with suppress(TcmoaError):  # what is queued of it must not meet the slot's next frame
                self._drain()
            slot.give_back_inputs()
            self._release(slot)
            raise
        return slot

    def _queue(self, slot: _Slot, on_gpu: Mapping[str, Any], reader: Stream | None) -> None:
        """Queue a frame whose host inputs are staged; see the top of this file."""
        self._queue_inputs(slot, on_gpu, reader)
        self._compute.wait(slot.uploaded)
        if slot.graph is not None:
            slot.graph.launch(self._compute)
        else:
            self._loaded.enqueue(slot.context, self._compute)
        slot.computed.record(self._compute)
        if reader is not None:
            reader.wait(slot.computed)
            slot.lent, slot.readers = True, {reader.handle}
            return
        self._copy_out.wait(slot.computed)
        for name, source in slot.device_outputs.items():
            self._copy_out.download(slot.pinned_outputs[name], source)
        slot.downloaded.record(self._copy_out)

    def _queue_inputs(self, slot: _Slot, on_gpu: Mapping[str, Any], reader: Stream | None) -> None:
        copy_in = self._copy_in
        copy_in.wait(slot.computed)
        owners = []
        # Our own stream holds other frames: waiting for those would undo the overlap.
        if reader is not None and (self._compute.borrowed or reader.handle != self._compute.handle):
            owners.append(reader)
            copy_in.follow(reader, slot.joined)
        for spec in self._contract.inputs:
            target = slot.device_inputs[spec.name]
            if spec.name not in on_gpu:
                copy_in.upload(target, slot.pinned_inputs[spec.name])
                continue
            source = read_input(on_gpu[spec.name], spec, self.device.index, copy_in.handle)
            slot.borrowed.append(source)
            if source.stream is not None:
                owners.append(Stream(source.stream))
                copy_in.follow(owners[-1], slot.joined)
            copy_in.gather(target, source.pointer)
        slot.uploaded.record(copy_in)
        for owner in owners:
            owner.wait(slot.uploaded)  # so that it may write its next frame there

    def _acquire(self, wait: bool) -> _Slot:
        me = threading.get_ident()
        with self._ready:
            while True:
                self._take_returned()
                if self._closed:
                    raise TcmoaError(_CLOSED)
                if self._free:
                    slot = self._free.popleft()
                    slot.holder = me
                    return slot
                if not wait and all(slot.holder == me for slot in self._slots):
                    raise TcmoaError(
                        f"all {len(self._slots)} slots hold frames of this thread; take a ticket's result, drop "
                        f"results on the GPU, or load the backend with more slots"
                    )
                self._ready.wait(_POLL_SECONDS)

    def _release(self, slot: _Slot) -> None:
        with self._ready:
            slot.holder = None
            self._free.append(slot)
            self._ready.notify()

    def _collect(self, slot: _Slot) -> dict[str, NDArray[Any]]:
        """A frame's outputs, once they are there; its slot is free afterwards, also when that fails."""
        try:
            slot.downloaded.synchronize()
            slot.give_back_inputs()
            return {
                spec.name: slot.pinned_outputs[spec.name].array(spec.dtype, spec.shape).copy()
                for spec in self._contract.outputs
            }
        finally:
            self._release(slot)

    def _let_wait(self, slot: _Slot, stream: int) -> None:
        with self._ready:
            while self._closed and not self._over:
                self._ready.wait(_POLL_SECONDS)
        if self._over:
            return  # all work was waited for
        with self._using():
            Stream(stream).wait(slot.computed)
            slot.readers.add(stream)

    def _hand_back(self, slot: _Slot) -> None:
        """A slot whose ticket or results were dropped. Python may do so at any moment: no lock is waited for."""
        if sys.is_finalizing():
            return
        self._returned.append(slot)
        with suppress(TcmoaError), self.device.active():  # the next call finds what is wrong
            if self._over:
                self._free_returned()
            elif not self._closed and self._ready.acquire(blocking=False):
                try:
                    self._take_returned()
                finally:
                    self._ready.release()

    def _take_returned(self) -> None:
        """Make the slots that were handed back free again."""
        while (slot := self._next_returned()) is not None:
            for reader in slot.readers - {self._compute.handle}:
                with suppress(TcmoaError):  # a stream that is gone reads no more
                    self._compute.follow(Stream(reader), slot.joined)
            slot.readers, slot.lent = set(), False
            self._release(slot)

    def _free_returned(self) -> None:
        """Free the outputs of slots that were handed back after `close`, once nobody reads them any more."""
        while (slot := self._next_returned()) is not None:
            for reader in slot.readers - self._own_streams:
                _settle(Stream(reader))
            slot.output_stack.close()

    def _next_returned(self) -> _Slot | None:
        try:
            return self._returned.popleft()  # exactly one caller gets it
        except IndexError:
            return None

    def _drain(self) -> None:
        """Wait for all work of ours, and raise what went wrong in any of it.

        A caller's stream may hold more, which is not waited for.
        """
        with ExitStack() as waits:  # goes on where one fails
            for slot in self._slots:
                waits.callback(slot.computed.synchronize)
            for stream in (self._copy_in, self._compute, self._copy_out):
                if not stream.borrowed:
                    waits.callback(stream.synchronize)


def _settle(stream: Stream) -> None:
    """Wait for a stream before what it works on is freed; what went wrong in it is told elsewhere."""
    with suppress(TcmoaError):
        stream.synchronize()


def _drop_context(slot: _Slot) -> None:
    slot.context = None


def _stream_handle(stream: int) -> int:
    """The handle of a caller's stream, the legacy default one as 1; InputError on anything else."""
    if isinstance(stream, bool) or not isinstance(stream, int) or stream < 0 or stream == PER_THREAD_STREAM:
        raise InputError(
            f"stream is {stream!r}: expected the handle of a CUDA stream as an int, not the per-thread default one"
        )
    return stream or LEGACY_STREAM
