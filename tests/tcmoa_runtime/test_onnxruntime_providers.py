"""ONNX Runtime's GPU providers: which options they get, and what happens without them.

No GPU is used: a fake ONNX Runtime reports that it has a provider, records the arguments of sessions, and runs the
graph on the CPU. Tests of real providers are marked `gpu`.
"""

import ctypes
import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
import types
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tcmoa_runtime import Bundle, BundleError, MissingError, install
from tcmoa_runtime.backends import compile_cache
from tcmoa_runtime.backends.compile_cache import CompileCache
from tcmoa_runtime.backends.onnxruntime import OnnxRuntimeBackend
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.backends.provider_libraries import preload_bundled_cudart
from tcmoa_runtime.backends.providers import PROVIDERS, open_provider_cache
from tcmoa_runtime.engine_folders import ENGINES_FOLDER, find_engines, graph_key

NAMES = {
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "onnxruntime-rtx": "NvTensorRTRTXExecutionProvider",
}
PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
RealSession, RealOptions = onnxruntime.InferenceSession, onnxruntime.SessionOptions


@dataclass
class FakeOrt:
    """What the fake ONNX Runtime reports, and the sessions that were created."""

    available: list = field(default_factory=lambda: ["CPUExecutionProvider"])
    started: list | None = None  # providers that sessions report; None: the requested ones
    versions: dict = field(default_factory=lambda: {"onnxruntime": "1.32.0"})
    fails: Exception | None = None  # raised by a session that is not on the CPU alone
    sessions: list = field(default_factory=list)


class Options(RealOptions):
    """Session options that accept devices of a plugin that does not exist."""

    devices, settings = (), None

    def add_provider_for_devices(self, devices, settings):
        self.devices, self.settings = devices, settings


@pytest.fixture
def ort(monkeypatch):
    fake = FakeOrt()

    class Session:
        """A session that writes into the cache: TensorRT on creation, TensorRT-RTX on destruction."""

        real = runtime_cache = None

        def __init__(self, source, options, providers=None, **rest):
            self.asked = [p if isinstance(p, tuple) else (p, {}) for p in providers or ()]
            if options.devices:
                self.asked = [(options.devices[0].ep_name, options.settings)]
            fake.sessions.append(types.SimpleNamespace(asked=self.asked, options=options, rest=rest))
            name, settings = self.asked[0]
            if fake.fails is not None and name != "CPUExecutionProvider":
                raise fake.fails
            if settings.get("trt_engine_cache_enable") == "True":
                engine = settings["trt_engine_cache_prefix"] + "_123_sm89.engine"
                Path(settings["trt_engine_cache_path"], engine).write_bytes(b"an engine")
            self.runtime_cache = settings.get("nv_runtime_cache_path")
            self.real = RealSession(source, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return [name for name, _ in self.asked] if fake.started is None else fake.started

        def __getattr__(self, name):
            return getattr(self.real, name)

        def __del__(self):
            if self.runtime_cache is not None:
                Path(self.runtime_cache, "kernels").write_bytes(b"kernels")

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: fake.available)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn"), raising=False)
    monkeypatch.setitem(sys.modules, PLUGIN, None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    def version(name):
        if name not in fake.versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return fake.versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return fake


@pytest.fixture
def own(vif, tmp_path):
    return Bundle.open(shutil.copytree(vif, tmp_path / "own"))


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    """The user's cache folder, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tcmoa"


def the_cache(user_cache):
    (folder,) = (user_cache / "compiled").iterdir()
    return folder


def open_cache(bundle, backend):
    return open_provider_cache(bundle, PROVIDERS[backend])


def have(ort, backend):
    ort.available = [NAMES[backend], "CPUExecutionProvider"]


def make_inputs(bundle):
    rng = np.random.default_rng(0)
    inputs = {s.name: np.ones(s.shape, s.dtype) for s in bundle.contract.inputs}
    return {**inputs, "x": rng.integers(0, 256, inputs["x"].shape, np.uint8)}


def refusal(bundle, backend):
    with pytest.raises(MissingError) as caught:
        load_backend(bundle, backend)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- arguments of a session ------------------------------------------------------------------------------------


def test_every_provider_is_a_backend():
    assert {backend: provider.name for backend, provider in PROVIDERS.items()} == NAMES


@pytest.mark.parametrize("backend", NAMES)
def test_only_the_named_provider_is_requested(backend, ort, own):
    have(ort, backend)
    with closing(load_backend(own, backend, threads=3)) as loaded:
        (session,) = ort.sessions
        assert [name for name, _ in session.asked] == [NAMES[backend]]
        assert session.options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        assert session.rest == {"enable_fallback": 0}
        assert session.options.intra_op_num_threads == 3
        assert loaded.name == f"onnxruntime ({PROVIDERS[backend].label})"


@pytest.mark.parametrize("backend", NAMES)
def test_frames_are_fused_by_the_provider(backend, ort, own):
    inputs = make_inputs(own)
    with closing(load_backend(own, "onnxruntime")) as loaded:
        expected = loaded.infer(inputs)["fused"]
    have(ort, backend)
    with closing(load_backend(own, backend)) as loaded:
        np.testing.assert_array_equal(loaded.infer(inputs)["fused"], expected)


def test_cuda_computes_float32_in_float32(ort, own):
    have(ort, "onnxruntime-cuda")
    for backend in ("onnxruntime-cuda", "onnxruntime"):
        load_backend(own, backend).close()
        assert ort.sessions[-1].asked[0] == ("CUDAExecutionProvider", {"use_tf32": "0"})
    assert ort.sessions[-1].asked[1:] == [("CPUExecutionProvider", {})]
    assert not (own.path / ENGINES_FOLDER).exists()


def test_tensorrt_caches_engines_under_a_unique_name(ort, own, user_cache):
    have(ort, "onnxruntime-tensorrt")
    load_backend(own, "onnxruntime-tensorrt").close()
    prefix = graph_key(own)[:32]
    folder = the_cache(user_cache)
    assert folder.name.startswith("onnxruntime-tensorrt-")
    assert ort.sessions[0].asked[0][1] == {
        "trt_fp16_enable": "False",
        "trt_int8_enable": "False",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_engine_cache_prefix": prefix,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
    }
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [".lock", "cache.json", f"{prefix}_123_sm89.engine"]
    )
    assert find_engines(own) == []  # the cached engine is not one of the bundle's
    assert not (own.path / ENGINES_FOLDER).exists()
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {0o600}


def test_rtx_caches_kernels_in_a_unique_folder(ort, own, user_cache):
    have(ort, "onnxruntime-rtx")
    load_backend(own, "onnxruntime-rtx").close()
    assert ort.sessions[0].asked[0][1] == {"nv_runtime_cache_path": str(the_cache(user_cache))}


def test_graph_keys_are_unique_file_names(vif, exported, external_data_bundle, own, rehash):
    names = [
        graph_key(Bundle.open(p)) for p in (vif, exported("mef"), exported("plain"), external_data_bundle)
    ]
    assert len(set(names)) == 4
    rehash(own.path, lambda m: m["files"]["fusion.onnx"].update(sha256="../../" + "x" * 300))
    names.append(graph_key(Bundle.open(own.path)))
    assert len(set(names)) == 5
    assert all(re.fullmatch("[0-9a-f]{64}", name) for name in names)


def test_a_cache_is_for_one_backend_library_device_and_graph(own, exported, user_cache):
    def folder_of(*arguments):
        with closing(CompileCache.open(*arguments)) as cache:
            return cache.folder

    arguments = (own, "openvino", "openvino 1", "a CPU")
    folders = {folder_of(*arguments)}
    for i, other in enumerate((Bundle.open(exported("mef")), "openvino-bf16", "openvino 2", "another CPU")):
        folders.add(folder_of(*arguments[:i], other, *arguments[i + 1 :]))
    assert len(folders) == 5
    assert folder_of(*arguments) in folders
    assert {folder.parent for folder in folders} == {user_cache / "compiled"}


def test_one_session_at_a_time_uses_a_cache(own, user_cache, monkeypatch):
    """Another one would read or delete what is half written."""
    monkeypatch.setattr(compile_cache, "_LOCK_WAIT_S", 0.1)
    arguments = (own, "openvino", "openvino 1", "a CPU")
    with closing(CompileCache.open(*arguments)) as cache:
        (cache.folder / "half written").write_text("")
        line = (
            f"^{cache.folder}: another process compiles the same graph; openvino compiles it without a cache$"
        )
        with pytest.warns(RuntimeWarning, match=line):
            assert CompileCache.open(*arguments) is None
        assert (cache.folder / "half written").exists()
    with closing(CompileCache.open(*arguments)) as again:
        assert (again.folder / "half written").exists()  # `close` sealed it
        again.release()
        cache.close()  # seals and releases again


def test_preloading_libraries_prints_nothing(ort, own, capsys, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "tensorrt")
    (tmp_path / "tensorrt.py").write_text("print('loaded')\nraise OSError('libnvinfer.so')")
    monkeypatch.syspath_prepend(tmp_path)
    for backend in NAMES:
        have(ort, backend)
        load_backend(own, backend).close()
    assert capsys.readouterr().out == ""


# --- caches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["onnxruntime-tensorrt", "onnxruntime-rtx"])
def test_an_unchanged_cache_is_used_again(backend, ort, own):
    have(ort, backend)
    for _ in range(3):  # without a warning
        load_backend(own, backend).close()
        with closing(open_cache(own, backend)) as cache:
            assert len(cache._files()) == 1


DAMAGES = ["flip", "cut", "foreign", "link", "pipe", "no seal", "wrong seal", "odd seal", "pipe as seal"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_changed_cache_files_are_deleted(damage, ort, own, tmp_path, user_cache):
    have(ort, "onnxruntime-tensorrt")
    load_backend(own, "onnxruntime-tensorrt").close()
    folder = the_cache(user_cache)
    engine, seal = folder / f"{graph_key(own)[:32]}_123_sm89.engine", folder / "cache.json"
    if damage == "pipe":
        engine.unlink()
        os.mkfifo(engine)
    elif damage == "pipe as seal":
        seal.unlink()
        os.mkfifo(seal)
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(engine.read_bytes())
        engine.unlink()
        engine.symlink_to(tmp_path / "elsewhere")
    elif damage == "no seal":
        seal.unlink()
    elif damage.endswith("seal"):
        seal.write_text("[" * 100_000 if damage == "odd seal" else '{"files": [1]}')
    else:
        changed = {"flip": b"An engine", "cut": b"an engin", "foreign": b"code"}[damage]
        (folder / "other" if damage == "foreign" else engine).write_bytes(changed)
    with pytest.warns(RuntimeWarning, match=r"deleted 1 files that are damaged.*compiled again"):
        assert open_cache(own, "onnxruntime-tensorrt") is not None
    assert engine.exists() == (damage == "foreign")
    assert not (folder / "other").exists()
    if damage == "link":
        assert (tmp_path / "elsewhere").exists()


NOT_PRIVATE = "expected a folder of your own that only you can write to"


@pytest.mark.parametrize(
    ("obstacle", "problem"),
    [
        ("file", f"not a folder; {NOT_PRIVATE}"),
        ("link", f"a symbolic link; {NOT_PRIVATE}"),
        ("writable", f"has mode 0777, so that others can write to it; {NOT_PRIVATE}"),
        ("folder in it", "Is a directory"),
    ],
)
@pytest.mark.parametrize("backend", ["onnxruntime-tensorrt", "onnxruntime-rtx"])
def test_an_unusable_cache_folder_is_a_warning(backend, obstacle, problem, ort, own, tmp_path, user_cache):
    have(ort, backend)
    subject, elsewhere = user_cache, tmp_path / "elsewhere"
    elsewhere.mkdir()
    user_cache.parent.mkdir(exist_ok=True)
    if obstacle == "folder in it":
        with closing(open_cache(own, backend)) as cache:
            subject = cache.folder / "folder"
        subject.mkdir()
    elif obstacle == "file":
        user_cache.write_text("")
    elif obstacle == "link":
        user_cache.symlink_to(elsewhere)
    else:
        user_cache.mkdir()
        user_cache.chmod(0o777)
    with pytest.warns(RuntimeWarning) as caught:
        loaded = load_backend(own, backend)
    assert [str(warning.message) for warning in caught] == [
        f"{subject}: {problem}; {backend} compiles at each start"
    ]
    loaded.close()
    assert list(elsewhere.iterdir()) == []
    assert not any("cache" in key for key in ort.sessions[0].asked[0][1])


def test_a_cache_that_cannot_be_sealed_is_a_warning(ort, own, user_cache):
    have(ort, "onnxruntime-tensorrt")
    loaded = load_backend(own, "onnxruntime-tensorrt")
    shutil.rmtree(user_cache)
    with pytest.warns(RuntimeWarning, match="compiled again"):
        loaded.close()
    loaded.close()


# --- what is missing ------------------------------------------------------------------------------------------


GPU_ALONE = "pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps onnxruntime-gpu"
PLAIN_ALONE = "pip uninstall -y onnxruntime-gpu && pip install --force-reinstall --no-deps onnxruntime"


@pytest.mark.parametrize(
    ("backend", "versions", "installed", "command"),
    [
        (
            "onnxruntime-cuda",
            {"onnxruntime": "1.32.0"},
            "onnxruntime 1.32.0 with CPUExecutionProvider",
            f"pip install 'tcmoa[gpu]' && {GPU_ALONE}",
        ),
        (
            "onnxruntime-cuda",
            {"onnxruntime-gpu": "1.32.0"},
            "onnxruntime-gpu 1.32.0 with CPUExecutionProvider",
            f"pip install 'tcmoa[gpu]' && {GPU_ALONE}",
        ),
        (
            "onnxruntime-tensorrt",
            {"onnxruntime": "1.32.0"},
            "onnxruntime 1.32.0 with CPUExecutionProvider",
            f"pip install 'tcmoa[gpu,tensorrt10]' && {GPU_ALONE}",
        ),
        (
            "onnxruntime-rtx",
            {"onnxruntime": "1.32.0"},
            "onnxruntime 1.32.0 with CPUExecutionProvider",
            "pip install 'tcmoa[onnxruntime-rtx]'",
        ),
        (
            "onnxruntime-rtx",
            {"onnxruntime-gpu": "1.32.0"},
            "onnxruntime-gpu 1.32.0 with CPUExecutionProvider",
            f"pip install 'tcmoa[onnxruntime-rtx]' && {PLAIN_ALONE}",
        ),
        (
            "onnxruntime-cuda",
            {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.0"},
            "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.0, which overwrite each other",
            f"pip install 'tcmoa[gpu]' && {GPU_ALONE}",
        ),
    ],
)
def test_a_missing_provider_error_says_what_is_installed_and_what_to_install(
    backend, versions, installed, command, ort, own, monkeypatch
):
    ort.versions = versions
    monkeypatch.setattr(install, "_find_checkout", lambda: (None, False))
    assert refusal(own, backend) == (
        f"backend {backend}: installed is {installed}; expected ONNX Runtime with {NAMES[backend]}. Run `{command}` "
        f"(onnxruntime and onnxruntime-gpu must not both be installed)."
    )
    assert ort.sessions == []
    assert not (own.path / ENGINES_FOLDER).exists()


OF_TENSORRT = (
    "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void onnxruntime::python::"
    "RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) Please install "
    "TensorRT libraries as mentioned in the GPU requirements page, make sure they're in the PATH or LD_LIBRARY_PATH, "
    "and that your GPU is supported.\n"
)
"""What ONNX Runtime 1.31 raises where libnvinfer.so.10 is missing; it ends after 200 characters at "Please install"."""


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """Function that makes a provider's library that needs missing ones, in place of ONNX Runtime's."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")

    def compile_library(path, soname, *needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [
            compiler,
            "-shared",
            "-nostdlib",
            "-x",
            "c",
            "/dev/null",
            f"-Wl,-soname,{soname}",
            "-o",
            path,
        ]
        subprocess.run([*command, "-Wl,--no-as-needed", "-x", "none", *needed], check=True)
        return path

    def make(provider, *missing):
        capi = tmp_path / "onnxruntime" / "capi"
        stubs = [compile_library(tmp_path / "gone" / name, name) for name in missing]
        compile_library(capi / "libonnxruntime_providers_shared.so", "libonnxruntime_providers_shared.so")
        compile_library(capi / f"libonnxruntime_providers_{provider}.so", f"providers_{provider}.so", *stubs)
        monkeypatch.setattr(onnxruntime, "__file__", str(capi.parent / "__init__.py"))

    make.compile = compile_library
    return make


@pytest.mark.parametrize(
    ("backend", "library", "versions", "what", "remedy"),
    [
        (
            "onnxruntime-tensorrt",
            "libnvinfer.so.10",
            {"onnxruntime-gpu": "1.31.1", "tensorrt": "11.4.0.106"},
            "libnvinfer.so.10 is missing (installed is tensorrt 11.4.0.106)",
            f"Run `pip install 'tcmoa[gpu,tensorrt10]' && {GPU_ALONE}` in an environment without the extra tensorrt, "
            "which is another version,",
        ),
        (
            "onnxruntime-tensorrt",
            "libcudnn.so.9",
            {"onnxruntime-gpu": "1.31.1"},
            "libcudnn.so.9 is missing",
            f"Run `pip install 'tcmoa[gpu,tensorrt10]' && {GPU_ALONE}`,",
        ),
        (
            "onnxruntime-cuda",
            "libcublasLt.so.13",
            {"onnxruntime-gpu": "1.31.1"},
            "libcublasLt.so.13 is missing",
            f"Run `pip install 'tcmoa[gpu]' && {GPU_ALONE}`,",
        ),
        (
            "onnxruntime-cuda",
            "libcuda.so.1",
            {"onnxruntime-gpu": "1.31.1"},
            "libcuda.so.1 is missing",
            "Install the NVIDIA driver,",
        ),
    ],
)
def test_a_library_that_a_provider_lacks_is_named_with_what_brings_it(
    backend, library, versions, what, remedy, ort, own, monkeypatch, libraries
):
    have(ort, backend)
    ort.versions = versions
    ort.fails = RuntimeError(OF_TENSORRT)
    monkeypatch.setattr(install, "_find_checkout", lambda: (None, False))
    libraries(PROVIDERS[backend].library, library)
    assert refusal(own, backend) == (
        f"{own.graph_path}: ONNX Runtime {onnxruntime.__version__} cannot run the graph on {NAMES[backend]} alone "
        f"(Please install TensorRT libraries as mentioned in the GPU requirements page, make sure they're in the PATH "
        f"or LD_LIBRARY_PATH, and that your GPU is supported.); the library {what}. {remedy} or use "
        f"backend='onnxruntime'."
    )


def test_a_provider_whose_libraries_are_there_lacks_none(ort, own, libraries):
    have(ort, "onnxruntime-cuda")
    ort.started = ["CPUExecutionProvider"]
    libraries("cuda")
    assert refusal(own, "onnxruntime-cuda").endswith(
        "did not start; the session would run on CPUExecutionProvider; the GPU, its driver or a library may be missing."
        " Run `tcmoa doctor`, or use backend='onnxruntime'."
    )


@pytest.mark.parametrize("backend", NAMES)
def test_a_session_that_falls_back_to_the_cpu_is_an_error(backend, ort, own):
    have(ort, backend)
    ort.started = ["CPUExecutionProvider"]
    text = refusal(own, backend)
    assert f"{NAMES[backend]} of ONNX Runtime" in text
    assert "did not start; the session would run on CPUExecutionProvider" in text
    assert "tcmoa doctor" in text


@pytest.mark.parametrize("backend", NAMES)
def test_a_provider_that_fails_is_an_error(backend, ort, own):
    have(ort, backend)
    ort.fails = RuntimeError("\nfallback to CPU EP has been explicitly disabled by the user.\nmore")
    text = refusal(own, backend)
    assert f"on {NAMES[backend]} alone (fallback to CPU EP has been explicitly disabled by the user.)" in text


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_the_real_onnx_runtime_does_not_fall_back_to_the_cpu(backend, ort, own, monkeypatch):
    """It knows these two providers by name, creates a session without them, and would run it on the CPU."""
    have(ort, backend)
    if NAMES[backend] in onnxruntime.capi._pybind_state.get_available_providers():
        pytest.skip("the provider is installed")
    monkeypatch.setattr(onnxruntime, "InferenceSession", RealSession)
    assert "fallback to CPU EP has been explicitly disabled" in refusal(own, backend)


# --- bf16, and `onnxruntime` ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", NAMES)
def test_bf16_needs_a_gpu(backend, ort, own, rehash):
    rehash(own.path, lambda manifest: manifest.update(precision="bf16"))
    bundle = Bundle.open(own.path)
    with pytest.raises(BundleError, match="cannot run on the CPU"):
        load_backend(bundle, "onnxruntime")
    have(ort, backend)
    load_backend(bundle, backend).close()


def test_onnxruntime_falls_back_to_the_cpu_with_a_warning(ort, own, capsys):
    have(ort, "onnxruntime-cuda")
    ort.fails = RuntimeError("CUDA failure 35")
    with pytest.warns(RuntimeWarning, match="did not start .CUDA failure 35.; falling back to the CPU"):
        loaded = load_backend(own, "onnxruntime")
    assert loaded.name == "onnxruntime (CPU)"
    loaded.close()
    assert capsys.readouterr().out == ""


def test_onnxruntime_does_not_fall_back_to_the_cpu_for_bf16(ort, own, rehash):
    rehash(own.path, lambda manifest: manifest.update(precision="bf16"))
    have(ort, "onnxruntime-cuda")
    ort.fails = RuntimeError("CUDA failure 35")
    with pytest.raises(BundleError, match="CUDA failure 35"):
        load_backend(Bundle.open(own.path), "onnxruntime")


# --- TensorRT-RTX as a plugin ---------------------------------------------------------------------------------


@pytest.fixture
def plugin(ort, monkeypatch):
    """The plugin package beside onnxruntime, with two GPUs once it is registered."""
    ort.versions["onnxruntime-ep-nv-tensorrt-rtx-cu13"] = "0.4.0"
    made = types.SimpleNamespace(
        gpus=[types.SimpleNamespace(ep_name="nv_tensorrt_rtx", number=n) for n in range(2)],
        registered=[],
        get_ep_name=lambda: "nv_tensorrt_rtx",
        get_library_path=lambda: "/plugin.so",
    )
    cpu = types.SimpleNamespace(ep_name="CPUExecutionProvider")
    monkeypatch.setitem(sys.modules, PLUGIN, made)
    monkeypatch.setattr(
        onnxruntime,
        "register_execution_provider_library",
        lambda *arguments: made.registered.append(arguments),
        raising=False,
    )
    monkeypatch.setattr(
        onnxruntime, "get_ep_devices", lambda: [cpu, *(made.gpus if made.registered else ())], raising=False
    )
    return made


def test_the_plugin_is_registered_once_and_its_first_gpu_used(plugin, ort, own):
    for _ in range(2):
        with closing(load_backend(own, "onnxruntime-rtx")) as loaded:
            assert loaded.name == "onnxruntime (TensorRT-RTX)"
        session = ort.sessions[-1]
        assert session.options.devices == plugin.gpus[:1]
        assert session.options.settings.keys() == {"nv_runtime_cache_path"}
        assert session.options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
    assert plugin.registered == [("nv_tensorrt_rtx", "/plugin.so")]


def test_the_plugin_without_a_gpu_is_missing(plugin, own):
    plugin.gpus = []
    assert "onnxruntime-ep-nv-tensorrt-rtx 0.4.0 finds no GPU" in refusal(own, "onnxruntime-rtx")


def test_a_plugin_that_cannot_be_registered_is_missing(plugin, own):
    def fail():
        raise OSError("libtensorrt_rtx.so.1: not found")

    plugin.get_library_path = fail
    text = refusal(own, "onnxruntime-rtx")
    assert "cannot be registered with ONNX Runtime" in text
    assert "libtensorrt_rtx.so.1: not found" in text
    assert "pip install -U " in text
    assert "[onnxruntime-rtx]" in text


def test_a_plugin_without_a_driver_needs_the_driver(plugin, own):
    def fail(*_):
        raise RuntimeError(
            "[ONNXRuntimeError] : 1 : FAIL : Failed to load library /home/someone/environments/night/lib/python3.11/"
            "site-packages/onnxruntime_ep_nv_tensorrt_rtx/libonnxruntime_providers_nv_tensorrt_rtx.so with error: "
            "libcuda.so.1: cannot open shared object file: No such file or directory"
        )

    plugin.get_library_path = fail
    text = refusal(own, "onnxruntime-rtx")
    assert "(Failed to load library /home" in text
    assert text.endswith(
        "libcuda.so.1: cannot open shared object file: No such file or directory). Install the NVIDIA driver, or use "
        "backend='onnxruntime'."
    )


def test_a_plugin_with_a_driver_that_is_too_old_needs_a_newer_one(plugin, own):
    def fail(*_):
        raise RuntimeError(
            "[ONNXRuntimeError] : 1 : FAIL : Failed to load library /plugin.so with error: /plugin.so: "
            "undefined symbol: cuCtxCreate_v4"
        )

    plugin.get_library_path = fail
    text = refusal(own, "onnxruntime-rtx")
    assert text.endswith(
        " (the NVIDIA driver has no function cuCtxCreate_v4). Install a newer NVIDIA driver, or use "
        "backend='onnxruntime'."
    )


def test_the_plugins_own_cuda_runtime_is_loaded_first(tmp_path, monkeypatch, libraries):
    """Its wheel carries libcudart.so.13.4.36 and loads only what needs libcudart.so.13; here the number is another."""
    folder = tmp_path / PLUGIN
    cudart = libraries.compile(folder / "libcudart.so.999.4.36", "libcudart.so.999")
    needing = libraries.compile(folder / "libplugin.so", "libplugin.so", cudart)
    (folder / "__init__.py").write_text("")
    monkeypatch.delitem(sys.modules, PLUGIN, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OSError, match=r"libcudart\.so\.999: cannot open shared object file"):
        ctypes.CDLL(str(needing))
    for _ in range(2):
        preload_bundled_cudart(PLUGIN)
        ctypes.CDLL(str(needing))


def test_nothing_is_loaded_where_the_plugin_is_not_installed():
    preload_bundled_cudart("onnxruntime_ep_of_nobody")


def test_an_onnxruntime_without_plugins_is_too_old(plugin, own, monkeypatch):
    monkeypatch.delattr(onnxruntime, "register_execution_provider_library")
    assert "[onnxruntime-rtx]" in refusal(own, "onnxruntime-rtx")


@pytest.mark.skipif(
    not hasattr(onnxruntime, "register_execution_provider_library"), reason="this ONNX Runtime has no plugins"
)
def test_the_real_onnx_runtime_has_the_plugin_functions():
    assert all(hasattr(device, "ep_name") for device in onnxruntime.get_ep_devices())
    assert hasattr(RealOptions, "add_provider_for_devices")
    with pytest.raises(Exception, match="/nowhere"):
        onnxruntime.register_execution_provider_library("nowhere", "/nowhere.so")


# --- on a GPU -------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("backend", NAMES)
def test_frames_of_a_real_provider_equal_those_of_the_cpu(backend, own):
    """Not run by this project yet, for lack of a GPU."""
    try:
        loaded = OnnxRuntimeBackend(own, backend=backend)
    except MissingError as error:
        pytest.skip(str(error))
    inputs = make_inputs(own)
    graph = RealSession(own.read_graph(), providers=["CPUExecutionProvider"])
    (expected,) = graph.run(["fused"], inputs)
    with closing(loaded):
        got = loaded.infer(inputs)["fused"]
    error = np.square(got.astype(np.float64) - expected).mean()
    psnr = 10 * np.log10(255**2 / max(error, 1e-12))
    print(f"{loaded.name}: {psnr:.1f} dB")
    assert psnr >= 50  # the TensorRT providers may use TF32
