"""Engines by the real builder of TensorRT-RTX, which needs no GPU, and by a simulated one of TensorRT."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import onnx
import pytest
import torch

import engine_pieces
from micro_model import frames, scrambled
from tcmoa import PRESETS, Sizes, load_weights
from tcmoa_export import BuildError, ParityError, parity
from tcmoa_export.engines import build, builder, lowering, plan
from tcmoa_export.engines.build import build_engine
from tcmoa_export.engines.builder import EngineBuilder
from tcmoa_export.engines.gpus import GPUS
from tcmoa_export.engines.graph_summary import summarize_graph
from tcmoa_export.engines.kernel_lists import kernels_from_log
from tcmoa_export.engines.kernels import AuditError
from tcmoa_export.engines.plan import plan_build
from tcmoa_runtime import Bundle, BundleError, InputError, MissingError
from tcmoa_runtime.cli.engine_rows import engine_rows
from tcmoa_runtime.cli.inspect import CheckedEngine, checked_rows
from tcmoa_runtime.engine import Engine
from tcmoa_runtime.engine_folders import ENGINES_FOLDER, find_engines
from tcmoa_runtime.engine_trust import is_built_here
from tcmoa_runtime.gpu.cuda import CudaDevice
from tcmoa_runtime.install import install_command
from tcmoa_runtime.manifest import SELF_HASH, manifest_sha256
from tcmoa_runtime.options.build import BuildOptions
from tcmoa_runtime.typing import ignore_phase

rtx = pytest.importorskip("tensorrt_rtx_bindings", reason=engine_pieces.NO_RTX, exc_type=ImportError)

VERSION = rtx.__version__
STEM = f"rtx-{VERSION}-sm80+sm86+sm89+sm120"
FP16 = f"{STEM}-fp16.engine"
SIZE = (112, 130)
GPU = CudaDevice(0, "NVIDIA Test 1", "8.6", 1 << 34, "13.0")


@pytest.fixture(autouse=True)
def _one_thread():
    """On such small models, threads that wait for a busy core cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return the path of a small float32 bundle without engines, which tests do not change."""
    out = tmp_path_factory.mktemp("exported") / "bundle"
    engine_pieces.export_unchecked(scrambled(Sizes(64, 2, 2, 64, 2, 2)), out, size=SIZE)
    return out


@pytest.fixture
def bundle(exported, tmp_path):
    """Return a small float32 bundle to build into."""
    return Bundle.open(shutil.copytree(exported, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def built_once(exported, tmp_path_factory):
    copy = shutil.copytree(exported, tmp_path_factory.mktemp("built") / "bundle")
    build_engine(copy)
    return copy


@pytest.fixture
def built(built_once, tmp_path):
    """Return a small float32 bundle with an fp16 engine."""
    return Bundle.open(shutil.copytree(built_once, tmp_path / "built"))


@pytest.fixture
def fake_gpu(monkeypatch):
    monkeypatch.setattr(CudaDevice, "current", staticmethod(lambda: GPU))


@pytest.fixture
def no_gpu(monkeypatch):
    def refuse():
        raise MissingError("no CUDA driver is installed")

    monkeypatch.setattr(CudaDevice, "current", staticmethod(refuse))


@pytest.fixture
def no_build(monkeypatch):
    """Let every build fail the test."""

    def refuse(*_):
        raise AssertionError("an engine was built")

    monkeypatch.setattr(EngineBuilder, "build", refuse)


def names_in(bundle):
    """Return the names of the files in engines/."""
    folder = bundle.path / ENGINES_FOLDER
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def build_with(bundle, *, on_progress=ignore_phase, **options):
    """Build an engine."""
    return build_engine(bundle, BuildOptions(**options), on_progress=on_progress)


def build_and_listen(bundle, **options):
    """Build an engine, and return it with the messages."""
    messages = []
    return build_engine(bundle, BuildOptions(**options), on_message=messages.append), messages


def state(engine):
    """Return what changes when a file is written, even with the same content."""
    files = engine.path, engine.path.with_suffix(".json")
    return [(p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes()) for p in files]


def assert_one_line(error, *words):
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


# --- the engine ---


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return the trained model in a bundle, not compared with the model to save time."""
    out = tmp_path_factory.mktemp("tiny") / "bundle"
    return engine_pieces.export_unchecked(load_weights("tiny"), out, size=(240, 320))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_trained_model_is_fused_and_computes_in_the_precision(tiny, precision):
    engine, lines = build_and_listen(tiny, precision=precision)
    assert lines == [
        f"lowering the graph to {precision}",
        f"checking {precision} against float32",
        "building the engine",
    ]
    assert engine.path == tiny.path / ENGINES_FOLDER / f"{STEM}-{precision}.engine"
    manifest = engine.manifest
    assert (manifest["attentions"], manifest["fused_attentions"]) == (6, 6)
    assert manifest["kernels"] == len(manifest["list"]) <= 145
    assert manifest["kinds"]["attention"] == 6
    assert manifest["precisions"].keys() == {"fp32", precision}
    assert manifest["precisions"][precision] > 50  # the weights of the sources are float32
    in_blocks = 0
    for kernel in manifest["list"]:
        blocks = [n for n in kernel["nodes"] if n.startswith(("encoder.", "decoder."))]
        in_blocks += bool(blocks)
        if kernel["kind"] in ("attention", "matmul", "convolution") and blocks:
            assert kernel["precision"] == precision, kernel["name"]
    assert in_blocks <= 45
    # 5 of 6 blocks compute 800 tokens, one the half of x: 16 C^2 per token, and 4 * 100 C for attention. Head, TC-MoAs
    # and the filters of the pyramids are the rest.
    blocks = (5 * 800 + 400) * (16 * 160**2 + 4 * 100 * 160)
    assert blocks < manifest["flops"] < 1.3 * blocks
    # The minimum counts no step of the pyramids between two filters.
    assert manifest["minimum_bytes"] < manifest["bytes_moved"] < 1.6 * manifest["minimum_bytes"]


def test_the_json_of_an_engine_is_complete_and_accepted(built):
    engine = Engine.open(built, built.path / ENGINES_FOLDER / FP16)
    data = engine.path.read_bytes()
    assert engine.read() == data
    values = json.loads(engine.path.with_suffix(".json").read_bytes())
    assert values == engine.manifest
    assert values["engine"] == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert (values["flavor"], values["version"], values["precision"]) == ("rtx", VERSION, "fp16")
    assert values["targets"] == ["sm80", "sm86", "sm89", "sm120"]
    assert (values["gpu"], values["stripped"], values["weights"]) == (None, False, None)
    options = dict(values["options"])
    assert len(options.pop("key")) == 64
    assert options == {
        "flavor": "rtx",
        "precision": "fp16",
        "targets": [],
        "workspace_mb": None,
        "hardware_compatibility": "none",
        "strip": False,
        "timing_cache": True,
        "allow_unfused": False,
    }
    assert values["kernels"] == len(values["list"]) > 20
    assert values["fused_attentions"] == values["attentions"] == 4
    assert names_in(built) == [FP16, f"{STEM}-fp16.json"]


def test_a_16_bit_bundle_is_built_in_its_own_precision(tmp_path):
    out = tmp_path / "low"
    engine_pieces.export_unchecked(scrambled(Sizes(64, 2, 2, 64, 2, 2)), out, size=SIZE, precision="bf16")
    engine, lines = build_and_listen(out)
    assert lines == ["building the engine"]
    assert (engine.precision, engine.manifest["fused_attentions"]) == ("bf16", 4)
    for other in ("fp16", "fp32"):
        with pytest.raises(InputError, match="the precision of this bundle") as error:
            build_with(out, precision=other)
        assert_one_line(error, f"precision: '{other}'; expected bf16", "Export a bundle in fp32")
    with pytest.raises(InputError, match="precision: 'int4'; expected one of fp32, fp16, bf16"):
        build_with(out, precision="int4")


# --- up to date or not ---


def test_an_engine_that_is_up_to_date_is_kept(built, no_build):
    before = state(build_engine(built))
    engine, lines = build_and_listen(str(built.path), precision="fp16")
    assert lines == ["up to date"]
    assert state(engine) == before
    assert names_in(built) == [FP16, f"{STEM}-fp16.json"]


def test_rebuild_always_builds(built):
    before = state(build_engine(built))
    engine, lines = build_and_listen(built, rebuild=True)
    assert lines[-1] == "building the engine"
    assert state(engine)[0][:2] != before[0][:2]


@pytest.mark.parametrize("options", [{"workspace_mb": 2000}, {"timing_cache": False}], ids=str)
def test_another_option_replaces_the_engine(built, options):
    before = state(build_engine(built))
    engine, lines = build_and_listen(built, **options)
    assert lines[-1] == "building the engine"
    assert state(engine) != before
    assert build_and_listen(built, **options)[1] == ["up to date"]
    assert names_in(built) == [FP16, f"{STEM}-fp16.json"]


def test_another_version_of_this_builder_rebuilds(built, monkeypatch):
    monkeypatch.setattr(plan, "BUILDER_VERSION", plan.BUILDER_VERSION + 1)
    assert build_and_listen(built)[1][-1] == "building the engine"


def test_another_graph_rebuilds(built, tmp_path):
    """As when a bundle is exported into a folder that has engines."""
    other = scrambled(Sizes(64, 2, 2, 64, 2, 2), seed=1)
    engine_pieces.export_unchecked(other, tmp_path / "other", size=SIZE)
    for name in ("bundle.json", "fusion.onnx"):
        shutil.copy(tmp_path / "other" / name, built.path / name)
    with pytest.raises(BundleError, match="with the same bytes"):
        Engine.open(Bundle.open(built.path), built.path / ENGINES_FOLDER / FP16)
    engine, lines = build_and_listen(built.path)
    assert lines[-1] == "building the engine"
    assert Engine.open(Bundle.open(built.path), engine.path).read()


def test_targets_name_the_engine(built):
    before = state(build_engine(built))
    engine, lines = build_and_listen(built, targets=("sm89", "sm86", "sm89"))
    assert lines[-1] == "building the engine"
    assert (engine.targets, engine.path.name) == (("sm86", "sm89"), f"rtx-{VERSION}-sm86+sm89-fp16.engine")
    assert len(find_engines(built)) == 2
    same, lines = build_and_listen(built, targets=("sm86", "sm89"))
    assert (same.path, lines) == (engine.path, ["up to date"])
    assert state(build_engine(built)) == before
    assert engine.mismatch("rtx", VERSION, "8.9") is None
    assert "compute capability 8.0" in engine.mismatch("rtx", VERSION, "8.0")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(path):
    """Change an option and the hash: as made by other software."""
    values = json.loads(path.read_bytes())
    values["options"]["key"] = "0" * 64
    values[SELF_HASH] = manifest_sha256(values)
    path.write_text(json.dumps(values))


def empty_options(path):
    values = json.loads(path.read_bytes())
    values["options"] = {}
    values[SELF_HASH] = manifest_sha256(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".engine", truncate),
        (".engine", flip),
        (".json", truncate),
        (".json", flip),
        (".json", edit),
        (".json", empty_options),
        (".json", lambda path: path.unlink()),
        (".json", lambda path: path.write_text("{}")),
    ],
)
def test_a_damaged_engine_is_rebuilt(built, suffix, damage):
    damage((built.path / ENGINES_FOLDER / FP16).with_suffix(suffix))
    engine, lines = build_and_listen(built)
    assert lines[-1] == "building the engine"
    assert Engine.open(built, engine.path).read()
    assert names_in(built) == [FP16, f"{STEM}-fp16.json"]


# --- float32 ---


def test_float32_is_not_fused_and_only_written_when_allowed(bundle):
    with pytest.raises(BuildError) as error:
        build_with(bundle, precision="fp32")
    assert_one_line(
        error, "4 of 4 attentions are not fused", "encoder.0/attention/Softmax", "allow_unfused=True"
    )
    assert names_in(bundle) == []
    engine, lines = build_and_listen(bundle, precision="fp32", allow_unfused=True)
    assert lines == ["building the engine"]  # not lowered, so nothing to compare
    assert (engine.manifest["attentions"], engine.manifest["fused_attentions"]) == (4, 0)
    assert engine.manifest["precisions"] == {"fp32": engine.manifest["kernels"]}
    assert engine.manifest["options"]["allow_unfused"] is True
    assert build_and_listen(bundle, precision="fp32", allow_unfused=True)[1] == ["up to date"]
    # The engine that was allowed does not pass without the option.
    before = state(engine)
    with pytest.raises(BuildError, match="not fused"):
        build_with(bundle, precision="fp32")
    assert state(engine) == before


def test_a_product_in_another_precision_is_refused(bundle, monkeypatch):
    monkeypatch.setattr(build, "summarize_graph", summarize_as_float32)
    with pytest.raises(BuildError) as error:
        build_engine(bundle)
    assert_one_line(error, "compute in another precision", "reads fp16, not fp32", "allow_unfused=True")
    assert names_in(bundle) == []
    engine = build_with(bundle, allow_unfused=True)
    assert engine.manifest["options"]["allow_unfused"] is True


def summarize_as_float32(model, *, is_wrapped):
    """Summarize a graph as if all its products except those of attentions were float32."""
    summary = summarize_graph(model, is_wrapped=is_wrapped)
    return dataclasses.replace(summary, float32=frozenset(summary.flops))


def test_the_settings_of_the_builder(bundle, monkeypatch):
    """TF32 has too few bits for the routers; a CUDA graph may only capture RTX engines with one of the flags."""
    calls = []

    def record(name):
        original = getattr(rtx.IBuilderConfig, name)

        def method(config, *values):
            calls.append((name, *values))
            return original(config, *values)

        monkeypatch.setattr(rtx.IBuilderConfig, name, method)

    for name in ("set_flag", "clear_flag", "set_memory_pool_limit", "set_compute_capability"):
        record(name)
    build_with(bundle, targets=("sm120", "sm86"), workspace_mb=500)
    assert set(calls) == {
        ("clear_flag", rtx.BuilderFlag.TF32),
        ("set_flag", rtx.BuilderFlag.REQUIRE_USER_ALLOCATION),
        ("set_memory_pool_limit", rtx.MemoryPoolType.WORKSPACE, 500 << 20),
        ("set_compute_capability", rtx.ComputeCapability.SM86, 0),
        ("set_compute_capability", rtx.ComputeCapability.SM120, 1),
    }


# --- refused ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flavor": "trt"}, "flavor: 'trt'; expected one of tensorrt, rtx"),
        ({"precision": "int4"}, "precision: 'int4'; expected one of fp32, fp16, bf16"),
        ({"workspace_mb": 0}, "workspace_mb: 0; expected 1 or more"),
        ({"workspace_mb": -5}, "workspace_mb: -5; expected 1 or more"),
        ({"hardware_compatibility": "all"}, "hardware_compatibility: 'all'; expected one of none"),
        (
            {"hardware_compatibility": "ampere_plus"},
            "hardware_compatibility: 'ampere_plus'; expected none with flavor rtx",
        ),
        ({"flavor": "tensorrt", "targets": ("sm86",)}, "targets: sm86; expected none with flavor tensorrt"),
        ({"targets": ("sm75",)}, "targets: 'sm75'; expected sm80 or later"),
        (
            {"targets": ("sm86", "sm99")},
            f"targets: 'sm99'; expected targets of TensorRT-RTX {VERSION}: sm80, sm86, sm89, sm120",
        ),
        ({"targets": ("junk",)}, "targets: 'junk'"),
        ({"targets": ("",)}, "targets: ''"),
        ({"targets": ("none",)}, "targets: 'none'"),
        ({"targets": ("current",)}, "targets: 'current'"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_before_anything_is_written(bundle, no_build, options, words):
    with pytest.raises(InputError) as error:
        build_with(bundle, **options)
    assert_one_line(error, words)
    assert names_in(bundle) == []


def test_a_level_that_a_version_of_tensorrt_lacks_is_refused(bundle, monkeypatch):
    module, _ = engine_pieces.tensorrt_from(rtx, "10.7.0")
    del module.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(InputError) as error:
        build_with(bundle, flavor="tensorrt", hardware_compatibility="same_compute_capability")
    assert_one_line(
        error,
        "hardware_compatibility: 'same_compute_capability'; expected one of those of TensorRT 10.7.0: none, "
        "ampere_plus. Install a newer TensorRT, or choose one of these.",
    )
    assert names_in(bundle) == []


def test_a_workspace_that_is_too_small(bundle):
    with pytest.raises(BuildError) as error:
        build_with(bundle, precision="fp32", allow_unfused=True, workspace_mb=1)
    assert_one_line(error, f"tensorrt_rtx_bindings {VERSION} did not build the engine")
    assert_one_line(error, "Nothing was written. Allow more than workspace_mb=1")
    assert names_in(bundle) == []


def test_a_graph_that_the_parser_cannot_read(bundle):
    model = onnx.load(bundle.graph_path)
    model.graph.node[0].op_type = "Nonsense"
    with pytest.raises(BuildError) as error:
        EngineBuilder(plan_build(BuildOptions(), "fp32")).build(model, "fusion.onnx")
    assert_one_line(error, "fusion.onnx: tensorrt_rtx_bindings", "cannot read the graph (")


@pytest.mark.parametrize("damage", [truncate, flip])
def test_a_damaged_bundle_is_refused_before_it_is_built(bundle, no_build, damage):
    damage(bundle.graph_path)
    with pytest.raises(BundleError, match=r"fusion\.onnx"):
        build_engine(bundle.path)
    assert names_in(bundle) == []


def test_without_the_package(bundle, monkeypatch):
    for name, flavor in (("tensorrt_rtx_bindings", "rtx"), ("tensorrt", "tensorrt")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingError) as error:
            build_with(bundle, flavor=flavor)
        assert_one_line(error, f"{name} cannot be imported", install_command(flavor))
    assert names_in(bundle) == []


def test_stripping_needs_a_gpu(bundle, no_gpu, no_build):
    with pytest.raises(MissingError) as error:
        build_with(bundle, strip=True)
    assert_one_line(error, "stripping weights needs a GPU", "no CUDA driver", "build without strip")
    assert names_in(bundle) == []


# --- the check of a lowered graph ---


def test_a_lowered_graph_that_is_too_far_from_float32_is_not_built(bundle, monkeypatch, no_build):
    monkeypatch.setitem(parity.MIN_PSNR_DB, "fp16", 200.0)
    with pytest.raises(ParityError) as error:
        build_engine(bundle)
    assert_one_line(error, "the fp16 graph: PSNR to the model is", "expected at least 200 dB")
    assert names_in(bundle) == []


def test_own_pairs_replace_the_shipped_ones(bundle, tmp_path, monkeypatch):
    folder = tmp_path / "pairs"
    folder.mkdir()
    for side, frame in zip("xy", frames(90, 80, 2), strict=True):
        cv2.imwrite(str(folder / f"night_{side}.png"), frame)
    pictures = []

    def recorded(*args):
        pictures.append(check_lowered(*args).pictures)

    check_lowered = lowering.check_lowered
    monkeypatch.setattr(lowering, "check_lowered", recorded)
    build_with(bundle, pairs=folder)
    build_with(bundle, rebuild=True)
    assert pictures[0] == ["night"]
    assert pictures[1] == ["astronaut"]
    with pytest.raises(InputError, match="no such"):
        build_with(bundle, pairs=tmp_path / "nowhere", rebuild=True)


def test_an_engine_is_recorded_as_built_by_this_user(built):
    engine = build_engine(built)
    assert is_built_here(engine)


def test_an_engine_that_somebody_else_built_is_built_again(bundle, tmp_path, monkeypatch):
    before = build_with(bundle)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert not is_built_here(before)
    engine, lines = build_and_listen(bundle)
    assert lines[-1] == "building the engine"
    assert is_built_here(engine)
    assert build_and_listen(bundle)[1] == ["up to date"]


# --- progress and interruption ---


def test_progress_reports_phases_and_their_steps(bundle):
    calls = []
    build_with(bundle, on_progress=lambda *call: calls.append(call))
    assert len(calls) > 5
    assert all(isinstance(name, str) and name and 0 <= done <= of for name, done, of in calls)
    assert any(done for _, done, _ in calls)


def test_ctrl_c_in_the_middle_of_a_build_leaves_nothing(bundle):
    before = signal.getsignal(signal.SIGINT)
    steps = []

    def press(_name, done, _of):
        steps.append(done)
        if steps.count(1) == 1 and done == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build_with(bundle, on_progress=press)
    assert names_in(bundle) == []
    assert signal.getsignal(signal.SIGINT) is before
    whole = []
    assert build_with(bundle, on_progress=lambda _name, done, _of: whole.append(done)).read()
    assert 1 in steps
    assert len(steps) < len(whole) / 10  # it stopped early


def test_ctrl_c_keeps_an_existing_engine(built):
    before = state(build_engine(built))
    with pytest.raises(KeyboardInterrupt):
        build_with(built, rebuild=True, on_progress=lambda *_: signal.raise_signal(signal.SIGINT))
    assert state(Engine.open(built, built.path / ENGINES_FOLDER / FP16)) == before


def test_a_progress_function_that_fails_ends_the_build_with_its_own_exception(bundle, capfd):
    def fail(*_):
        raise RuntimeError("the bar is broken")

    with pytest.raises(RuntimeError, match="the bar is broken"):
        build_with(bundle, on_progress=fail)
    assert names_in(bundle) == []
    assert capfd.readouterr() == ("", "")  # otherwise the bindings would have printed it


# --- tensorrt ---


@pytest.fixture
def tensorrt(monkeypatch, fake_gpu):
    """Simulate `tensorrt`, and return the calls of its config."""
    module, calls = engine_pieces.tensorrt_from(rtx)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return calls


LOCAL = "tensorrt-11.0.0.12-local-fp16"


def test_tensorrt_builds_for_the_gpu_of_this_machine(bundle, tensorrt):
    engine = build_with(bundle, flavor="tensorrt")
    assert (engine.path.name, engine.flavor, engine.targets) == (f"{LOCAL}.engine", "tensorrt", ())
    assert engine.manifest["gpu"] == {"name": "NVIDIA Test 1", "compute_capability": "8.6"}
    assert engine.manifest["fused_attentions"] == 4
    assert engine.mismatch("tensorrt", "11.0.0.12", "8.6") is None
    assert engine.mismatch("tensorrt", "11.0.0.12", "8.9") is not None
    assert ("hardware_compatibility_level", "none") in tensorrt
    assert build_and_listen(bundle, flavor="tensorrt")[1] == ["up to date"]


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


def test_the_builders_log_is_read_first_where_a_gpu_could_load_the_engine(bundle, fake_gpu, monkeypatch):
    """No inspector has been seen, and its JSON may be of another form."""
    monkeypatch.setattr(rtx, "Runtime", None)
    engine = build_engine(bundle)
    assert engine.manifest["fused_attentions"] == engine.manifest["attentions"] > 0


@pytest.mark.parametrize("raw", [False, True])
def test_the_inspector_is_asked_where_the_log_lists_no_kernels(raw, bundle, unlisted, monkeypatch):
    """The lists of nodes are separated by 0x1E, which strict JSON takes as an escape only."""
    runtime = Inspecting(unlisted, lambda text: text.replace("\\u001e", "\x1e") if raw else text)
    monkeypatch.setattr(rtx, "Runtime", runtime)
    engine = build_engine(bundle)
    assert runtime.forms == [rtx.LayerInformationFormat.JSON]
    assert engine.manifest["list"][0]["name"] == "from the inspector"
    assert engine.manifest["fused_attentions"] == engine.manifest["attentions"] > 0


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


def test_tensorrt_without_timings(bundle, tensorrt):
    build_with(bundle, flavor="tensorrt", timing_cache=False)
    assert not [c for c in tensorrt if "timing" in c[0]]
    assert names_in(bundle) == [f"{LOCAL}.engine", f"{LOCAL}.json"]


def test_tensorrt_builds_for_other_gpus_too(bundle, tensorrt):
    engine = build_with(bundle, flavor="tensorrt", hardware_compatibility="ampere_plus")
    assert ("hardware_compatibility_level", "ampere_plus") in tensorrt
    assert engine.manifest["hardware_compatibility"] == "ampere_plus"
    assert engine.mismatch("tensorrt", "11.0.0.12", "8.9") is None


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


def test_rtx_uses_no_timing_cache(bundle, monkeypatch):
    """The bindings have the methods, but they raise."""

    def refuse(*_):
        raise RuntimeError("RTX has no timing cache")

    for name in ("create_timing_cache", "set_timing_cache", "get_timing_cache"):
        monkeypatch.setattr(rtx.IBuilderConfig, name, refuse)
    build_with(bundle, timing_cache=True)
    assert names_in(bundle) == [FP16, f"{STEM}-fp16.json"]


def test_a_stripped_engine_is_refitted_from_a_graph_of_its_own_types(bundle, tensorrt):
    engine = build_with(bundle, flavor="tensorrt", strip=True)
    assert ("set_flag", "STRIP_PLAN") in tensorrt
    assert engine.stripped
    assert engine.weights == f"{LOCAL}.onnx"
    graph = onnx.load_from_string(engine.read_weights())
    kinds = {t.data_type for t in graph.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert graph.graph.name == f"{bundle.graph_name}_fp16"


def test_a_stripped_engine_that_cannot_be_written_leaves_no_weights_either(bundle, tensorrt, monkeypatch):
    def full(*_, **__):
        raise InputError("no space left on device")

    monkeypatch.setattr(build, "write_engine", full)
    with pytest.raises(InputError, match="no space left"):
        build_with(bundle, flavor="tensorrt", strip=True)
    assert not [name for name in names_in(bundle) if name.endswith((".onnx", ".engine"))]


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


# --- common frame sizes ---


def assert_fused_and_small(report, precision, max_kernels, attentions):
    assert len(report.kernels) <= max_kernels
    assert len(report.graph.attentions) == attentions
    assert report.unfused == ()
    assert report.wrong_precision == ()
    assert set(report.precisions) == {"fp32", precision}
    assert sum(report.flops()) == sum(report.graph.flops.values())
    moving = {"Reshape", "Transpose", "Split", "Concat"}
    for kernel in report.kernels:
        operators = {n.rsplit("/", 1)[-1].split(".")[0] for n in kernel.nodes}
        assert not (operators and operators <= moving), f"{kernel.name} only moves"


def assert_as_documented(report, model, frame, precision):
    """Compare with the row of docs/guides/engines.md, if the page was made with the installed version."""
    page = (Path(__file__).parents[3] / "docs" / "guides" / "engines.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith(f"| {model} | {frame} |")]
    (row,) = (cells for cells in rows if cells[2].strip() == precision)
    if f"TensorRT-RTX {VERSION}" not in page:
        return
    fused = len(report.graph.attentions) - len(report.unfused)
    moved = f"{report.bytes_moved / 1e9:.3f} ({report.graph.min_bytes / 1e9:.3f})"
    expected = [str(len(report.kernels)), f"{fused} of {len(report.graph.attentions)}", moved]
    expected.append(f"{sum(report.flops()) / 1e9:.0f}")
    (header,) = (line for line in page.splitlines() if line.startswith("| model | frame |"))
    shown = [gpu for name in header.split("|")[9:-1] for gpu in GPUS if gpu.name == name.strip()]
    assert len(shown) >= 4
    bounds = [f"{report.bound_ms(gpu):.2f} ms" for gpu in shown]
    assert [cell.strip() for cell in (*row[3:7], *row[8:])] == expected + bounds


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_tiny_at_640x480(precision):
    report = engine_pieces.audit_of(load_weights("tiny"), (480, 640), precision)
    assert_fused_and_small(report, precision, 145, 6)
    assert_as_documented(report, "tiny", "640x480", precision)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_nano_at_640x480_with_windows_of_ten_tokens(precision):
    report = engine_pieces.audit_of(load_weights("nano"), (480, 640), precision)
    assert_fused_and_small(report, precision, 145, 6)
    assert_as_documented(report, "nano", "640x480", precision)


# Large at 448x448 passes, too, but takes more than 3 GB and half a minute: benchmarks/engine_table.py builds it.
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_base_at_448x448(precision):
    model = engine_pieces.random_weights(PRESETS["base"])
    report = engine_pieces.audit_of(model, (448, 448), precision)
    del model
    assert_fused_and_small(report, precision, 200, 20)
    assert_as_documented(report, "base", "448x448, not upsampled", precision)
    assert report.bytes_moved <= (1.53e9 if precision == "fp16" else 1.61e9)
    for stage, count in (("encoder", 12), ("decoder", 8)):
        for i in range(count):
            assert_block_is_few_kernels(report, f"{stage}.{i}")


def assert_block_is_few_kernels(report, block):
    own = [k for k in report.kernels if k.nodes and all(n.startswith(f"{block}/") for n in k.nodes)]
    assert len(own) <= 7, [k.name for k in own]
    products = [n for n in report.graph.flops if n.startswith(f"{block}/")]
    assert len(products) == 8  # q, k, v, two in attention, projection, two in the MLP
    assert any(set(products[:3]) <= set(k.nodes) for k in report.kernels)  # q, k, v by one kernel
    for node in products:
        assert sum(node in k.nodes for k in report.kernels) == 1, node
