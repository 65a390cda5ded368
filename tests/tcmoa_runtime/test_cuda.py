"""The CUDA layer on a simulated runtime (`simulated.cuda_runtime`); no GPU is used."""

import importlib
import inspect
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from simulated import cuda_runtime
from simulated.cuda_runtime import Misuse, cudaError_t, cudaStreamCaptureMode
from tcmoa_runtime import MemoryShortageError, MissingError, TcmoaError
from tcmoa_runtime.gpu import cuda
from tcmoa_runtime.install import install_command


@pytest.fixture
def device(monkeypatch):
    """A simulated GPU on which everything must be freed."""
    simulated = cuda_runtime.Device(devices=2)
    cuda_runtime.install(monkeypatch, simulated)
    yield simulated
    simulated.check()
    assert simulated.live() == {}


def real_module(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(
            "cuda.bindings is not installed; `pip install cuda-bindings` enables this test, also without a GPU"
        )


@pytest.fixture
def real():
    """The real `cuda.bindings.runtime`, of which only names and signatures are inspected."""
    return real_module("cuda.bindings.runtime")


@pytest.mark.parametrize("name", cuda_runtime.DRIVER_FUNCTIONS)
def test_each_simulated_function_of_the_driver_has_the_parameters_of_the_real_one(name):
    driver = real_module("cuda.bindings.driver")
    simulated = list(inspect.signature(getattr(cuda_runtime.Device, name)).parameters)[1:]
    assert simulated == list(inspect.signature(getattr(driver, name)).parameters)


def test_each_simulated_result_of_the_driver_is_the_real_one():
    driver = real_module("cuda.bindings.driver")
    for member in cuda_runtime.CUresult:
        assert int(getattr(driver.CUresult, member.name)) == member


@pytest.mark.parametrize("name", cuda_runtime.FUNCTIONS)
def test_each_simulated_function_has_the_parameters_of_the_real_one(name, real):
    simulated = list(inspect.signature(getattr(cuda_runtime.Device, name)).parameters)[1:]
    assert simulated == list(inspect.signature(getattr(real, name)).parameters)


@pytest.mark.parametrize("kind", cuda_runtime.ENUMS, ids=lambda kind: kind.__name__)
def test_each_simulated_enum_value_is_the_real_one(kind, real):
    for member in kind:
        assert int(getattr(getattr(real, kind.__name__), member.name)) == member


def test_each_simulated_constant_is_the_real_one(real):
    assert {name: getattr(real, name) for name in cuda_runtime.CONSTANTS} == cuda_runtime.CONSTANTS


def test_each_simulated_function_returns_as_many_results_as_the_real_one(real):
    """Without a driver, real functions return an error and None for each result; with one, these have no effect."""
    for name, arguments in {
        "cudaGetDeviceCount": (),
        "cudaDriverGetVersion": (),
        "cudaGetLastError": (),
        "cudaGetErrorName": (real.cudaError_t.cudaErrorNoDevice,),
        "cudaGetErrorString": (real.cudaError_t.cudaErrorNoDevice,),
    }.items():
        simulated = getattr(cuda_runtime.Device(), name)(*arguments)
        assert len(getattr(real, name)(*arguments)) == len(simulated), name


def test_without_cuda_bindings_the_error_names_the_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(
        MissingError, match=rf"{re.escape(install_command('rtx'))}.*{re.escape(install_command('tensorrt'))}"
    ):
        cuda.CudaDevice.current()


@pytest.mark.parametrize(
    ("error", "driver", "words"),
    [
        ("cudaErrorInsufficientDriver", 0, "no NVIDIA driver"),
        ("cudaErrorInsufficientDriver", 12040, "the NVIDIA driver supports only CUDA 12.4"),
        ("cudaErrorNoDevice", 13000, "no CUDA device"),
    ],
)
def test_without_driver_or_device_the_error_names_another_backend(error, driver, words, device):
    device.driver = driver
    device.fail(1, cudaError_t[error], "cudaGetDeviceCount")
    with pytest.raises(MissingError, match=f"{words}.*backend='onnxruntime'"):
        cuda.CudaDevice.current()


def test_a_device_has_name_capability_memory_and_driver(device):
    assert cuda.CudaDevice.current() == cuda.CudaDevice(0, "Simulated GPU (no GPU)", "8.9", 8 << 30, "13.0")
    assert cuda.memory_info() == (8 << 30, 8 << 30)


def test_a_device_is_current_inside_the_with_block_only(device):
    device.current.device = 1
    there = cuda.CudaDevice.current()
    device.current.device = 0
    with there.active():
        assert device.device() == 1
        with there.active():
            assert device.device() == 1
    assert device.device() == 0
    with pytest.raises(KeyError), there.active():
        raise KeyError
    assert device.device() == 0


def test_work_on_a_device_makes_no_context_on_another_one(device):
    """`cudaSetDevice` makes one at once since CUDA 12, which costs hundreds of MB of the other GPU's memory."""
    there = cuda.CudaDevice(1, "", "8.9", 1, "13.0")
    assert device.primary == set()
    with there.active():
        assert device.primary == {1}  # before anything is allocated or loaded
        cuda.DeviceBuffer(8).close()
    assert device.primary == {1}
    assert device.device() == 0
    device.fail(1, cudaError_t.cudaErrorMemoryAllocation, "cuDevicePrimaryCtxRetain")
    with (
        pytest.raises(MemoryShortageError, match="out of GPU memory in cuDevicePrimaryCtxRetain"),
        cuda.CudaDevice(0, "", "8.9", 1, "13.0").active(),
    ):
        pass
    device.fail(1, cudaError_t.cudaErrorUnknown, "cuCtxPushCurrent")
    with pytest.raises(TcmoaError, match="simulated CUDA_ERROR_UNKNOWN"), there.active():
        pass


def test_after_an_error_that_ends_the_context_the_program_must_start_again(device):
    stream, buffer = cuda.CudaStream(), cuda.DeviceBuffer(8)
    device.crash(stream.handle)
    for call in (stream.synchronize, lambda: cuda.DeviceBuffer(8), buffer.close, stream.close):
        with pytest.raises(TcmoaError) as caught:
            call()
        text = str(caught.value)
        assert "simulated cudaErrorIllegalAddress" in text
        assert text.endswith(
            "Start the program again: CUDA refuses all further calls of this process. Check the GPU with `nvidia-smi`"
        )
        assert "\n" not in text
    device.memories.clear()
    device.streams.clear()


@pytest.mark.parametrize(
    ("make", "kind"),
    [(cuda.DeviceBuffer, "GPU"), (cuda.PinnedBuffer, "page-locked")],
    ids=["device", "pinned"],
)
def test_an_out_of_memory_error_names_the_size_and_a_remedy(make, kind, device):
    for function in ("cudaMalloc", "cudaHostAlloc"):
        device.fail(1, cudaError_t.cudaErrorMemoryAllocation, function)
    with pytest.raises(MemoryShortageError) as caught:
        make(12345)
    assert caught.value.exit_code == 3
    text = str(caught.value)
    assert f"out of {kind} memory: 12345 bytes requested; {8 << 30} of {8 << 30} bytes are free" in text
    assert "smaller frames or a smaller batch" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "make",
    [lambda: cuda.DeviceBuffer(8), lambda: cuda.PinnedBuffer(8), cuda.CudaStream, cuda.CudaEvent],
    ids=["device", "pinned", "stream", "event"],
)
def test_every_handle_closes_once_and_is_unusable_afterwards(make, device):
    with make() as thing:
        assert thing.handle
    thing.close()
    with pytest.raises(TcmoaError, match="is closed"):
        _ = thing.handle
    assert device.live() == {}


def test_other_errors_name_the_function_and_the_error(device):
    device.fail(1, cudaError_t.cudaErrorUnknown, "cudaEventCreateWithFlags")
    with pytest.raises(TcmoaError, match=r"cudaEventCreateWithFlags: simulated cudaErrorUnknown"):
        cuda.CudaEvent()


def test_a_callers_stream_is_used_and_never_destroyed(device):
    handle = device.stream()
    with cuda.CudaStream(handle) as stream, cuda.CudaEvent() as event:
        event.record(stream)
        stream.synchronize()
    assert handle in device.streams
    del device.streams[handle]


def test_copies_run_asynchronously_in_order(device):
    with (
        cuda.CudaStream() as stream,
        cuda.DeviceBuffer(16) as there,
        cuda.PinnedBuffer(16) as source,
        cuda.PinnedBuffer(16) as target,
    ):
        source.array("uint8", (16,))[:] = range(16)
        stream.upload(there, source)
        stream.download(target, there)
        assert (target.array("uint8", (16,)) == cuda_runtime.POISON).all()
        stream.synchronize()
        assert target.array("float32", (2, 2)).tobytes() == bytes(range(16))
    assert device.pageable_copies == 0


def test_a_stream_waits_for_another(device):
    order = []
    with cuda.CudaStream() as first, cuda.CudaStream() as second, cuda.CudaEvent() as event:
        device.queue(first.handle, lambda: order.append("first"))
        second.wait_stream(first, event)
        device.queue(first.handle, lambda: order.append("later"))
        device.queue(second.handle, lambda: order.append("second"))
        second.synchronize()
        assert order == ["first", "second"]
        first.synchronize()


def test_the_device_of_an_address_is_found(device):
    with cuda.DeviceBuffer(8) as there, cuda.PinnedBuffer(8) as pinned:
        assert cuda.memory_device(there.handle + 7) == 0
        assert cuda.memory_device(pinned.handle) is None
    assert cuda.memory_device(np.zeros(8).ctypes.data) is None


def test_an_address_that_cuda_refuses_is_not_device_memory(device):
    device.fail(1, cudaError_t.cudaErrorInvalidValue, "cudaPointerGetAttributes")
    assert cuda.memory_device(8) is None
    device.fail(1, cudaError_t.cudaErrorUnknown, "cudaPointerGetAttributes")
    with pytest.raises(TcmoaError, match="cudaPointerGetAttributes"):
        cuda.memory_device(8)


def test_a_graph_runs_the_captured_work_at_each_launch(device):
    ran = []
    with (
        cuda.CudaStream() as stream,
        cuda.CudaGraph.capture(stream, lambda: device.queue(stream.handle, lambda: ran.append(1))) as graph,
    ):
        stream.synchronize()
        assert ran == []
        graph.launch(stream)
        graph.launch(stream)
        stream.synchronize()
    assert ran == [1, 1]


def test_a_capture_does_not_affect_other_threads(device):
    modes = []
    with cuda.CudaStream() as stream:

        def work():
            modes.append(device.streams[stream.handle].capture.mode)
            other = threading.Thread(target=lambda: cuda.DeviceBuffer(8).close())
            other.start()
            other.join()

        cuda.CudaGraph.capture(stream, work).close()
    assert modes == [cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal]


def test_work_that_invalidates_a_capture_ends_it_cleanly(device):
    with cuda.CudaStream() as stream:
        with pytest.raises(TcmoaError, match="CaptureUnsupported"):
            cuda.CudaGraph.capture(stream, stream.synchronize)
        with pytest.raises(ZeroDivisionError):
            cuda.CudaGraph.capture(stream, lambda: 1 // 0)
        assert device.streams[stream.handle].capture is None
    assert device.live() == {}


@pytest.mark.parametrize(
    "function", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"]
)
def test_a_failed_capture_frees_everything(function, device):
    with cuda.CudaStream() as stream:
        device.fail(1, cudaError_t.cudaErrorUnknown, function)
        with pytest.raises(TcmoaError, match=function):
            cuda.CudaGraph.capture(stream, lambda: None)
        device.streams[stream.handle].capture = None


class TestTheSimulationDetects:
    """The tests of the backend rely on this."""

    @pytest.fixture
    def gpu(self, monkeypatch):
        simulated = cuda_runtime.Device(devices=2)
        cuda_runtime.install(monkeypatch, simulated)
        return simulated

    def test_a_double_free(self, gpu):
        _, address = gpu.cudaMalloc(8)
        gpu.cudaFree(address)
        with pytest.raises(Misuse, match="freed twice"):
            gpu.cudaFree(address)
        with pytest.raises(AssertionError):
            gpu.check()

    def test_the_wrong_free(self, gpu):
        _, address = gpu.cudaHostAlloc(8, 0)
        with pytest.raises(Misuse):
            gpu.cudaFree(address)

    def test_a_leak(self, gpu):
        cuda.DeviceBuffer(8)
        cuda.CudaStream()
        assert gpu.live().keys() == {"device", "streams"}

    @pytest.mark.parametrize("nbytes", [9, 1 << 20])
    def test_a_copy_that_is_too_long(self, nbytes, gpu):
        there, here, stream = cuda.DeviceBuffer(8), cuda.PinnedBuffer(8), cuda.CudaStream()
        there.nbytes = nbytes
        with pytest.raises(Misuse, match="go beyond the 8"):
            stream.upload(there, here)

    def test_a_copy_in_the_wrong_direction(self, gpu):
        there, here, stream = cuda.DeviceBuffer(8), cuda.PinnedBuffer(8), cuda.CudaStream()
        with pytest.raises(Misuse):
            stream.download(there, here)

    def test_memory_that_is_freed_before_the_work_on_it_is_done(self, gpu):
        there, here, stream = cuda.DeviceBuffer(8), cuda.PinnedBuffer(8), cuda.CudaStream()
        stream.upload(there, here)
        there.close()
        with pytest.raises(Misuse, match="was freed"):
            stream.synchronize()

    def test_a_write_beside_the_memory(self, gpu):
        memory = gpu.array(np.zeros(8, np.uint8))
        memory.whole[cuda_runtime.GUARD + 8] = 0
        with pytest.raises(Misuse, match="outside"):
            gpu.check()

    def test_a_copy_from_pageable_memory(self, gpu):
        there, stream, array = cuda.DeviceBuffer(8), cuda.CudaStream(), np.arange(8, dtype=np.uint8)
        gpu.cudaMemcpyAsync(there.handle, array.ctypes.data, 8, 1, stream.handle)
        assert gpu.pageable_copies == 1
        assert gpu.find(there.handle, 8, 0).tolist() == list(range(8))

    def test_memory_of_another_device(self, gpu):
        there, here, stream = cuda.DeviceBuffer(8), cuda.PinnedBuffer(8), gpu.stream(device=1)
        with pytest.raises(Misuse, match="memory of 0, used as that of 1"):
            cuda.CudaStream(stream).upload(there, here)

    def test_an_event_is_recorded_on_its_own_device_only(self, gpu):
        (_, event), stream = gpu.cudaEventCreateWithFlags(2), gpu.stream(1)
        assert gpu.cudaEventRecord(event, stream) == (cudaError_t.cudaErrorInvalidResourceHandle,)
        assert gpu.cudaStreamWaitEvent(stream, event, 0) == (cudaError_t.cudaSuccess,)

    def test_default_streams_belong_to_the_current_device_and_thread(self, gpu):
        legacy = gpu.stream_of(0)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(gpu.stream_of, 1).result() is legacy
            assert pool.submit(gpu.stream_of, 2).result() is not gpu.stream_of(2)
        gpu.cudaSetDevice(1)
        assert gpu.stream_of(1) is not legacy
        assert gpu.primary == {1}

    def test_memory_is_aligned(self, gpu):
        assert all(gpu.cudaMalloc(size)[1] % 256 == 0 for size in (1, 100, 257))

    def test_a_destroyed_stream_or_event(self, gpu):
        stream, event = cuda.CudaStream(), cuda.CudaEvent()
        number, other = stream.handle, event.handle
        stream.close()
        event.close()
        with pytest.raises(Misuse, match="was destroyed"):
            gpu.cudaStreamSynchronize(number)
        with pytest.raises(Misuse, match="was destroyed"):
            gpu.cudaEventSynchronize(other)

    def test_a_stream_or_event_that_is_destroyed_with_work_to_do(self, gpu):
        stream, event = cuda.CudaStream(), cuda.CudaEvent()
        event.record(stream)
        with pytest.raises(Misuse, match="operations pending"):
            stream.close()
        with pytest.raises(Misuse, match="before its stream reached it"):
            event.close()

    def test_a_malloc_in_anothers_global_capture(self, gpu):
        stream = gpu.stream()
        gpu.cudaStreamBeginCapture(stream, cudaStreamCaptureMode.cudaStreamCaptureModeGlobal)
        results = []
        other = threading.Thread(target=lambda: results.append(gpu.cudaMalloc(8)))
        other.start()
        other.join()
        assert results[0][0] == cudaError_t.cudaErrorStreamCaptureUnsupported
        assert gpu.cudaStreamEndCapture(stream)[0] == cudaError_t.cudaErrorStreamCaptureInvalidated

    def test_random_turns_keep_each_streams_order(self, monkeypatch):
        orders = set()
        for seed in range(8):
            gpu = cuda_runtime.Device(seed=seed)
            cuda_runtime.install(monkeypatch, gpu)
            ran, streams = [], [gpu.stream(), gpu.stream()]
            for number in range(6):
                gpu.queue(streams[number % 2], lambda r=ran, n=number: r.append(n))
                cuda.memory_info()  # any call lets the GPU go on
            gpu.finish()
            assert [n for n in ran if n % 2] == [1, 3, 5]
            assert [n for n in ran if not n % 2] == [0, 2, 4]
            orders.add(tuple(ran))
        assert len(orders) > 2
