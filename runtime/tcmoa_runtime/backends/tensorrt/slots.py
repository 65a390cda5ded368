"""Slots, the buffers of a frame in flight, and the pool that lends them.

A slot is lent to one frame at a time. It returns to the pool in one of two ways: `SlotPool.release` when the host has
copied the result, or `SlotPool.hand_back` when a ticket or the last result on the GPU is garbage collected. The garbage
collector may run in any thread, at any time, even inside a call of this module, so `hand_back` never waits for a lock.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.backends.base import Outputs, closed_error
from tcmoa_runtime.contract import Contract, TensorSpec
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.gpu.cuda import (
    LEGACY_STREAM,
    CudaDevice,
    CudaEvent,
    CudaGraph,
    CudaStream,
    DeviceBuffer,
    PinnedBuffer,
)
from tcmoa_runtime.gpu.device_arrays import DeviceInput

_POLL_SECONDS: Final = 0.01
"""How often a waiting thread looks for slots that were handed back, as that wakes no thread."""


class Slot:
    """The buffers of one frame in flight, and its progress.

    Args:
        contract: Inputs and outputs of the graph.
        stack: Frees the slot's resources.

    Attributes:
        output_stack: Frees the output buffers, which results may keep alive longer than the backend.
        uploaded: Event after the inputs are on the device.
        computed: Event after the engine has run.
        downloaded: Event after the outputs are on the host.
        joined: Event for making one stream wait for another.
        context: Execution context of TensorRT, bound to the slot's buffers.
        graph: The engine as a CUDA graph on this slot's buffers; None: it is enqueued each time.
        device_sources: Inputs of the frame that are the caller's, on the GPU.
        holder: Thread that the slot is lent to.
        readers: Handles of streams that may still read the outputs on the device.
        has_results_on_device: Whether the outputs are lent as `DeviceArray`.
    """

    def __init__(self, contract: Contract, stack: ExitStack) -> None:
        self.output_specs = contract.outputs
        self.output_stack = stack.enter_context(ExitStack())
        self.uploaded, self.computed, self.downloaded, self.joined = (
            stack.enter_context(CudaEvent()) for _ in range(4)
        )
        self.device_inputs = {s.name: stack.enter_context(DeviceBuffer(_nbytes(s))) for s in contract.inputs}
        self.pinned_inputs = {s.name: stack.enter_context(PinnedBuffer(_nbytes(s))) for s in contract.inputs}
        self.device_outputs = {
            s.name: self.output_stack.enter_context(DeviceBuffer(_nbytes(s))) for s in contract.outputs
        }
        self.pinned_outputs = {
            s.name: stack.enter_context(PinnedBuffer(_nbytes(s))) for s in contract.outputs
        }
        self.context: Any = None
        self.graph: CudaGraph | None = None
        self.device_sources: list[DeviceInput] = []
        self.holder: int | None = None
        self.readers: set[int] = set()
        self.has_results_on_device = False

    @property
    def addresses(self) -> dict[str, int]:
        """Addresses that the engine reads and writes, by tensor name."""
        return {name: buffer.handle for name, buffer in (self.device_inputs | self.device_outputs).items()}

    def release_sources(self) -> None:
        """Tell the owners of inputs on the GPU that these have been copied."""
        sources, self.device_sources = self.device_sources, []
        for source in sources:
            source.release()

    def read_outputs(self) -> Outputs:
        """Wait for the download and return copies of the outputs."""
        self.downloaded.synchronize()
        self.release_sources()
        outputs = {
            spec.name: self.pinned_outputs[spec.name].array(spec.dtype, spec.shape).copy()
            for spec in self.output_specs
        }
        return cast("Outputs", outputs)


def _nbytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize


class SlotPool:
    """Lends slots to frames, and keeps calls and closing apart.

    Args:
        slots: The slots, all free.
        device: The device they are on.
        compute: Stream that the engine runs in.
        own_streams: Handles of the backend's own streams, which are idle once the backend is closed.
    """

    def __init__(
        self, slots: Sequence[Slot], device: CudaDevice, compute: CudaStream, own_streams: set[int]
    ) -> None:
        self.slots = tuple(slots)
        self._device, self._compute, self._own_streams = device, compute, own_streams
        self._changed = threading.Condition()
        self._free = deque(self.slots)
        self._returned: deque[Slot] = deque()
        self._num_calls = 0
        self._is_closing = self._is_closed = False

    @contextmanager
    def call(self) -> Iterator[None]:
        """Run a call on the device; `close` waits for it, and afterwards this raises TcmoaError."""
        with self._changed:
            if self._is_closing:
                raise closed_error()
            self._num_calls += 1
        try:
            with self._device.active():
                yield
        finally:
            with self._changed:
                self._num_calls -= 1
                self._changed.notify_all()

    def acquire(self, wait: bool) -> Slot:
        """Lend a free slot, as soon as there is one.

        Args:
            wait: Wait also if all slots are lent to the calling thread; without it that raises TcmoaError, because
                usually no other thread would release one.
        """
        thread = threading.get_ident()
        with self._changed:
            while True:
                self.reclaim()
                if self._is_closing:
                    raise closed_error()
                if self._free:
                    slot = self._free.popleft()
                    slot.holder = thread
                    return slot
                if not wait and all(slot.holder == thread for slot in self.slots):
                    raise TcmoaError(
                        f"all {len(self.slots)} slots hold frames of this thread",
                        remedy="Take the result of a ticket, drop results on the GPU, or load the backend with "
                        "more slots",
                    )
                self._changed.wait(_POLL_SECONDS)

    def release(self, slot: Slot) -> None:
        """Make a slot free."""
        with self._changed:
            slot.holder = None
            self._free.append(slot)
            self._changed.notify()

    def hand_back(self, slot: Slot) -> None:
        """Return a slot whose ticket or results were garbage collected, without waiting for a lock."""
        if sys.is_finalizing():
            return
        self._returned.append(slot)
        with (
            suppress(TcmoaError),
            self._device.active(),
        ):  # the next call raises what is wrong with the device
            if self._is_closed:
                self._free_outputs()
            elif not self._is_closing and self._changed.acquire(blocking=False):
                try:
                    self.reclaim()
                finally:
                    self._changed.release()

    def add_reader(self, slot: Slot, stream: int) -> None:
        """Make `stream` wait for a slot's results, and the slot's next frame wait for `stream`."""
        with self._changed:
            while self._is_closing and not self._is_closed:
                self._changed.wait(_POLL_SECONDS)
        if self._is_closed:
            return  # all work is done
        with self.call():
            self._device.check_stream(stream)
            CudaStream(stream).wait_event(slot.computed)
            slot.readers.add(stream)

    def copy_to_host(self, array: NDArray[np.generic], pointer: int, stream: int) -> None:
        """Copy results at `pointer`, which `stream` may read, to `array`; streams of a closed backend are gone."""
        with self._changed:
            while self._is_closing and not self._is_closed:
                self._changed.wait(_POLL_SECONDS)
            source = LEGACY_STREAM if self._is_closed else stream
            self._num_calls += 1  # closing waits for it, and destroys the stream afterwards
        try:
            with self._device.active():
                CudaStream(source).download_array(array, pointer)
        finally:
            with self._changed:
                self._num_calls -= 1
                self._changed.notify_all()

    def begin_closing(self) -> bool:
        """Stop lending and wait for calls in progress; returns False if that was done before."""
        with self._changed:
            if self._is_closing:
                return False
            self._is_closing = True
            self._changed.notify_all()
            while self._num_calls:
                self._changed.wait()
        return True

    def finish_closing(self) -> None:
        """Free the outputs of slots that were handed back meanwhile; later ones are freed when they are."""
        self._is_closed = True
        with self._device.active():
            self._free_outputs()

    def reclaim(self) -> None:
        """Make slots that were handed back free, once the compute stream waits for their readers."""
        while (slot := self._next_returned()) is not None:
            for reader in slot.readers - {self._compute.handle}:
                with suppress(TcmoaError):  # a stream that was destroyed reads no more
                    self._compute.wait_stream(CudaStream(reader), slot.joined)
            slot.readers, slot.has_results_on_device = set(), False
            self.release(slot)

    def _free_outputs(self) -> None:
        """Free the outputs of slots that are handed back after `close`, once their readers are done."""
        while (slot := self._next_returned()) is not None:
            for reader in slot.readers - self._own_streams:
                settle(CudaStream(reader))
            slot.output_stack.close()

    def _next_returned(self) -> Slot | None:
        try:
            return self._returned.popleft()  # atomic: each slot is taken by one thread
        except IndexError:
            return None


def settle(stream: CudaStream) -> None:
    """Wait for a stream before its buffers are freed; errors of its work are raised elsewhere."""
    with suppress(TcmoaError):
        stream.synchronize()


class Ticket:
    """A frame in flight. Its slot is free again once the result is taken or the ticket is garbage collected."""

    def __init__(self, pool: SlotPool, slot: Slot, backend: object) -> None:
        self._pool, self._lock = pool, threading.Lock()
        self._backend = backend  # keeps the engine alive while it runs
        self._slot: Slot | None = slot
        self._outputs: Outputs | None = None

    def result(self) -> Outputs:
        """Wait for the frame and return its outputs; further calls return the same arrays.

        Raises:
            TcmoaError: The GPU failed, or the backend was closed before.
        """
        with self._lock:
            if self._outputs is None:
                if self._slot is None:
                    raise TcmoaError("this frame failed", remedy="Submit it again")
                with self._pool.call():
                    slot, self._slot = self._slot, None
                    try:
                        self._outputs = slot.read_outputs()
                    finally:
                        self._pool.release(slot)
            return self._outputs

    def __del__(self) -> None:
        if self._slot is not None:
            self._pool.hand_back(self._slot)


class SlotLease:
    """Keeps a slot lent until the last result in it is garbage collected, see `DeviceArray`."""

    def __init__(self, pool: SlotPool, slot: Slot, backend: object) -> None:
        self._pool, self._slot = pool, slot
        self._backend = backend  # keeps the engine alive while it runs

    def add_reader(self, stream: int) -> None:
        """Make `stream` wait for the results, and the slot's next frame wait for `stream`."""
        self._pool.add_reader(self._slot, stream)

    def copy_to_host(self, array: NDArray[np.generic], pointer: int, stream: int) -> None:
        """Copy results at `pointer`, which `stream` may read, to `array`."""
        self._pool.copy_to_host(array, pointer, stream)

    def __del__(self) -> None:
        self._pool.hand_back(self._slot)
