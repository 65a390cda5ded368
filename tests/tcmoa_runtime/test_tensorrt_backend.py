"""The TensorRT backend on a simulated CUDA and TensorRT; no GPU is used and no kernel is run.

Its results are compared byte for byte with those of the onnxruntime backend, as the simulated engine runs the same
graph.
"""

import gc
import shutil
import sys
import threading
from contextlib import closing, suppress

import numpy as np
import pytest

from simulated import cuda_runtime
from simulated.cases import add_engine, mixed_work, read
from simulated.cuda_runtime import cudaError_t
from simulated.tensorrt_module import Library
from tcmoa_runtime import Bundle, InputError, MemoryShortageError, TcmoaError
from tcmoa_runtime.backends.onnxruntime import OnnxRuntimeBackend
from tcmoa_runtime.backends.tensorrt.backend import TensorRTBackend
from tcmoa_runtime.gpu import cuda

pytest_plugins = ["simulated.fixtures"]


@pytest.mark.parametrize("flavor", ["rtx", "tensorrt"])
@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("slots", [1, 3])
def test_frames_equal_those_of_onnxruntime_byte_for_byte(
    flavor, cuda_graph, slots, own, cases, device, monkeypatch
):
    Library(device, flavor).install(monkeypatch)
    add_engine(own, flavor=flavor)
    with closing(TensorRTBackend(own, flavor=flavor, cuda_graph=cuda_graph, slots=slots)) as backend:
        assert backend.uses_graph == cuda_graph
        for number in (0, 1, 2, 1, 5):
            assert cases.same(backend.infer(cases.inputs(number)), number)


@pytest.mark.parametrize("kind", ["batch", "gray", "plain"])
def test_every_contract_is_taken(kind, exported, tmp_path, library):
    bundle = Bundle.open(shutil.copytree(exported(kind), tmp_path / "bundle"))
    add_engine(bundle)
    rng = np.random.default_rng(0)
    inputs = {s.name: rng.integers(0, 200, s.shape).astype(s.dtype) / 1 for s in bundle.contract.inputs}
    inputs = {
        s.name: (inputs[s.name] % (2 if s.dtype == "float32" else 256)).astype(s.dtype)
        for s in bundle.contract.inputs
    }
    with (
        closing(TensorRTBackend(bundle)) as backend,
        closing(OnnxRuntimeBackend(bundle, threads=1)) as reference,
    ):
        assert backend.inputs == bundle.contract.inputs
        got, expected = backend.infer(inputs), reference.infer(inputs)
    assert {n: a.tobytes() for n, a in got.items()} == {n: a.tobytes() for n, a in expected.items()}


@pytest.mark.usefixtures("only_own_cycles")
@pytest.mark.parametrize("seed", range(6))
def test_every_interleaving_of_the_streams_gives_the_same_frames(seed, bundle, cases, monkeypatch):
    gpu = cuda_runtime.Device(seed=seed)
    cuda_runtime.install(monkeypatch, gpu)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    Library(gpu, "rtx").install(monkeypatch)
    with closing(TensorRTBackend(bundle, slots=3)) as backend:
        mixed_work(gpu, backend, cases, seed)
    gc.collect()
    gpu.check()
    assert gpu.live() == {}


def test_results_are_new_arrays_and_a_ticket_returns_the_same_ones_again(backend, cases):
    ticket = backend.submit(cases.inputs(0))
    first = ticket.result()
    backend.infer(cases.inputs(1))
    assert ticket.result() is first
    assert cases.same(first, 0)


def test_results_may_be_taken_in_any_order(bundle, library, cases):
    with closing(TensorRTBackend(bundle, slots=3)) as backend:
        tickets = [backend.submit(cases.inputs(n)) for n in range(3)]
        for number in (2, 0, 1):
            assert cases.same(tickets[number].result(), number)


def test_copies_overlap_with_compute(backend, device, cases):
    """The second frame's upload does not wait for the first one's compute."""
    first = backend.submit(cases.inputs(0))
    second = backend.submit(cases.inputs(1))
    device.drain(device.streams[backend._copy_in.handle])
    assert device.streams[backend._compute.handle].queue
    assert cases.same(second.result(), 1)
    assert cases.same(first.result(), 0)


def test_the_graph_is_captured_once_and_the_engine_not_enqueued_again(backend, library, device, cases):
    before = library.enqueues
    for number in range(4):
        backend.infer(cases.inputs(number))
    assert library.enqueues == before == 2 * len(backend._pool.slots)  # one to warm up, one to capture
    assert device.calls.count("cudaStreamBeginCapture") == len(backend._pool.slots)


def test_prompts_reach_a_captured_graph(backend, cases):
    inputs = cases.inputs(0)
    for number in (1, 2, 3):
        prompts = {n: a for n, a in cases.inputs(number).items() if n.startswith("prompt")}
        mixed = {**inputs, **prompts}
        expected = cases.reference.infer(mixed)
        assert backend.infer(mixed)["fused"].tobytes() == expected["fused"].tobytes()


def test_holding_every_slot_is_an_error_and_not_a_deadlock(backend, cases):
    tickets = [backend.submit(cases.inputs(n)) for n in range(2)]
    with pytest.raises(
        TcmoaError, match=r"all 2 slots hold frames of this thread. Take the result of a ticket"
    ):
        backend.submit(cases.inputs(2))
    assert cases.same(tickets[0].result(), 0)
    assert cases.same(backend.infer(cases.inputs(2)), 2)
    assert cases.same(tickets[1].result(), 1)


def test_dropped_tickets_return_their_slots(backend, cases):
    for number in range(5):
        backend.submit(cases.inputs(number))
    assert cases.same(backend.infer(cases.inputs(1)), 1)


def test_results_may_be_taken_in_another_thread(backend, cases):
    tickets, good = [], []
    arrived = threading.Semaphore(0)

    def take():
        for number in range(6):
            arrived.acquire()
            good.append(cases.same(tickets[number].result(), number % 6))

    thread = threading.Thread(target=take)
    thread.start()
    for number in range(6):
        tickets.append(backend.submit(cases.inputs(number), wait=True))
        arrived.release()
    thread.join(60)
    assert good == [True] * 6


def test_several_threads_share_a_backend(backend, cases):
    assert_threads_agree([backend] * 4, cases)


def test_two_backends_of_one_bundle_run_side_by_side(bundle, library, cases):
    with closing(TensorRTBackend(bundle)) as one, closing(TensorRTBackend(bundle, cuda_graph=False)) as other:
        assert_threads_agree([one, other, one, other], cases)


def assert_threads_agree(backends, cases):
    good, start = [], threading.Barrier(len(backends))
    for number in range(6):
        cases.outputs(number)

    def work(backend, offset):
        start.wait()
        for number in range(4):
            asked = (number + offset) % 6
            good.append(cases.same(backend.infer(cases.inputs(asked)), asked))

    threads = [threading.Thread(target=work, args=(b, i)) for i, b in enumerate(backends)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert good == [True] * 4 * len(backends)


@pytest.mark.parametrize("handle", ["own", 0, 1])
def test_a_callers_stream_is_used_and_not_destroyed(handle, bundle, library, device, cases):
    stream = device.stream() if handle == "own" else handle
    with closing(TensorRTBackend(bundle, stream=stream)) as backend:
        assert backend.uses_graph
        assert device.calls.count("cudaStreamCreateWithFlags") == 2
        assert cases.same(backend.infer(cases.inputs(0)), 0)
        device.queue(stream, lambda: None)
        results = backend.infer_device(cases.inputs(1))
        assert results["fused"].stream == (stream or 1)
        assert cases.same({n: read(device, a) for n, a in results.items()}, 1)
        del results
    if handle == "own":
        device.finish()
        assert device.streams.pop(stream)


@pytest.mark.parametrize("stream", [-1, 2, 1.5, "1", True, None])
def test_a_wrong_stream_is_refused(stream, bundle, library, backend, cases):
    if stream is not None:
        with pytest.raises(InputError, match=r"stream: .*expected the handle"):
            TensorRTBackend(bundle, stream=stream)
        with pytest.raises(InputError, match=r"stream: .*expected the handle"):
            backend.infer_device(cases.inputs(0), stream)
    assert cases.same(backend.infer(cases.inputs(0)), 0)


@pytest.mark.parametrize("slots", [0, 65])
def test_the_number_of_slots_is_limited(slots, bundle):
    with pytest.raises(InputError, match="expected 1 to 64"):
        TensorRTBackend(bundle, slots=slots)


def test_the_name_contains_flavor_version_gpu_and_precision(backend):
    assert backend.name == "tensorrt (rtx 1.7.1.116, Simulated GPU (no GPU), fp32)"


def test_work_runs_on_the_loading_device_from_any_thread(bundle, library, device, cases):
    device.current.device = 1
    with closing(TensorRTBackend(bundle)) as backend:
        device.current.device = 0
        assert cases.same(backend.infer(cases.inputs(0)), 0)
        good = []
        thread = threading.Thread(target=lambda: good.append(cases.same(backend.infer(cases.inputs(1)), 1)))
        thread.start()
        thread.join(60)
        assert good == [True]
        assert {m.device for m in device.live()["device"]} == {1}
        assert device.device() == 0
    device.current.device = 0


def test_everything_is_freed_in_order(bundle, library, device):
    backend = TensorRTBackend(bundle)
    before = len(device.calls)
    backend.close()
    backend.close()
    assert library.released == ["context", "context", "engine", "runtime"]
    frees = [c for c in device.calls[before:] if "Destroy" in c or "Free" in c]
    first = {name: frees.index(name) for name in ("cudaGraphExecDestroy", "cudaFree", "cudaStreamDestroy")}
    assert first["cudaGraphExecDestroy"] < first["cudaFree"] < first["cudaStreamDestroy"]
    assert device.live() == {}


def test_calls_after_close_raise(backend, cases):
    ticket = backend.submit(cases.inputs(0))
    backend.close()
    for call in (backend.infer, backend.submit, backend.infer_device):
        with pytest.raises(TcmoaError, match="closed"):
            call(cases.inputs(0))
    with pytest.raises(TcmoaError, match="closed"):
        ticket.result()


def test_closing_while_threads_work_ends_them_with_an_error_or_a_frame(bundle, library, cases):
    backend, ends = TensorRTBackend(bundle), []
    started = threading.Barrier(4)

    def work(number):
        started.wait()
        try:
            while True:
                assert cases.same(backend.infer(cases.inputs(number)), number)
        except TcmoaError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    started.wait()
    backend.infer(cases.inputs(3))
    backend.close()
    for thread in threads:
        thread.join(60)
    assert len(ends) == 3
    assert all("closed" in end for end in ends)


def test_a_thread_that_waits_for_a_slot_is_ended_by_close(bundle, library, cases):
    backend, ends = TensorRTBackend(bundle, slots=1), []
    ticket = backend.submit(cases.inputs(0))
    waiting = threading.Event()

    def work():
        waiting.set()
        try:
            backend.infer(cases.inputs(1))
        except TcmoaError as error:
            ends.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    waiting.wait()
    backend.close()
    thread.join(60)
    assert "closed" in ends[0]
    del ticket


def count_allocations(bundle, device):
    before = {f: device.counts[f] for f in ("cudaMalloc", "cudaHostAlloc")}
    TensorRTBackend(bundle).close()
    return {f: device.counts[f] - n for f, n in before.items()}


def test_out_of_memory_at_any_allocation_frees_everything(bundle, library, device, cases):
    counts = count_allocations(bundle, device)
    assert counts == {"cudaMalloc": 1 + 2 * 6, "cudaHostAlloc": 2 * 6}
    for function, count in counts.items():
        for nth in range(1, count + 1):
            device.fail(nth, cudaError_t.cudaErrorMemoryAllocation, function)
            with pytest.raises(
                MemoryShortageError, match=r"bytes requested.*smaller frames or a smaller batch"
            ):
                TensorRTBackend(bundle)
            gc.collect()
            assert device.live() == {}, (function, nth)
    with closing(TensorRTBackend(bundle)) as backend:
        assert cases.same(backend.infer(cases.inputs(0)), 0)


@pytest.mark.filterwarnings("ignore:.*runs without a CUDA graph:RuntimeWarning")
def test_any_cuda_call_may_fail_while_loading_and_everything_is_freed(bundle, library, device):
    """A destroying call that fails leaks its own handle, as it would on a GPU."""
    TensorRTBackend(bundle).close()  # the first one makes the primary context, too
    before = device.counts[None]
    TensorRTBackend(bundle).close()
    calls = device.calls[-(device.counts[None] - before) :]
    loading = calls[: len(calls) - calls[::-1].index("cudaGraphInstantiate")]
    for nth, name in enumerate(loading, 1):
        device.fail(nth, cudaError_t.cudaErrorUnknown)
        with suppress(TcmoaError):
            TensorRTBackend(bundle).close()
        gc.collect()
        live = device.live()
        if name == "cudaStreamEndCapture" or "Destroy" in name:
            live = {k: v for k, v in live.items() if k not in ("graphs", "streams")}
            device.graphs.clear()
            for stream in [s for s in device.streams if s > 2]:
                del device.streams[stream]
        assert live == {}, (nth, name)


@pytest.mark.parametrize("call", ["infer", "infer_device"])
def test_any_cuda_call_may_fail_during_a_frame_and_no_slot_is_lost(call, bundle, library, device, cases):
    with closing(TensorRTBackend(bundle)) as backend:
        infer = getattr(backend, call)
        before = len(device.calls)
        infer(cases.inputs(0))
        for nth, name in enumerate(device.calls[before:], 1):
            device.fail(nth, cudaError_t.cudaErrorUnknown)
            with suppress(TcmoaError):  # garbage collecting results on the GPU raises nothing
                infer(cases.inputs(1))
                # Leaving the context reports errors of earlier work, which the next call raises.
                assert call == "infer_device" or name == "cuCtxPopCurrent"
            assert cases.same(backend.infer(cases.inputs(2)), 2), nth
            device.failures.clear()


def test_any_cuda_call_may_fail_while_closing_and_the_rest_is_freed(bundle, library, device):
    backend = TensorRTBackend(bundle)
    before = len(device.calls)
    backend.close()
    for nth in range(1, len(device.calls) - before + 1):
        backend = TensorRTBackend(bundle)
        device.fail(nth, cudaError_t.cudaErrorUnknown)
        with suppress(TcmoaError):
            backend.close()
        backend.close()
        left = [thing for things in device.live().values() for thing in things]
        assert len(left) <= 1, nth
        device.failures.clear()
        for memory in device.memories:
            memory.freed = True
        device.events.clear()
        device.executables.clear()
        device.streams = {h: s for h, s in device.streams.items() if h <= 2}


def test_an_interrupted_constructor_frees_everything(bundle, library, device, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cuda.CudaGraph, "launch", interrupted)
    monkeypatch.setattr(cuda.CudaGraph, "capture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        TensorRTBackend(bundle)
    gc.collect()
    assert device.live() == {}


def test_many_frames_hold_no_more_memory_than_one(bundle, library, device, cases):
    with closing(TensorRTBackend(bundle)) as backend:
        backend.infer(cases.inputs(0))
        held = {kind: len(things) for kind, things in device.live().items()}
        for number in range(60):
            backend.infer(cases.inputs(number % 6))
            backend.infer_device(cases.inputs(number % 6))
        device.finish()
        assert {kind: len(things) for kind, things in device.live().items()} == held
