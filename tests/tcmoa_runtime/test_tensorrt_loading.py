"""Choosing and refusing engines, on a simulated CUDA and TensorRT; no GPU is used."""

import importlib.util
import itertools
import os
import shutil
import stat
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from simulated import cuda_runtime, tensorrt_module
from simulated.cases import add_engine, cut, flip
from simulated.cuda_runtime import cudaError_t
from simulated.tensorrt_module import Library, engine_bytes
from tcmoa_runtime import Bundle, BundleError, InputError, MemoryShortageError, MissingError, TcmoaError
from tcmoa_runtime.backends.compile_cache import cache_key
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.backends.tensorrt import library_log
from tcmoa_runtime.backends.tensorrt.backend import TensorRTBackend
from tcmoa_runtime.engine_folders import ENGINES_FOLDER, find_engines
from tcmoa_runtime.gpu.cuda import CudaDevice
from tcmoa_runtime.install import install_command

pytest_plugins = ["simulated.fixtures"]


def refused(bundle, library, error=BundleError, **options):
    """Return the one-line error of loading, which is raised before TensorRT reads a byte."""
    with pytest.raises(error) as caught:
        TensorRTBackend(bundle, **options)
    assert library.loaded == 0
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_an_engine_the_error_says_how_to_build_one(own, library):
    assert f"{own.path}: has no engine. Build one with `tcmoa build {own.path}`" in refused(own, library)
    add_engine(own)
    assert "has no fp16 engine" in refused(own, library, precision="fp16")
    assert "has no tensorrt engine" in refused(own, library, flavor="tensorrt")


@pytest.mark.parametrize("option", [{"flavor": "trt"}, {"precision": "int8"}])
def test_unknown_choices_are_refused(option, bundle, library):
    assert "expected" in refused(bundle, library, InputError, **option)


def test_the_preferred_engine_is_tensorrt_then_fp16_then_bf16_then_fp32(own, device, monkeypatch):
    for flavor, precision in itertools.product(("rtx", "tensorrt"), ("fp32", "bf16", "fp16")):
        Library(device, flavor).install(monkeypatch)
        add_engine(own, flavor=flavor, precision=precision)
    chosen = []
    while paths := find_engines(own):
        with closing(TensorRTBackend(own)) as backend:
            engine = backend._loaded.description
        chosen.append((engine.flavor, engine.precision))
        assert engine.path in paths
        engine.path.unlink()
    expected = list(itertools.product(("tensorrt", "rtx"), ("fp16", "bf16", "fp32")))
    assert chosen == expected


def test_an_engine_is_taken_by_flavor_precision_or_path(own, device, monkeypatch):
    for flavor, precision in itertools.product(("rtx", "tensorrt"), ("fp32", "fp16")):
        Library(device, flavor).install(monkeypatch)
        add_engine(own, flavor=flavor, precision=precision)
    path = own.path / ENGINES_FOLDER / "rtx-1.7.1.116-local-fp32.engine"
    for options, start in (
        ({"flavor": "rtx"}, "rtx"),
        ({"precision": "fp32"}, "tensorrt"),
        ({"engine": path}, "rtx"),
    ):
        with closing(TensorRTBackend(own, **options)) as backend:
            assert backend.name.startswith(f"tensorrt ({start} ")


def test_mismatched_engines_are_skipped(own, library, cases):
    add_engine(own, precision="fp16", version="1.6.0.1")
    add_engine(own, precision="bf16", targets=("sm120",), gpu=None)
    add_engine(own, flavor="tensorrt", precision="fp16")  # whose library is not installed
    add_engine(own, precision="fp32")
    with closing(TensorRTBackend(own)) as backend:
        assert "fp32" in backend.name
        assert cases.same(backend.infer(cases.inputs(0)), 0)


def test_an_engine_of_another_version_is_refused(own, library):
    add_engine(own, version="1.6.0.1")
    text = refused(own, library)
    assert "built by rtx 1.6.0.1; expected 1.7.1.116, the installed version" in text
    assert f"`tcmoa build {own.path}`, flavor rtx" in text


def test_an_engine_of_another_gpu_is_refused(own, library, device):
    add_engine(own)
    device.capability = (12, 0)
    assert "built for Simulated GPU (8.9); expected compute capability 12.0, that of this GPU" in refused(
        own, library
    )


@pytest.mark.parametrize("flavor", ["rtx", "tensorrt"])
def test_a_missing_library_error_names_the_extra(flavor, own, library, monkeypatch):
    add_engine(own, flavor=flavor)
    monkeypatch.setitem(sys.modules, tensorrt_module.NAMES[flavor], None)
    assert install_command(flavor) in refused(own, library, MissingError)


def test_a_library_that_breaks_on_import_is_missing(own, library, monkeypatch, tmp_path):
    add_engine(own)
    (tmp_path / "tensorrt_rtx_bindings.py").write_text("raise OSError('libnvinfer.so: not found\\nmore')")
    monkeypatch.delitem(sys.modules, "tensorrt_rtx_bindings")
    monkeypatch.syspath_prepend(tmp_path)
    assert "libnvinfer.so: not found" in refused(own, library, MissingError)


@pytest.mark.parametrize("error", ["cudaErrorInsufficientDriver", "cudaErrorNoDevice"])
def test_without_driver_or_device_it_is_missing(error, bundle, library, device):
    device.fail(1, cudaError_t[error], "cudaGetDeviceCount")
    assert "backend='onnxruntime'" in refused(bundle, library, MissingError)


def test_without_cuda_bindings_it_is_missing(bundle, library, monkeypatch):
    monkeypatch.setitem(sys.modules, cuda_runtime.MODULE, None)
    assert "cuda-bindings" in refused(bundle, library, MissingError)


@pytest.mark.parametrize("suffix", [".engine", ".json"])
@pytest.mark.parametrize("damage", [cut, flip, lambda p: p.unlink(), lambda p: p.write_bytes(b"")])
def test_damaged_engines_are_refused_before_tensorrt_sees_them(damage, suffix, own, library):
    engine = add_engine(own)
    damage(engine.path.with_suffix(suffix))
    assert "tcmoa build" in refused(own, library)


def test_swapped_engines_are_refused_before_tensorrt_sees_them(own, library):
    first, second = (
        add_engine(own, precision="fp16"),
        add_engine(own, data=engine_bytes(own, x={"note": "another engine"})),
    )
    spare = own.path / "spare"
    first.path.rename(spare)
    second.path.rename(first.path)
    spare.rename(second.path)
    refused(own, library)


def test_an_engine_of_another_bundle_is_refused_before_tensorrt_sees_it(own, exported, library):
    add_engine(Bundle.open(own.path))
    other = Bundle.open(shutil.copytree(exported("mef"), own.path.parent / "other"))
    shutil.copytree(own.path / ENGINES_FOLDER, other.path / ENGINES_FOLDER)
    assert "built from the graph" in refused(other, library)


def test_an_engine_outside_the_bundle_is_refused_before_tensorrt_sees_it(own, library, tmp_path):
    engine = add_engine(own)
    shutil.copytree(engine.path.parent, tmp_path / ENGINES_FOLDER)
    assert "native code" in refused(own, library, engine=tmp_path / ENGINES_FOLDER / engine.path.name)


WRONG_TENSORS_OF_ENGINES = {
    "an input too little": ({"y": None}, "input 'y' is absent"),
    "an output too many": (
        {"z": {"mode": "OUTPUT", "dtype": "FLOAT", "shape": [1]}},
        "output 'z' is float32 [1]; expected absent as in bundle.json",
    ),
    "another type": ({"x": {"dtype": "HALF"}}, "input 'x' is DataType.HALF [1, 100, 130, 3]"),
    "another shape": ({"x": {"shape": [1, 100, 131, 3]}}, "input 'x' is uint8 [1, 100, 131, 3]"),
    "an output for an input": ({"y": {"mode": "OUTPUT"}}, "input 'y' is absent"),
    "on the host": (
        {"prompt_scale": {"location": "HOST"}},
        "tensor 'prompt_scale' is TensorFormat.LINEAR on TensorLocation.HOST; expected linear memory on the GPU",
    ),
    "another layout": (
        {"fused": {"format": "CHW2"}},
        "tensor 'fused' is TensorFormat.CHW2 on TensorLocation.DEVICE; expected linear memory on the GPU",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_TENSORS_OF_ENGINES)
def test_an_engine_with_other_tensors_is_refused(wrong, own, library):
    changes, words = WRONG_TENSORS_OF_ENGINES[wrong]
    add_engine(own, data=engine_bytes(own, **changes))
    with pytest.raises(BundleError) as caught:
        TensorRTBackend(own)
    assert words in str(caught.value)
    assert "tcmoa build" in str(caught.value)


@pytest.mark.parametrize("step", ["deserialize", "context", "address", "enqueue"])
def test_the_first_logged_error_is_reported(step, bundle, library):
    library.refuse.add(step)
    with pytest.raises(TcmoaError) as caught:
        TensorRTBackend(bundle)
    text = str(caught.value)
    assert f"simulated failure of {step} in two lines" in text
    assert "follows" not in text
    assert "tensorrt_rtx_bindings 1.7.1.116" in text
    assert "\n" not in text


def test_an_older_logged_error_is_not_reported_again(own, bundle, library):
    library.refuse.add("context")
    with pytest.raises(TcmoaError, match="simulated failure of context"):
        TensorRTBackend(bundle)
    library.refuse.clear()
    add_engine(own, data=b"not an engine")
    with pytest.raises(BundleError, match="simulated: no engine"):
        TensorRTBackend(own)


def test_one_logger_serves_all_backends_without_a_line_of_python(bundle, library):
    """TensorRT keeps the first logger that it is given, and a logger in Python takes Python's lock for every line."""
    with closing(TensorRTBackend(bundle)) as one, closing(TensorRTBackend(bundle)) as other:
        logger = one._loaded._runtime.logger
        assert other._loaded._runtime.logger is logger
        assert type(logger) is tensorrt_module.Logger
        assert logger.min_severity == tensorrt_module.ILogger.INTERNAL_ERROR


def test_after_a_build_its_logger_serves_everything(bundle, library):
    log = library_log.log_of(sys.modules["tensorrt_rtx_bindings"])
    with log.collect() as (logger, lines), closing(TensorRTBackend(bundle)) as backend:
        assert backend._loaded._runtime.logger is logger
        logger.log(tensorrt_module.ILogger.VERBOSE, "a line")
        assert lines == ["a line"]
    logger.log(tensorrt_module.ILogger.VERBOSE, "dropped")
    assert lines == ["a line"]
    with log.collect() as (again, lines):
        assert again is logger
        assert lines == []
    library.refuse.add("context")
    with pytest.raises(TcmoaError, match="simulated failure of context"):
        TensorRTBackend(bundle)


def test_errors_of_native_threads_are_counted(library):
    log = library_log.log_of(sys.modules["tensorrt_rtx_bindings"])
    count = log.count
    threads = [
        threading.Thread(target=log.recorder.report_error, args=(None, f"error {i}")) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.count == count + 8
    assert log.first_since(count).startswith("error ")
    assert log.first_since(log.count) == "it logged no reason"


def test_the_primary_context_is_there_before_tensorrt_reads_an_engine(bundle, library, device, monkeypatch):
    seen = []
    load = tensorrt_module.Runtime.deserialize_cuda_engine

    def look(self, data):
        seen.append((set(device.primary), device.device()))
        return load(self, data)

    monkeypatch.setattr(tensorrt_module.Runtime, "deserialize_cuda_engine", look)
    device.current.device = 1
    there = TensorRTBackend(bundle)
    device.current.device = 0
    there.close()
    assert seen == [({1}, 1)]
    assert device.primary == {1}


def test_out_of_memory_in_tensorrt_is_a_memory_shortage(bundle, library, monkeypatch):
    def out_of_memory(self, strategy):
        raise RuntimeError("CUDA error: out of memory\nat somewhere")

    monkeypatch.setattr(tensorrt_module.ICudaEngine, "create_execution_context", out_of_memory)
    with pytest.raises(MemoryShortageError, match="smaller frames or a smaller batch") as caught:
        TensorRTBackend(bundle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_refused_enqueue_raises_or_falls_back(cuda_graph, nth, bundle, library, device, cases):
    """With two slots, enqueues 1 and 2 warm up; 3 and 4 are captured, or are frames without a graph."""
    library.refuse_enqueue = nth
    if nth <= 2:
        with pytest.raises(TcmoaError, match="could not enqueue the engine"):
            TensorRTBackend(bundle, cuda_graph=cuda_graph)
        return
    if cuda_graph:
        with pytest.warns(RuntimeWarning, match="runs without a CUDA graph.*simulated failure of enqueue"):
            backend = TensorRTBackend(bundle)
        assert not backend.uses_graph
        backend.close()
        return
    with closing(TensorRTBackend(bundle, cuda_graph=False)) as backend:
        for number in range(nth - 3):
            assert cases.same(backend.infer(cases.inputs(number)), number)
        for _ in range(5):  # no slot is lost
            with pytest.raises(
                TcmoaError, match=r"could not enqueue the engine.*simulated failure of enqueue"
            ):
                backend.infer(cases.inputs(0))
        library.refuse_enqueue = 0
        library.refuse.clear()
        assert cases.same(backend.infer(cases.inputs(1)), 1)


@pytest.mark.parametrize("cause", ["not capturable", "syncs", "capture", "instantiate", "second"])
def test_frames_are_correct_without_a_graph_where_a_capture_fails(cause, bundle, library, device, cases):
    library.capturable = cause != "not capturable"
    library.sync_in_enqueue = cause == "syncs"
    if cause == "instantiate":
        device.fail(1, cudaError_t.cudaErrorUnknown, "cudaGraphInstantiate")
    if cause == "capture":
        device.fail(1, cudaError_t.cudaErrorStreamCaptureUnsupported, "cudaStreamBeginCapture")
    if cause == "second":
        device.fail(2, cudaError_t.cudaErrorUnknown, "cudaGraphInstantiate")
    with pytest.warns(RuntimeWarning, match="runs without a CUDA graph"):
        backend = TensorRTBackend(bundle)
    with closing(backend):
        assert not backend.uses_graph
        assert "executables" not in device.live()
        for number in (0, 1, 2):
            assert cases.same(backend.infer(cases.inputs(number)), number)


def test_a_stripped_engine_is_refitted_from_the_graph(own, library, cases):
    add_engine(own, stripped=True)
    with closing(TensorRTBackend(own)) as backend:
        assert cases.same(backend.infer(cases.inputs(0)), 0)


def test_a_stripped_engine_is_refitted_from_its_weights_file(own, library, cases):
    (own.path / ENGINES_FOLDER).mkdir()
    shutil.copy(own.graph_path, own.path / ENGINES_FOLDER / "weights.onnx")
    add_engine(own, stripped=True, weights="weights.onnx")
    with closing(TensorRTBackend(own)) as backend:
        assert cases.same(backend.infer(cases.inputs(0)), 0)
    flip(own.path / ENGINES_FOLDER / "weights.onnx")
    with pytest.raises(BundleError, match="SHA-256"):
        TensorRTBackend(own)


def test_a_stripped_engine_of_a_large_bundle_is_refitted_by_path(
    external_data_bundle, tmp_path, library, monkeypatch
):
    bundle = Bundle.open(shutil.copytree(external_data_bundle, tmp_path / "two"))
    add_engine(bundle, stripped=True)
    refitted = []

    def refit(self, model):
        refitted.append(model)
        return False

    monkeypatch.setattr(tensorrt_module.OnnxParserRefitter, "refit_from_file", refit)
    with pytest.raises(TcmoaError, match="could not read the weights"):
        TensorRTBackend(bundle)
    (path,) = map(Path, refitted)  # a copy of the bytes that were hashed
    assert path.name == "fusion.onnx"
    assert not path.is_relative_to(bundle.path)
    flip(bundle.path / "fusion.data")
    with pytest.raises(BundleError, match="SHA-256"):
        TensorRTBackend(bundle)
    assert len(refitted) == 1


@pytest.mark.parametrize("step", ["weights", "refit"])
def test_a_refit_that_fails_is_an_error(step, own, library):
    add_engine(own, stripped=True)
    library.refuse.add(step)
    with pytest.raises(TcmoaError, match=f"simulated failure of {step}"):
        TensorRTBackend(own)


@pytest.fixture
def user_cache(tmp_path, monkeypatch):
    """The user's cache folder, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tcmoa"


def kernels_of(engine, folder):
    device = CudaDevice.current()
    key = cache_key(engine.engine_entry.sha256, device.name, device.compute_capability)
    return folder / "kernels" / f"rtx-{key}.runtime_cache"


@pytest.fixture
def cache_path(own, library, user_cache):
    library.cache_content = b"kernels compiled on a simulated GPU"
    return kernels_of(add_engine(own), user_cache)


def test_the_runtime_cache_is_saved_in_the_users_cache_folder(own, library, cache_path):
    TensorRTBackend(own).close()
    assert stat.S_IMODE(cache_path.stat().st_mode) == 0o600
    assert cache_path.read_bytes().endswith(library.cache_content)
    assert library.cache_deserialized == []
    before = cache_path.stat().st_mtime_ns
    TensorRTBackend(own).close()
    assert library.cache_deserialized == [library.cache_content]
    assert cache_path.stat().st_mtime_ns == before  # nothing new
    library.cache_content += b" and one more"
    TensorRTBackend(own).close()
    assert cache_path.read_bytes().endswith(b"and one more")
    assert len(list(cache_path.parent.iterdir())) == 1
    assert len(list((own.path / ENGINES_FOLDER).iterdir())) == 2


@pytest.mark.parametrize(
    "damage", [cut, flip, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"x" * 200)]
)
def test_a_damaged_runtime_cache_is_ignored_with_a_warning(damage, own, library, cache_path, cases):
    TensorRTBackend(own).close()
    damage(cache_path)
    with pytest.warns(RuntimeWarning, match="damaged or written on another machine"):
        backend = TensorRTBackend(own)
    with closing(backend):
        assert cases.same(backend.infer(cases.inputs(0)), 0)
    assert library.cache_deserialized == []  # the library does not read it
    assert cache_path.read_bytes().endswith(library.cache_content)


@pytest.mark.parametrize(
    ("replace", "problem"),
    [
        (os.mkfifo, "a named pipe; expected a regular file"),
        (lambda p: p.symlink_to("/dev/zero"), "a symbolic link; expected a regular file"),
        (lambda p: os.truncate(p, 30 << 30), "32212254720 bytes; expected at most 1073741824"),
    ],
)
def test_what_is_no_runtime_cache_is_not_waited_for(replace, problem, own, library, cache_path):
    TensorRTBackend(own).close()
    if replace is os.mkfifo or "link" in problem:
        cache_path.unlink()
    replace(cache_path)
    with pytest.warns(RuntimeWarning) as caught:
        TensorRTBackend(own).close()
    assert str(caught[0].message) == f"{cache_path}: {problem}; kernels are compiled again"


def test_a_runtime_cache_of_another_engine_is_ignored_with_a_warning(own, library, cache_path, user_cache):
    TensorRTBackend(own).close()
    other = add_engine(own, data=engine_bytes(own, x={"note": "another engine"}))
    cache_path.rename(kernels_of(other, user_cache))
    with pytest.warns(RuntimeWarning, match="damaged or written"):
        TensorRTBackend(own).close()
    assert library.cache_deserialized == []


def test_a_runtime_cache_that_the_library_refuses_is_ignored_with_a_warning(own, library, cache_path):
    TensorRTBackend(own).close()
    library.refuse.add("cache")
    with pytest.warns(RuntimeWarning, match="damaged or written"):
        TensorRTBackend(own).close()


def test_a_runtime_cache_that_cannot_be_written_is_a_warning(own, library, cache_path, device):
    cache_path.parent.mkdir(parents=True, mode=0o700)
    cache_path.parent.parent.chmod(0o700)
    cache_path.mkdir()  # a folder in place of the file; permissions would not stop root
    with pytest.warns(RuntimeWarning) as caught:
        TensorRTBackend(own).close()
    assert "compiled again at the next start" in str(caught[-1].message)


def test_an_empty_runtime_cache_is_not_written(own, library, cache_path):
    library.cache_content = b""
    TensorRTBackend(own).close()
    assert not cache_path.exists()


def test_plain_tensorrt_has_no_runtime_cache(own, device, monkeypatch, user_cache):
    Library(device, "tensorrt").install(monkeypatch)
    add_engine(own, flavor="tensorrt")
    TensorRTBackend(own).close()
    assert not list(user_cache.rglob("*.runtime_cache"))


def chosen(bundle, name="auto"):
    with closing(load_backend(bundle, name)) as backend:
        return backend.name.split()[0]


def test_auto_takes_tensorrt_where_an_engine_fits(own, library, no_openvino):
    assert chosen(own) == "onnxruntime"
    add_engine(own)
    assert chosen(own) == "tensorrt"
    assert chosen(own, "onnxruntime") == "onnxruntime"


def test_auto_takes_onnxruntime_where_no_engine_fits(own, library, device, monkeypatch, no_openvino):
    add_engine(own, version="1.6.0.1")
    assert chosen(own) == "onnxruntime"
    add_engine(own)
    device.capability = (12, 0)
    assert chosen(own) == "onnxruntime"
    device.capability = (8, 9)
    device.fail(1, cudaError_t.cudaErrorNoDevice, "cudaGetDeviceCount")
    assert chosen(own) == "onnxruntime"
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    assert chosen(own) == "onnxruntime"
    with pytest.raises(MissingError):
        load_backend(own, "tensorrt")


def test_auto_refuses_a_damaged_engine(own, library):
    flip(add_engine(own).path.with_suffix(".json"))
    with pytest.raises(BundleError, match="tcmoa build"):
        load_backend(own)


def test_auto_imports_neither_tensorrt_nor_cuda_without_an_engine(vif, fresh_python):
    outcome = fresh_python(
        f"from tcmoa_runtime import Fuser\n"
        f"Fuser.load({str(vif)!r}).close()\n"
        f"print(sorted(sys.modules.keys() & {{'tensorrt', 'tensorrt_rtx_bindings', 'cuda', 'cuda.bindings'}}))"
    )
    assert (outcome.code, outcome.out) == (0, "[]\n"), outcome.err


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="tensorrt_rtx_bindings is not installed"
)
def test_the_real_library_has_the_members_of_the_simulated_one():
    real = pytest.importorskip("tensorrt_rtx_bindings")
    for name in (
        "Runtime",
        "ICudaEngine",
        "IRuntimeConfig",
        "IRuntimeCache",
        "Refitter",
        "OnnxParserRefitter",
    ):
        simulated = vars(getattr(tensorrt_module, name))
        asked = {
            n
            for n, v in simulated.items()
            if not n.startswith("_") and (callable(v) or isinstance(v, property))
        }
        assert asked <= set(dir(getattr(real, name))), name
    names = {"set_device_memory", "set_tensor_address", "execute_async_v3", "is_stream_capturable"}
    assert names <= set(dir(real.IExecutionContext))
    for kind in (
        "DataType",
        "TensorIOMode",
        "TensorLocation",
        "TensorFormat",
        "ExecutionContextAllocationStrategy",
    ):
        for member in getattr(tensorrt_module, kind):
            assert hasattr(getattr(real, kind), member.name), (kind, member)
