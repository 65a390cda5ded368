"""The TensorRT backend on a real GPU: parity, latency, threads and leaks.

    pytest -m gpu -s tests/tcmoa_runtime/test_tensorrt_gpu.py

`make gpu-check` runs it too and writes a report with the values that are printed here.

Skipped without a CUDA device. Not run by this project yet, for lack of a GPU.
"""

import importlib.util
import shutil
import threading
import time

import numpy as np
import pytest

from micro_model import frames
from tcmoa_runtime import Bundle, Fuser, TcmoaError
from tcmoa_runtime.backends.onnxruntime import OnnxRuntimeBackend
from tcmoa_runtime.backends.tensorrt.backend import TensorRTBackend
from tcmoa_runtime.backends.tensorrt.engine_loading import MODULES, import_library
from tcmoa_runtime.cli.build import engine_rows
from tcmoa_runtime.engine_folders import find_engines
from tcmoa_runtime.gpu import cuda

MIN_PSNR_DB = {"fp32": 60.0, "fp16": 50.0, "bf16": 45.0}
"""PSNR against ONNX Runtime on the float32 graph."""


def _missing():
    """Return why these tests cannot run here and how to run them, or None."""
    how = "run `pytest -m gpu` on a machine with an NVIDIA GPU, its driver, and 'tcmoa[rtx]' or 'tcmoa[tensorrt]'"
    try:
        cuda.CudaDevice.current()
    except TcmoaError as error:
        return f"{error.problem}; {how}"
    if not any(importlib.util.find_spec(name) for name in MODULES.values()):
        return f"neither tensorrt nor tensorrt_rtx_bindings is installed; {how}"
    return None


_WHY_NOT = _missing()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))]


@pytest.fixture(
    scope="module", params=[f for f, name in MODULES.items() if importlib.util.find_spec(name)] or [""]
)
def flavor(request):
    return request.param


@pytest.fixture(scope="module")
def bundle(flavor, vif, tmp_path_factory):
    """The micro bundle with an engine of each precision, built on this machine."""
    from tcmoa_export.engines.build import build_engine
    from tcmoa_runtime.options.build import BuildOptions

    made = Bundle.open(shutil.copytree(vif, tmp_path_factory.mktemp(flavor) / "bundle"))
    target = cuda.CudaDevice.current().target
    if flavor == "rtx" and target not in map(str.lower, import_library("rtx").ComputeCapability.__members__):
        pytest.skip(f"TensorRT-RTX does not build for {target}; install 'tcmoa[tensorrt]' on this machine")
    for precision in MIN_PSNR_DB:
        targets = (target,) if flavor == "rtx" else ()
        options = BuildOptions(flavor=flavor, precision=precision, targets=targets, allow_unfused=True)
        engine = build_engine(made, options)
        for label, text in engine_rows(engine):  # for the report of `make gpu-check`
            print(f"{label:<10}  {text}")
    assert len(find_engines(made)) == len(MIN_PSNR_DB)
    return made


@pytest.fixture(scope="module")
def reference(bundle):
    backend = OnnxRuntimeBackend(bundle)
    yield backend
    backend.close()


@pytest.fixture
def backend(bundle, flavor):
    loaded = TensorRTBackend(bundle, flavor=flavor, precision="fp32")
    yield loaded
    loaded.close()


def make_inputs(bundle, seed=0):
    contract = bundle.contract
    x, y = frames(contract.height, contract.width, 2, seed=seed)
    grid = (1, *contract.grid)
    shift = np.random.default_rng(seed).uniform(-0.3, 0.3, grid).astype(np.float32)
    return {"x": x[None], "y": y[None], "prompt_scale": np.ones(grid, np.float32), "prompt_shift": shift}


def psnr(a, b):
    error = np.square(a.astype(np.float64) - b).mean()
    return 10 * np.log10(255**2 / max(error, 1e-12))


@pytest.mark.parametrize("precision", MIN_PSNR_DB)
@pytest.mark.parametrize("cuda_graph", [True, False])
def test_frames_are_close_to_those_of_onnxruntime_in_float32(
    precision, cuda_graph, bundle, flavor, reference
):
    backend = TensorRTBackend(bundle, flavor=flavor, precision=precision, cuda_graph=cuda_graph)
    assert backend.uses_graph == cuda_graph
    for seed in range(3):
        inputs = make_inputs(bundle, seed)
        got, expected = backend.infer(inputs), reference.infer(inputs)
        found = psnr(got["fused"], expected["fused"])
        print(f"{backend.name}, graph {cuda_graph}: {found:.1f} dB")
        assert found >= MIN_PSNR_DB[precision]
    backend.close()


def test_prompts_change_the_result_of_a_captured_graph(backend, bundle):
    inputs = make_inputs(bundle)
    first = backend.infer(inputs)["fused"]
    other = backend.infer({**inputs, "prompt_shift": inputs["prompt_shift"] + 0.5})["fused"]
    assert (first != other).any()
    np.testing.assert_array_equal(backend.infer(inputs)["fused"], first)


@pytest.mark.parametrize("precision", MIN_PSNR_DB)
def test_latency_with_and_without_a_cuda_graph(precision, bundle, flavor):
    for cuda_graph in (True, False):
        backend = TensorRTBackend(bundle, flavor=flavor, precision=precision, cuda_graph=cuda_graph)
        inputs, times = make_inputs(bundle), []
        for _ in range(20):
            backend.infer(inputs)
        for _ in range(300):
            start = time.perf_counter()
            backend.infer(inputs)
            times.append(1e3 * (time.perf_counter() - start))
        p50, p99 = np.percentile(times, [50, 99])
        print(f"{backend.name}, graph {cuda_graph}: p50 {p50:.3f} ms, p99 {p99:.3f} ms")
        backend.close()


def test_frames_in_flight_keep_their_order(bundle, flavor):
    backend = TensorRTBackend(bundle, flavor=flavor, precision="fp32", slots=3)
    expected = [backend.infer(make_inputs(bundle, seed))["fused"] for seed in range(6)]
    tickets = []
    for number in range(60):
        tickets.append((number % 6, backend.submit(make_inputs(bundle, number % 6))))
        if len(tickets) == 3:
            seed, ticket = tickets.pop(0)
            np.testing.assert_array_equal(ticket.result()["fused"], expected[seed])
    del tickets
    backend.close()


def test_threads_and_backends_side_by_side(bundle, flavor):
    backends = [TensorRTBackend(bundle, flavor=flavor, precision="fp32") for _ in range(2)]
    expected = [backends[0].infer(make_inputs(bundle, seed))["fused"] for seed in range(4)]
    wrong = []

    def work(backend, seed):
        for _ in range(100):
            if (backend.infer(make_inputs(bundle, seed))["fused"] != expected[seed]).any():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(backends[n % 2], n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for backend in backends:
        backend.close()
    assert not wrong


def test_a_callers_stream(bundle, flavor, backend):
    inputs = make_inputs(bundle)
    with cuda.CudaStream() as stream:
        borrowing = TensorRTBackend(bundle, flavor=flavor, precision="fp32", stream=stream.handle)
        np.testing.assert_array_equal(borrowing.infer(inputs)["fused"], backend.infer(inputs)["fused"])
        borrowing.close()
        stream.synchronize()


class Uploaded:
    """A host array copied to the GPU, with a `__cuda_array_interface__`."""

    def __init__(self, array):
        self.shape, self.typestr = array.shape, array.dtype.str
        self.buffer = cuda.DeviceBuffer(array.nbytes)
        with cuda.CudaStream() as stream, cuda.PinnedBuffer(array.nbytes) as pinned:
            pinned.array(str(array.dtype), array.shape)[:] = array
            stream.upload(self.buffer, pinned)
            stream.synchronize()

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.shape,
            "typestr": self.typestr,
            "data": (self.buffer.handle, False),
            "version": 3,
        }


def test_frames_that_stay_on_the_gpu(backend, bundle):
    inputs = make_inputs(bundle)
    expected = backend.infer(inputs)["fused"]
    x = Uploaded(inputs["x"])
    fused = backend.infer_device({**inputs, "x": x})["fused"]
    interface = fused.__cuda_array_interface__
    with cuda.PinnedBuffer(expected.nbytes) as pinned, cuda.DeviceBuffer(expected.nbytes) as there:
        stream = cuda.CudaStream(interface["stream"])
        stream.copy_on_device(there, interface["data"][0])
        stream.download(pinned, there)
        stream.synchronize()
        np.testing.assert_array_equal(pinned.array("uint8", expected.shape), expected)
    x.buffer.close()


def test_cupy_and_torch_arrays_are_exchanged_where_installed(backend, bundle):
    inputs = make_inputs(bundle)
    expected = backend.infer(inputs)["fused"]
    tried = 0
    if importlib.util.find_spec("cupy"):
        import cupy

        fused = backend.infer_device({n: cupy.asarray(a) for n, a in inputs.items()})["fused"]
        np.testing.assert_array_equal(cupy.asnumpy(cupy.from_dlpack(fused)), expected)
        np.testing.assert_array_equal(cupy.asnumpy(cupy.asarray(fused)), expected)
        tried += 1
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        fused = backend.infer_device({n: torch.from_numpy(a).cuda() for n, a in inputs.items()})["fused"]
        np.testing.assert_array_equal(torch.from_dlpack(fused).cpu().numpy(), expected)
        tried += 1
    if not tried:
        pytest.skip("neither CuPy nor a CUDA build of PyTorch is installed")


def test_the_runtime_cache_makes_the_second_start_no_slower(bundle, flavor):
    times = []
    for _ in range(2):
        start = time.perf_counter()
        with Fuser(bundle, TensorRTBackend(bundle, flavor=flavor, precision="fp16")) as fuser:
            fuser(*(a[0] for a in list(make_inputs(bundle).values())[:2]))
            times.append(time.perf_counter() - start)
    print(f"{flavor}: first start {times[0]:.2f} s, second {times[1]:.2f} s")


@pytest.mark.slow
def test_ten_thousand_frames_leak_nothing(backend, bundle):
    inputs = make_inputs(bundle)
    for _ in range(100):
        backend.infer(inputs)
        backend.infer_device(inputs)
    before = cuda.memory_info()[0]
    for _ in range(5000):
        backend.infer(inputs)
        backend.infer_device(inputs)
    assert cuda.memory_info()[0] >= before - (1 << 20)
