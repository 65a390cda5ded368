"""Engines by a simulated builder of TensorRT, and lists of kernels by log or inspector."""

import contextlib
import json
import os
import shutil
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import onnx
import pytest

import engine_pieces
from build_pieces import (
    FP16,
    STEM,
    assert_one_line,
    build_and_listen,
    build_with,
    names_in,
    rtx,
)
from engine_pieces import SIZE
from micro_model import scrambled
from tcmoa import Sizes
from tcmoa_export.engines import build, builder
from tcmoa_export.engines.build import build_engine
from tcmoa_export.engines.kernel_lists import kernels_from_log
from tcmoa_export.engines.kernels import AuditError
from tcmoa_runtime import Bundle, InputError, MissingError
from tcmoa_runtime.cli.engine_rows import engine_rows
from tcmoa_runtime.cli.inspect import CheckedEngine, checked_rows
from tcmoa_runtime.engine_folders import ENGINES_FOLDER, find_engines
from tcmoa_runtime.gpu.cuda import CudaDevice
from tcmoa_runtime.options.build import BuildOptions


@pytest.fixture
def tensorrt(monkeypatch, fake_gpu):
    """Simulate `tensorrt`, and return the calls of its config."""
    module, calls = engine_pieces.tensorrt_from(rtx)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return calls


LOCAL = "tensorrt-11.0.0.12-local-fp16"


@pytest.mark.usefixtures("remembered_builds")
def test_tensorrt_builds_for_the_gpu_of_this_machine(bundle, tensorrt):
    engine = build_with(bundle, flavor="tensorrt")
    assert (engine.path.name, engine.flavor, engine.targets) == (f"{LOCAL}.engine", "tensorrt", ())
    assert engine.manifest["gpu"] == {"name": "NVIDIA Test 1", "compute_capability": "8.6"}
    assert engine.manifest["fused_attentions"] == 4
    assert engine.mismatch("tensorrt", "11.0.0.12", "8.6") is None
    assert engine.mismatch("tensorrt", "11.0.0.12", "8.9") is not None
    assert ("hardware_compatibility_level", "none") in tensorrt
    assert build_and_listen(bundle, flavor="tensorrt")[1] == ["up to date"]


@pytest.mark.usefixtures("remembered_builds")
def test_tensorrt_keeps_its_timings(bundle, tensorrt, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build_with(bundle, flavor="tensorrt")
    assert [c for c in tensorrt if "timing" in c[0]] == [
        ("create_timing_cache", b""),
        ("set_timing_cache", b"", False),
    ]
    assert names_in(bundle) == sorted([f"{LOCAL}.engine", f"{LOCAL}.json"])
    (path,) = (tmp_path / "cache" / "tcmoa" / "timings").iterdir()
    assert path.read_bytes() == b"+1 build"
    tensorrt.clear()
    build_with(bundle, flavor="tensorrt", rebuild=True)
    assert [c for c in tensorrt if "timing" in c[0]] == [
        ("create_timing_cache", b"+1 build"),
        ("set_timing_cache", b"+1 build", False),
    ]
    assert path.read_bytes() == b"+1 build+1 build"
    assert find_engines(bundle) == [bundle.path / ENGINES_FOLDER / f"{LOCAL}.engine"]


@pytest.mark.usefixtures("remembered_builds")
def test_timings_that_are_no_file_are_not_waited_for(bundle, tensorrt, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build_with(bundle, flavor="tensorrt")
    (path,) = (tmp_path / "cache" / "tcmoa" / "timings").iterdir()
    path.unlink()
    os.mkfifo(path)
    tensorrt.clear()
    with pytest.warns(RuntimeWarning) as caught:
        build_with(bundle, flavor="tensorrt", rebuild=True)
    assert [str(warning.message) for warning in caught] == [
        f"{path}: a named pipe; expected a regular file; kernels are timed again"
    ]
    assert ("create_timing_cache", b"") in tensorrt


class Inspecting:
    """In place of TensorRT-RTX's `Runtime`: loads every engine, and lists the kernels of the log in the JSON form.

    The first name differs, which marks the source of the list.
    """

    def __init__(self, lines, change=lambda text: text):
        self.lines, self.change, self.forms = lines, change, []

    def __call__(self, logger):
        return types.SimpleNamespace(deserialize_cuda_engine=lambda _: self)

    def create_engine_inspector(self):
        return self

    def get_engine_information(self, form):
        self.forms.append(form)
        layers = [as_layer(kernel) for kernel in kernels_from_log(self.lines)]
        layers[0]["Name"] = "from the inspector"
        return self.change(json.dumps({"Layers": layers}))


@pytest.fixture
def unlisted(fake_gpu, monkeypatch):
    """A builder on a machine with a GPU whose log lists no kernels; returns the lines that it would have had."""
    kept = []

    def refuse(lines):
        kept[:] = lines
        raise AuditError("lists no kernels", subject="the builder's log")

    monkeypatch.setattr(builder, "kernels_from_log", refuse)
    monkeypatch.setattr(CudaDevice, "active", lambda _: contextlib.nullcontext())
    return kept


@pytest.mark.usefixtures("remembered_builds")
def test_the_builders_log_is_read_first_where_a_gpu_could_load_the_engine(bundle, fake_gpu, monkeypatch):
    """No inspector has been seen, and its JSON may be of another form."""
    monkeypatch.setattr(rtx, "Runtime", None)
    engine = build_engine(bundle)
    assert engine.manifest["fused_attentions"] == engine.manifest["attentions"] > 0


@pytest.mark.usefixtures("remembered_builds")
@pytest.mark.parametrize("raw", [False, True])
def test_the_inspector_is_asked_where_the_log_lists_no_kernels(raw, bundle, unlisted, monkeypatch):
    """The lists of nodes are separated by 0x1E, which strict JSON takes as an escape only."""
    runtime = Inspecting(unlisted, lambda text: text.replace("\\u001e", "\x1e") if raw else text)
    monkeypatch.setattr(rtx, "Runtime", runtime)
    engine = build_engine(bundle)
    assert runtime.forms == [rtx.LayerInformationFormat.JSON]
    assert engine.manifest["list"][0]["name"] == "from the inspector"
    assert engine.manifest["fused_attentions"] == engine.manifest["attentions"] > 0


@pytest.mark.usefixtures("remembered_builds")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: '{"Layers": [1]}', "the engine inspector's list: an unknown form"),
        (lambda _: b"\xff".decode(), "the engine's inspector: failed ('utf-8' codec can't decode"),
        (None, "the engine's inspector: cannot load the engine on NVIDIA Test 1 ("),
    ],
    ids=["another form", "no text", "another GPU"],
)
def test_an_engine_that_cannot_be_audited_is_written_with_allow_unfused_only(
    change, words, bundle, unlisted, monkeypatch
):
    refusing = types.SimpleNamespace(deserialize_cuda_engine=lambda _: None)
    monkeypatch.setattr(
        rtx, "Runtime", (lambda _: refusing) if change is None else Inspecting(unlisted, change)
    )
    start = f"{bundle.path}: the kernels of the engine cannot be audited: the builder's log: lists no kernels; {words}"
    with pytest.raises(AuditError) as error:
        build_engine(bundle)
    assert_one_line(
        error, start, "No engine was written. Please report it, or write the engine nevertheless with"
    )
    assert names_in(bundle) == []
    with pytest.warns(RuntimeWarning) as caught:
        engine = build_with(bundle, allow_unfused=True)
    (text,) = (str(warning.message) for warning in caught)
    assert text.startswith(start)
    assert text.endswith("; it is written nevertheless")
    assert engine.manifest["audit_error"].startswith("the builder's log: lists no kernels; ")
    assert dict(engine_rows(engine))["kernels"] == f"not audited: {engine.manifest['audit_error']}"
    (_, (_, shown), *_) = checked_rows(CheckedEngine(engine.path.name, engine, None))
    assert shown.startswith("not audited: ")


def test_two_builds_in_one_process_take_turns(bundle):
    """They share a logger: TensorRT keeps the first one that it is given."""
    first, second = (BuildOptions(targets=(target,)) for target in ("sm86", "sm89"))
    other = Bundle.open(shutil.copytree(bundle.path, bundle.path.with_name("other")))
    with ThreadPoolExecutor(2) as pool:
        engines = list(pool.map(build_engine, (bundle, other), (first, second)))
    kernels = [engine.manifest["kernels"] for engine in engines]
    assert kernels[0] == kernels[1] > 20


def as_layer(kernel):
    """Return a kernel in the inspector's form."""

    def tensors(views):
        return [{"Name": v.name, "Dimensions": list(v.shape), "Datatype": v.dtype} for v in views]

    return {
        "Name": kernel.name,
        "LayerType": kernel.layer,
        "Inputs": tensors(kernel.inputs),
        "Constants": tensors(kernel.constants),
        "Outputs": tensors(kernel.outputs),
        "Metadata": "".join(f"[ONNX Layer: {node}]" for node in kernel.nodes),
    }


@pytest.mark.usefixtures("remembered_builds")
def test_tensorrt_without_timings(bundle, tensorrt):
    build_with(bundle, flavor="tensorrt", timing_cache=False)
    assert not [c for c in tensorrt if "timing" in c[0]]
    assert names_in(bundle) == [f"{LOCAL}.engine", f"{LOCAL}.json"]


@pytest.mark.usefixtures("remembered_builds")
def test_tensorrt_builds_for_other_gpus_too(bundle, tensorrt):
    engine = build_with(bundle, flavor="tensorrt", hardware_compatibility="ampere_plus")
    assert ("hardware_compatibility_level", "ampere_plus") in tensorrt
    assert engine.manifest["hardware_compatibility"] == "ampere_plus"
    assert engine.mismatch("tensorrt", "11.0.0.12", "8.9") is None


@pytest.mark.usefixtures("remembered_builds")
def test_another_gpu_rebuilds(bundle, tensorrt, monkeypatch):
    build_with(bundle, flavor="tensorrt")
    other = CudaDevice(0, "NVIDIA Test 2", "8.6", 1 << 34, "13.0")
    monkeypatch.setattr(CudaDevice, "current", staticmethod(lambda: other))
    engine, lines = build_and_listen(bundle, flavor="tensorrt")
    assert lines[-1] == "building the engine"
    assert engine.manifest["gpu"]["name"] == "NVIDIA Test 2"


def test_tensorrt_needs_a_gpu(bundle, tensorrt, no_gpu, no_build):
    with pytest.raises(MissingError) as error:
        build_with(bundle, flavor="tensorrt")
    assert_one_line(error, "TensorRT needs a GPU to build on", "no CUDA driver", "build with flavor='rtx'")
    assert names_in(bundle) == []


@pytest.mark.usefixtures("remembered_builds")
def test_rtx_uses_no_timing_cache(bundle, monkeypatch):
    """The bindings have the methods, but they raise."""

    def refuse(*_):
        raise RuntimeError("RTX has no timing cache")

    for name in ("create_timing_cache", "set_timing_cache", "get_timing_cache"):
        monkeypatch.setattr(rtx.IBuilderConfig, name, refuse)
    build_with(bundle, timing_cache=True)
    assert names_in(bundle) == [FP16, f"{STEM}-fp16.json"]


@pytest.mark.usefixtures("remembered_builds")
def test_a_stripped_engine_is_refitted_from_a_graph_of_its_own_types(bundle, tensorrt):
    engine = build_with(bundle, flavor="tensorrt", strip=True)
    assert ("set_flag", "STRIP_PLAN") in tensorrt
    assert engine.stripped
    assert engine.weights == f"{LOCAL}.onnx"
    graph = onnx.load_from_string(engine.read_weights())
    kinds = {t.data_type for t in graph.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert graph.graph.name == f"{bundle.graph_name}_fp16"


@pytest.mark.usefixtures("remembered_builds")
def test_a_stripped_engine_that_cannot_be_written_leaves_no_weights_either(bundle, tensorrt, monkeypatch):
    def full(*_, **__):
        raise InputError("no space left on device")

    monkeypatch.setattr(build, "write_engine", full)
    with pytest.raises(InputError, match="no space left"):
        build_with(bundle, flavor="tensorrt", strip=True)
    assert not [name for name in names_in(bundle) if name.endswith((".onnx", ".engine"))]


@pytest.mark.usefixtures("remembered_builds")
def test_missing_weights_are_rebuilt(bundle, tensorrt):
    engine = build_with(bundle, flavor="tensorrt", strip=True)
    lost = engine.path.with_name(engine.weights)
    lost.unlink()
    assert build_with(bundle, flavor="tensorrt", strip=True).weights == lost.name
    assert lost.is_file()


def test_a_stripped_engine_of_the_bundles_precision_is_refitted_from_its_graph(tmp_path, tensorrt):
    model = scrambled(Sizes(64, 2, 2, 64, 2, 2))
    low = engine_pieces.export_unchecked(model, tmp_path / "low", size=SIZE, precision="fp16")
    engine = build_with(low, flavor="tensorrt", strip=True)
    assert (engine.stripped, engine.weights) == (True, None)
    assert f"{LOCAL}.onnx" not in names_in(low)
