"""ONNX Runtime's GPU providers: what they are asked for, and what happens without them.

No GPU is used: ONNX Runtime is made to say that it has a provider, what a session is asked for is recorded, and
the graph runs on the CPU. Tests that only check real providers are marked `gpu`.
"""

import importlib.metadata
import shutil
import sys
import types
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tcmoa_runtime import Bundle, BundleError, MissingError
from tcmoa_runtime.backends.compile_cache import CompileCache, graph_prefix
from tcmoa_runtime.backends.onnxruntime import OnnxRuntimeBackend
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.backends.providers import PROVIDERS
from tcmoa_runtime.engine import ENGINES_FOLDER, find_engines

NAMES = {
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "onnxruntime-rtx": "NvTensorRTRTXExecutionProvider",
}
PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
RealSession, RealOptions = onnxruntime.InferenceSession, onnxruntime.SessionOptions


@dataclass
class Ort:
    """What ONNX Runtime is made to say, and what it was asked."""

    available: list = field(default_factory=lambda: ["CPUExecutionProvider"])
    started: list | None = None  # providers that sessions say they have; None: those that were asked for
    versions: dict = field(default_factory=lambda: {"onnxruntime": "1.32.0"})
    fails: Exception | None = None  # of a session that is not on the CPU alone
    sessions: list = field(default_factory=list)


class Options(RealOptions):
    """Session options that take devices of a plugin which is not there."""

    devices, settings = (), None

    def add_provider_for_devices(self, devices, settings):
        self.devices, self.settings = devices, settings


@pytest.fixture
def ort(monkeypatch):
    said = Ort()

    class Session:
        """Writes into a cache as the providers do: TensorRT when it is made, TensorRT-RTX when it ends."""

        real = runtime_cache = None

        def __init__(self, source, options, providers=None, **rest):
            self.asked = [p if isinstance(p, tuple) else (p, {}) for p in providers or ()]
            if options.devices:
                self.asked = [(options.devices[0].ep_name, options.settings)]
            said.sessions.append(types.SimpleNamespace(asked=self.asked, options=options, rest=rest))
            name, settings = self.asked[0]
            if said.fails is not None and name != "CPUExecutionProvider":
                raise said.fails
            if settings.get("trt_engine_cache_enable") == "True":
                engine = settings["trt_engine_cache_prefix"] + "_123_sm89.engine"
                Path(settings["trt_engine_cache_path"], engine).write_bytes(b"an engine")
            self.runtime_cache = settings.get("nv_runtime_cache_path")
            self.real = RealSession(source, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return [name for name, _ in self.asked] if said.started is None else said.started

        def __getattr__(self, name):
            return getattr(self.real, name)

        def __del__(self):
            if self.runtime_cache is not None:
                Path(self.runtime_cache, "kernels").write_bytes(b"kernels")

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: said.available)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn"), raising=False)
    monkeypatch.setitem(sys.modules, PLUGIN, None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    def version(name):
        if name not in said.versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return said.versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return said


@pytest.fixture
def own(vif, tmp_path):
    return Bundle.open(shutil.copytree(vif, tmp_path / "own"))


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


# --- what a session is asked for ------------------------------------------------------------------------------


def test_every_provider_is_a_backend():
    assert {backend: provider.name for backend, provider in PROVIDERS.items()} == NAMES


@pytest.mark.parametrize("backend", NAMES)
def test_only_the_provider_that_was_named_is_asked_for(backend, ort, own):
    have(ort, backend)
    with closing(load_backend(own, backend, threads=3)) as loaded:
        (session,) = ort.sessions
        assert [name for name, _ in session.asked] == [NAMES[backend]]
        assert session.options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        assert session.rest == {"enable_fallback": 0}
        assert session.options.intra_op_num_threads == 3
        assert loaded.name == f"onnxruntime ({PROVIDERS[backend].label})"


@pytest.mark.parametrize("backend", NAMES)
def test_frames_go_through_it(backend, ort, own):
    inputs = make_inputs(own)
    with closing(load_backend(own, "onnxruntime")) as loaded:
        wanted = loaded.infer(inputs)["fused"]
    have(ort, backend)
    with closing(load_backend(own, backend)) as loaded:
        np.testing.assert_array_equal(loaded.infer(inputs)["fused"], wanted)


def test_cuda_computes_float32_in_float32(ort, own):
    have(ort, "onnxruntime-cuda")
    for backend in ("onnxruntime-cuda", "onnxruntime"):
        load_backend(own, backend).close()
        assert ort.sessions[-1].asked[0] == ("CUDAExecutionProvider", {"use_tf32": "0"})
    assert ort.sessions[-1].asked[1:] == [("CPUExecutionProvider", {})]
    assert not (own.path / ENGINES_FOLDER).exists()


def test_tensorrt_keeps_its_engines_under_a_name_of_their_own(ort, own):
    have(ort, "onnxruntime-tensorrt")
    load_backend(own, "onnxruntime-tensorrt").close()
    prefix = f"{own.graph_name}-{own.files['fusion.onnx'].sha256[:12]}"
    folder = own.path / ENGINES_FOLDER / f"onnxruntime-tensorrt-{prefix}"
    assert ort.sessions[0].asked[0][1] == {
        "trt_fp16_enable": "False",
        "trt_int8_enable": "False",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_engine_cache_prefix": prefix,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
    }
    assert sorted(p.name for p in folder.iterdir()) == ["cache.json", f"{prefix}_123_sm89.engine"]
    assert find_engines(own) == []  # ours are others


def test_rtx_keeps_its_kernels_in_a_folder_of_their_own(ort, own):
    have(ort, "onnxruntime-rtx")
    load_backend(own, "onnxruntime-rtx").close()
    folder = own.path / ENGINES_FOLDER / f"onnxruntime-rtx-{graph_prefix(own)}"
    assert ort.sessions[0].asked[0][1] == {"nv_runtime_cache_path": str(folder)}


def test_prefixes_tell_graphs_apart_and_are_file_names(vif, exported, in_two_files, own, rehash):
    names = [graph_prefix(Bundle.open(p)) for p in (vif, exported("mef"), exported("plain"), in_two_files)]
    assert len(set(names)) == 4
    for change in (
        lambda m: m["files"]["fusion.onnx"].update(sha256="0" * 64),
        lambda m: m["graph"].update(name="../../" + "x" * 300),
    ):
        rehash(own.path, change)
        names.append(graph_prefix(Bundle.open(own.path)))
    assert len(set(names)) == 6
    assert all(len(name) < 100 and Path(name).name == name and "." not in name for name in names)


def test_what_is_loaded_before_it_prints_nothing(ort, own, capsys, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "tensorrt")
    (tmp_path / "tensorrt.py").write_text("print('loaded')\nraise OSError('libnvinfer.so')")
    monkeypatch.syspath_prepend(tmp_path)
    for backend in NAMES:
        have(ort, backend)
        load_backend(own, backend).close()
    assert capsys.readouterr().out == ""


# --- caches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["onnxruntime-tensorrt", "onnxruntime-rtx"])
def test_a_cache_is_used_as_it_was_left(backend, ort, own):
    have(ort, backend)
    for _ in range(3):  # without a warning
        load_backend(own, backend).close()
        with closing(CompileCache.open(own, backend)) as cache:
            assert len(cache._files()) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "foreign", "link", "no seal", "wrong seal", "odd seal"])
def test_what_is_not_as_it_was_left_is_deleted(damage, ort, own, tmp_path):
    have(ort, "onnxruntime-tensorrt")
    load_backend(own, "onnxruntime-tensorrt").close()
    folder = own.path / ENGINES_FOLDER / f"onnxruntime-tensorrt-{graph_prefix(own)}"
    engine, seal = folder / f"{graph_prefix(own)}_123_sm89.engine", folder / "cache.json"
    if damage == "link":
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
        assert CompileCache.open(own, "onnxruntime-tensorrt") is not None
    assert engine.exists() == (damage == "foreign")
    assert not (folder / "other").exists()
    if damage == "link":
        assert (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("obstacle", ["file", "link", "folder in it"])
@pytest.mark.parametrize("backend", ["onnxruntime-tensorrt", "onnxruntime-rtx"])
def test_a_bundle_that_cannot_be_written_to_loads_without_a_cache(backend, obstacle, ort, own, tmp_path):
    have(ort, backend)
    folder = own.path / ENGINES_FOLDER
    if obstacle == "file":
        folder.write_text("")
    elif obstacle == "link":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        (folder / f"{backend}-{graph_prefix(own)}" / "folder").mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match=f"{backend} compiles at each start"):
        loaded = load_backend(own, backend)
    loaded.close()
    assert not any("cache" in key for key in ort.sessions[0].asked[0][1])


def test_a_cache_that_cannot_be_sealed_any_more_only_warns(ort, own):
    have(ort, "onnxruntime-tensorrt")
    loaded = load_backend(own, "onnxruntime-tensorrt")
    shutil.rmtree(own.path / ENGINES_FOLDER)
    with pytest.warns(RuntimeWarning, match="compiled again"):
        loaded.close()
    loaded.close()


# --- what is missing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "versions", "words"),
    [
        (
            "onnxruntime-cuda",
            {"onnxruntime": "1.32.0"},
            [
                "onnxruntime 1.32.0 with CPUEx",
                "`pip uninstall onnxruntime`, then `pip install 'onnxruntime-gpu[",
            ],
        ),
        (
            "onnxruntime-cuda",
            {"onnxruntime-gpu": "1.32.0"},
            ["onnxruntime-gpu 1.32.0 with", "Run `pip install"],
        ),
        ("onnxruntime-tensorrt", {"onnxruntime": "1.32.0"}, ["TensorrtExecutionProvider", "tensorrt` ("]),
        (
            "onnxruntime-rtx",
            {"onnxruntime": "1.32.0"},
            ["Run `pip install 'onnxruntime>=1.24' onnxruntime-ep-nv-tensorrt-rtx`"],
        ),
        (
            "onnxruntime-rtx",
            {"onnxruntime-gpu": "1.32.0"},
            ["`pip uninstall onnxruntime-gpu`, then `pip inst"],
        ),
        (
            "onnxruntime-cuda",
            {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.0"},
            [
                "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.0, which overwrite each other",
                "uninstall onnxruntime onn",
            ],
        ),
    ],
)
def test_a_missing_provider_says_what_is_there_and_what_to_install(backend, versions, words, ort, own):
    ort.versions = versions
    text = refusal(own, backend)
    for word in (NAMES[backend], "must not both be installed", *words):
        assert word in text
    assert ort.sessions == []
    assert not (own.path / ENGINES_FOLDER).exists()


@pytest.mark.parametrize("backend", NAMES)
def test_the_cpu_instead_is_an_error(backend, ort, own):
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
def test_the_real_onnx_runtime_does_not_go_on_on_the_cpu(backend, ort, own, monkeypatch):
    """It knows these two by name, builds a session without them, and would run it on the CPU."""
    have(ort, backend)
    if NAMES[backend] in onnxruntime.capi._pybind_state.get_available_providers():
        pytest.skip("this one is really there")
    monkeypatch.setattr(onnxruntime, "InferenceSession", RealSession)
    assert "fallback to CPU EP has been explicitly disabled" in refusal(own, backend)


# --- bf16, and `onnxruntime` ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", NAMES)
def test_bf16_is_for_gpus(backend, ort, own, rehash):
    rehash(own.path, lambda manifest: manifest.update(precision="bf16"))
    bundle = Bundle.open(own.path)
    with pytest.raises(BundleError, match="cannot run on the CPU"):
        load_backend(bundle, "onnxruntime")
    have(ort, backend)
    load_backend(bundle, backend).close()


def test_onnxruntime_goes_on_on_the_cpu_and_says_so(ort, own, capsys):
    have(ort, "onnxruntime-cuda")
    ort.fails = RuntimeError("CUDA failure 35")
    with pytest.warns(RuntimeWarning, match="did not start .CUDA failure 35.; falling back to the CPU"):
        loaded = load_backend(own, "onnxruntime")
    assert loaded.name == "onnxruntime (CPU)"
    loaded.close()
    assert capsys.readouterr().out == ""


def test_onnxruntime_has_no_cpu_for_bf16(ort, own, rehash):
    rehash(own.path, lambda manifest: manifest.update(precision="bf16"))
    have(ort, "onnxruntime-cuda")
    ort.fails = RuntimeError("CUDA failure 35")
    with pytest.raises(BundleError, match="CUDA failure 35"):
        load_backend(Bundle.open(own.path), "onnxruntime")


# --- TensorRT-RTX as a plugin ---------------------------------------------------------------------------------


@pytest.fixture
def plugin(ort, monkeypatch):
    """The plugin package beside the plain onnxruntime, with two GPUs once it is registered."""
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
    assert "pip install -U onnxruntime onnxruntime-ep-nv-tensorrt-rtx" in text


def test_an_onnxruntime_that_knows_no_plugins_is_too_old(plugin, own, monkeypatch):
    monkeypatch.delattr(onnxruntime, "register_execution_provider_library")
    assert "'onnxruntime>=1.24'" in refusal(own, "onnxruntime-rtx")


@pytest.mark.skipif(
    not hasattr(onnxruntime, "register_execution_provider_library"), reason="this ONNX Runtime has no plugins"
)
def test_the_real_onnx_runtime_has_what_a_plugin_needs():
    assert all(hasattr(device, "ep_name") for device in onnxruntime.get_ep_devices())
    assert hasattr(RealOptions, "add_provider_for_devices")
    with pytest.raises(Exception, match="/nowhere"):
        onnxruntime.register_execution_provider_library("nowhere", "/nowhere.so")


# --- on a GPU -------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("backend", NAMES)
def test_frames_of_a_real_provider_are_those_of_the_cpu(backend, own):
    """Never run by the project yet: it had no GPU."""
    try:
        loaded = OnnxRuntimeBackend(own, backend=backend)
    except MissingError as error:
        pytest.skip(str(error))
    inputs = make_inputs(own)
    graph = RealSession(own.read_graph(), providers=["CPUExecutionProvider"])
    (wanted,) = graph.run(["fused"], inputs)
    with closing(loaded):
        got = loaded.infer(inputs)["fused"]
    error = np.square(got.astype(np.float64) - wanted).mean()
    psnr = 10 * np.log10(255**2 / max(error, 1e-12))
    print(f"{loaded.name}: {psnr:.1f} dB")
    assert psnr >= 50  # the TensorRT providers may use TF32
