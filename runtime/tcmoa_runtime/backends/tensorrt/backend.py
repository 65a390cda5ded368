"""TensorRT and TensorRT-RTX: several frames in flight, in host or GPU memory.

Each slot has its own buffers on host and device, its own execution context and CUDA graph. Three streams share the
work, so that one frame is copied while another is computed:

    copy in:   wait for the slot's last `computed` -> upload   -> event `uploaded`
    compute:   wait for `uploaded`                 -> graph    -> event `computed`
    copy out:  wait for `computed`                 -> download -> event `downloaded`

A slot is used again once its result has been taken or dropped, so no result is overwritten before it is read. All
contexts share one scratch buffer, which is safe because there is one compute stream.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Final, cast

import numpy as np

from tcmoa_runtime.backends.base import (
    DeviceOutputs,
    Outputs,
    TensorsLike,
    check_array,
    check_names,
)
from tcmoa_runtime.backends.tensorrt.engine_loading import LoadedEngine, choose_engine
from tcmoa_runtime.backends.tensorrt.slots import Slot, SlotLease, SlotPool, Ticket, settle
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.gpu.cuda import LEGACY_STREAM, PER_THREAD_STREAM, CudaGraph, CudaStream, DeviceBuffer
from tcmoa_runtime.gpu.device_arrays import DeviceArray, host_array, is_on_gpu, read_device_input
from tcmoa_runtime.options.option import check_range
from tcmoa_runtime.typing import DeviceArrayLike, Flavor, Precision

MAX_SLOTS: Final = 64


class TensorRTBackend:
    """An engine of a bundle, loaded on the current device. It may be used from any thread.

    Inputs are arrays in host memory, or in GPU memory: anything with `__dlpack__` or `__cuda_array_interface__`, e.g.
    of PyTorch, CuPy or PyCUDA. The latter are copied within the GPU only.

    Args:
        bundle: The bundle.
        engine: Path of the engine in the bundle; None: the first one that runs on this machine, see `choose_engine`.
        flavor: Take an engine of this flavor only.
        precision: Take an engine of this precision only.
        stream: Handle of a caller's stream to compute in. It must live longer than the backend, which does not destroy
            it. None: a new stream.
        cuda_graph: Launch the engine as a captured CUDA graph.
        slots: Number of frames in flight, each with its own buffers, 1 to 64.
        trust_engines: Load an engine that this user did not build, too.

    Raises:
        InputError: An option is wrong.
        BundleError: The bundle has no such engine, or it is damaged.
        EngineMismatchError: The engines are for other libraries or GPUs.
        UntrustedEngineError: An engine runs here, but this user did not build it.
        MissingError: The library, the driver or a GPU is missing.
        MemoryShortageError: The GPU has too little free memory.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: str | os.PathLike[str] | None = None,
        *,
        flavor: Flavor | None = None,
        precision: Precision | None = None,
        stream: int | None = None,
        cuda_graph: bool = True,
        slots: int = 2,
        trust_engines: bool = False,
    ) -> None:
        check_range("slots", slots, 1, MAX_SLOTS)
        handle = None if stream is None else _check_stream(stream)
        self._contract = bundle.contract
        choice = choose_engine(
            bundle, engine, flavor=flavor, precision=precision, trust_engines=trust_engines
        )
        chosen, self.device = choice.engine, choice.device
        library = f"{chosen.flavor} {chosen.version}"
        self._name = f"tensorrt ({library}, {self.device.name}, {chosen.precision})"
        self._enqueueing = threading.Lock()
        with self.device.active(), ExitStack() as stack:
            self._loaded = LoadedEngine(choice)
            stack.callback(self._loaded.close)
            self._copy_in = stack.enter_context(CudaStream())
            if handle is not None:
                self.device.check_stream(handle)
            self._compute = stack.enter_context(CudaStream(handle))
            self._copy_out = stack.enter_context(CudaStream())
            scratch = stack.enter_context(DeviceBuffer(max(1, self._loaded.scratch_bytes)))
            made = [Slot(self._contract, stack) for _ in range(slots)]
            for slot in made:
                stack.callback(_drop_context, slot)
                slot.context = self._loaded.new_context(scratch, slot.addresses)
            stack.callback(settle, self._copy_in)
            own_streams = {s.handle for s in self._streams if not s.is_external}
            self._pool = SlotPool(made, self.device, self._compute, own_streams)
            self._warm_up(cuda_graph, stack)
            self._stack = stack.pop_all()

    @property
    def name(self) -> str:
        """Library, GPU and precision, e.g. `tensorrt (rtx 1.7.1.116, NVIDIA GeForce RTX 4090, fp16)`."""
        return self._name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Specifications of the inputs of `infer`."""
        return self._contract.inputs

    @property
    def uses_graph(self) -> bool:
        """Whether the engine is launched as a captured CUDA graph."""
        return all(slot.graph is not None for slot in self._pool.slots)

    def infer(self, inputs: TensorsLike) -> Outputs:
        """Run the engine once and wait for it, see `Backend.infer`; inputs may be in GPU memory too."""
        return self.submit(inputs).result()

    def submit(self, inputs: TensorsLike, *, wait: bool = False) -> Ticket:
        """Start a frame and return a ticket for its result.

        Inputs in host memory may be changed afterwards. Inputs in GPU memory may not, until the result has been taken;
        an input whose `__cuda_array_interface__` names its stream may be overwritten in that stream, which then waits.
        Blocks while all slots are lent to other threads.

        Args:
            inputs: All inputs by name, with the types and shapes of the contract.
            wait: Block too while all slots are lent to the calling thread, for programs that take results in another
                thread. Without it, that raises TcmoaError instead of waiting forever.

        Raises:
            InputError: An input is missing, unknown, or of another type or shape.
            TcmoaError: The GPU failed, the backend is closed, or this thread holds all slots.
        """
        with self._pool.call():
            return Ticket(self._pool, self._start(inputs, wait, None), self)

    def infer_device(self, inputs: TensorsLike, stream: int | None = None) -> DeviceOutputs:
        """Start a frame whose results stay on the GPU, without waiting for it on the host.

        Results hold their slot, see `DeviceArray` for how long. Blocks and raises like `submit`.

        Args:
            inputs: All inputs by name, with the types and shapes of the contract.
            stream: Handle of a caller's stream (0 or 1: the legacy default stream), which must live as long as the
                backend. The frame waits for the work that is queued there, and work that is queued there afterwards
                finds the results. None: the stream that the backend computes in; readers then wait for the stream that
                the results name.
        """
        with self._pool.call():
            reader = self._compute.handle
            if stream is not None:
                reader = _check_stream(stream)
                self.device.check_stream(reader)
            slot = self._start(inputs, False, CudaStream(reader))
            lease = SlotLease(self._pool, slot, self)
            outputs = {
                spec.name: DeviceArray(
                    slot.device_outputs[spec.name].handle, spec, self.device.index, reader, lease
                )
                for spec in self._contract.outputs
            }
            return cast("DeviceOutputs", outputs)

    def close(self) -> None:
        """Wait for all frames, save compiled kernels, and free everything; further calls do nothing.

        Results on the GPU keep their memory until they are garbage collected. Tickets lose their result.
        """
        if not self._pool.begin_closing():
            return
        try:
            with self.device.active(), self._stack:
                self._pool.reclaim()
                self._drain()
                for slot in self._pool.slots:
                    slot.release_sources()
                    if slot.has_results_on_device:
                        slot.output_stack = slot.output_stack.pop_all()
                self._loaded.save_cache()
        finally:
            self._stack.close()  # empty, unless the device could not be made current
            self._pool.finish_closing()

    @property
    def _streams(self) -> tuple[CudaStream, CudaStream, CudaStream]:
        return self._copy_in, self._compute, self._copy_out

    def _warm_up(self, cuda_graph: bool, stack: ExitStack) -> None:
        """Run each context once, because TensorRT compiles and allocates then, and capture its work.

        Not in the compute stream, which may be a caller's. Graphs may be launched in any stream.
        """
        slots = self._pool.slots
        for slot in slots:
            self._loaded.enqueue(slot.context, self._copy_in)
        self._copy_in.synchronize()
        if not cuda_graph:
            return
        try:
            for slot in slots:
                slot.graph = stack.enter_context(self._capture(slot))
        except TcmoaError as error:
            for slot in slots:
                graph, slot.graph = slot.graph, None
                if graph is not None:
                    graph.close()
            warnings.warn(
                f"{self._name}: runs without a CUDA graph, which costs CPU time per frame ({error})",
                RuntimeWarning,
                stacklevel=3,
            )

    def _capture(self, slot: Slot) -> CudaGraph:
        if not self._loaded.can_capture(slot.context, self._copy_in):
            raise TcmoaError("the engine reports that it cannot be captured")
        return CudaGraph.capture(self._copy_in, lambda: self._loaded.enqueue(slot.context, self._copy_in))

    def _start(self, inputs: TensorsLike, wait: bool, reader: CudaStream | None) -> Slot:
        """Enqueue a frame in a free slot. `reader`: stream that reads the results; None: the host reads them."""
        check_names(self._contract.inputs, inputs)
        on_gpu = {name: array for name, array in inputs.items() if is_on_gpu(array)}
        on_host = {name: host_array(array, name) for name, array in inputs.items() if name not in on_gpu}
        for spec in self._contract.inputs:
            if spec.name in on_host:
                check_array(spec, on_host[spec.name])
        slot = self._pool.acquire(wait)
        try:
            slot.uploaded.synchronize()  # the last frame's upload reads the buffers that are written below
            slot.release_sources()
            for spec in self._contract.inputs:
                if spec.name in on_host:
                    staged = slot.pinned_inputs[spec.name].array(spec.dtype, spec.shape)
                    np.copyto(staged, on_host[spec.name])
            with self._enqueueing:
                self._enqueue(slot, on_gpu, reader)
        except BaseException:
            with suppress(TcmoaError):  # the part that was enqueued must be done before the slot's next frame
                self._drain()
            slot.release_sources()
            self._pool.release(slot)
            raise
        return slot

    def _enqueue(self, slot: Slot, on_gpu: Mapping[str, DeviceArrayLike], reader: CudaStream | None) -> None:
        """Enqueue a frame whose host inputs are staged, as the module's docstring shows."""
        self._enqueue_inputs(slot, on_gpu, reader)
        self._compute.wait_event(slot.uploaded)
        if slot.graph is not None:
            slot.graph.launch(self._compute)
        else:
            self._loaded.enqueue(slot.context, self._compute)
        slot.computed.record(self._compute)
        if reader is not None:
            reader.wait_event(slot.computed)
            slot.has_results_on_device, slot.readers = True, {reader.handle}
            return
        self._copy_out.wait_event(slot.computed)
        for name, source in slot.device_outputs.items():
            self._copy_out.download(slot.pinned_outputs[name], source)
        slot.downloaded.record(self._copy_out)

    def _enqueue_inputs(
        self, slot: Slot, on_gpu: Mapping[str, DeviceArrayLike], reader: CudaStream | None
    ) -> None:
        copy_in = self._copy_in
        copy_in.wait_event(slot.computed)
        owners = []
        # The backend's own compute stream holds other frames; waiting for them would prevent the overlap.
        if reader is not None and (self._compute.is_external or reader.handle != self._compute.handle):
            owners.append(reader)
            copy_in.wait_stream(reader, slot.joined)
        for spec in self._contract.inputs:
            target = slot.device_inputs[spec.name]
            if spec.name not in on_gpu:
                copy_in.upload(target, slot.pinned_inputs[spec.name])
                continue
            source = read_device_input(on_gpu[spec.name], spec, self.device.index, copy_in.handle)
            slot.device_sources.append(source)
            if source.stream is not None:
                self.device.check_stream(source.stream, spec.name)
                owners.append(CudaStream(source.stream))
                copy_in.wait_stream(owners[-1], slot.joined)
            copy_in.copy_on_device(target, source.pointer, source.rows)
        slot.uploaded.record(copy_in)
        for owner in owners:
            owner.wait_event(slot.uploaded)  # so that it may write its next frame there

    def _drain(self) -> None:
        """Wait for all work of this backend and raise its errors; other work in a caller's stream is not waited for."""
        with ExitStack() as waits:  # an error of one wait does not skip the others
            for slot in self._pool.slots:
                waits.callback(slot.computed.synchronize)
            for stream in self._streams:
                if not stream.is_external:
                    waits.callback(stream.synchronize)


def _drop_context(slot: Slot) -> None:
    slot.context = None


def _check_stream(stream: int) -> int:
    """Return the handle of a caller's stream, with 0 as the legacy default stream's 1."""
    if isinstance(stream, bool) or not isinstance(stream, int) or stream < 0 or stream == PER_THREAD_STREAM:
        raise InputError(
            f"{stream!r}; expected the handle of a CUDA stream, an int, and not the per-thread default stream",
            subject="stream",
        )
    return stream or LEGACY_STREAM
