"""The TensorRT backend with planted faults on a simulated CUDA: comparing it with onnxruntime must detect each.

That shows that the other tests can fail. No GPU is used.
"""

import gc
import sys

import pytest

from simulated import cuda_runtime
from simulated.cases import mixed_work
from simulated.tensorrt_module import Library
from tcmoa_runtime.backends.tensorrt.backend import TensorRTBackend
from tcmoa_runtime.backends.tensorrt.slots import SlotPool
from tcmoa_runtime.gpu import cuda

pytest_plugins = ["simulated.fixtures"]
pytestmark = pytest.mark.usefixtures("only_own_cycles")


def run_mixed_work(monkeypatch, bundle, cases, seed, break_it):
    gpu = cuda_runtime.Device(seed=seed)
    cuda_runtime.install(monkeypatch, gpu)
    Library(gpu, "rtx").install(monkeypatch)
    backend = TensorRTBackend(bundle, slots=2)
    with monkeypatch.context() as patch:
        break_it(patch, backend)
        try:
            mixed_work(gpu, backend, cases, seed if seed is not None else 0)
        except BaseException:  # slots of a broken backend must not be reclaimed later
            monkeypatch.setattr(SlotPool, "hand_back", lambda *_: None)
            raise
    backend.close()
    gc.collect()
    gpu.check()
    assert gpu.live() == {}


def skip_wait(stream, event):
    """Skip one kind of wait: of a stream (an attribute of the backend) for an event (an attribute of slots)."""

    def break_it(patch, backend):
        wait = cuda.CudaStream.wait_event

        def skipping(self, other):
            mine = stream is None or self is getattr(backend, stream)
            if not (mine and (event is None or any(other is getattr(s, event) for s in backend._pool.slots))):
                wait(self, other)

        patch.setattr(cuda.CudaStream, "wait_event", skipping)

    return break_it


def skip_synchronize(event):
    def break_it(patch, backend):
        synchronize = cuda.CudaEvent.synchronize

        def skipping(self):
            if not any(self is getattr(s, event) for s in backend._pool.slots):
                synchronize(self)

        patch.setattr(cuda.CudaEvent, "synchronize", skipping)

    return break_it


def swap_inputs(patch, backend):
    for slot in backend._pool.slots:
        buffers = slot.device_inputs
        buffers["x"], buffers["y"] = buffers["y"], buffers["x"]


def share_between_slots(which):
    def break_it(patch, backend):
        first, second = backend._pool.slots[:2]
        patch.setattr(second, which, getattr(first, which))

    return break_it


def forget_prompts(patch, backend):
    upload = cuda.CudaStream.upload

    def skipping(self, target, source):
        if not any(target is s.device_inputs["prompt_shift"] for s in backend._pool.slots):
            upload(self, target, source)

    patch.setattr(cuda.CudaStream, "upload", skipping)


def one_byte(change):
    def break_it(patch, backend):
        for slot in backend._pool.slots:
            slot.device_inputs["x"].nbytes += change

    return break_it


def swap_graphs(patch, backend):
    first, second = backend._pool.slots[:2]
    first.graph, second.graph = second.graph, first.graph


def forget_owners(patch, backend):
    enqueue_inputs = TensorRTBackend._enqueue_inputs
    patch.setattr(
        TensorRTBackend,
        "_enqueue_inputs",
        lambda self, slot, on_gpu, reader: enqueue_inputs(self, slot, on_gpu, None),
    )


def overwrite_held_results(patch, backend):
    patch.setattr(SlotPool, "add_reader", lambda *_: None)
    patch.setattr("tcmoa_runtime.backends.tensorrt.slots.SlotLease.__del__", lambda self: None)
    start = TensorRTBackend._start

    def release_at_once(self, inputs, wait, reader):
        slot = start(self, inputs, wait, reader)
        if reader is not None:
            slot.readers, slot.has_results_on_device = set(), False
            self._pool.release(slot)
        return slot

    patch.setattr(TensorRTBackend, "_start", release_at_once)


FAULTS = {
    "no stream waits for another": skip_wait(None, None),
    "compute does not wait for uploads": skip_wait("_compute", "uploaded"),
    "downloads do not wait for compute": skip_wait("_copy_out", "computed"),
    "uploads do not wait for the slot's last compute": skip_wait("_copy_in", "computed"),
    "uploads do not wait for the owners of inputs": skip_wait("_copy_in", "joined"),
    "readers on the GPU are not waited for": skip_wait("_compute", "joined"),
    "owners and readers on the GPU are forgotten": forget_owners,
    "the host does not wait for downloads": skip_synchronize("downloaded"),
    "the host does not wait for uploads": skip_synchronize("uploaded"),
    "x and y are swapped": swap_inputs,
    "prompts are stale": forget_prompts,
    "graphs run on another slot's buffers": swap_graphs,
    "slots share their inputs on the host": share_between_slots("pinned_inputs"),
    "slots share their outputs on the host": share_between_slots("pinned_outputs"),
    "a copy is one byte too long": one_byte(1),
    "a copy is one byte too short": one_byte(-1),
    "results on the GPU are overwritten while they are held": overwrite_held_results,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_backend_is_detected(fault, bundle, cases, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    detected = any(
        is_detected(monkeypatch, bundle, cases, seed, FAULTS[fault]) for seed in (None, *range(20))
    )
    gc.collect()  # tickets of the broken backend, before its methods are whole again
    assert detected, "the comparison with onnxruntime detected nothing"


def is_detected(*arguments):
    try:
        run_mixed_work(*arguments)
    except AssertionError:  # Misuse is one
        return True
    return False


def test_a_backend_that_is_not_broken_passes_the_same_work(bundle, cases, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for seed in (None, *range(5)):
        run_mixed_work(monkeypatch, bundle, cases, seed, lambda patch, backend: None)
