"""Engines by the real builder of TensorRT-RTX, which needs no GPU; and `tensorrt` by one that stands in for it."""

import dataclasses
import hashlib
import json
import shutil
import signal
import sys
import types
from pathlib import Path

import cv2
import onnx
import pytest
import torch

import engine_pieces
from micro_model import frames, scrambled
from tcmoa import PRESETS, Sizes, load_weights
from tcmoa_export import GateError, audit, engine_build, kernels, parity
from tcmoa_export.engine_build import BuildError, BuildOptions, build_engine
from tcmoa_runtime import Bundle, BundleError, InputError, MissingError
from tcmoa_runtime.engine import ENGINES_FOLDER, Engine, find_engines
from tcmoa_runtime.gpu.cuda import CudaDevice
from tcmoa_runtime.manifest import SELF_HASH, manifest_sha256

rtx = pytest.importorskip("tensorrt_rtx_bindings", reason=engine_pieces.NO_RTX, exc_type=ImportError)

VERSION = rtx.__version__
STEM = f"rtx-{VERSION}-sm80+sm86+sm89+sm120"
FP16 = f"{STEM}-fp16.engine"
SIZE = (112, 130)
GPU = CudaDevice(0, "NVIDIA Test 1", "8.6", 1 << 34, "13.0")


@pytest.fixture(autouse=True)
def _one_thread():
    """On such small models threads that wait for a busy core cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Path of a small float32 bundle without engines; never to be changed."""
    out = tmp_path_factory.mktemp("exported") / "bundle"
    engine_pieces.export_ungated(scrambled(Sizes(64, 2, 2, 64, 2, 2)), out, size=SIZE)
    return out


@pytest.fixture
def bundle(exported, tmp_path):
    """A small float32 bundle to build into."""
    return Bundle.open(shutil.copytree(exported, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def built_once(exported, tmp_path_factory):
    copy = shutil.copytree(exported, tmp_path_factory.mktemp("built") / "bundle")
    build_engine(copy)
    return copy


@pytest.fixture
def built(built_once, tmp_path):
    """A small float32 bundle with an fp16 engine, to be changed."""
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
    """Whoever builds fails."""

    def refuse(*_):
        raise AssertionError("built although it should not")

    monkeypatch.setattr(engine_build.Builder, "build", refuse)


def left(bundle):
    """Names of what lies in engines/."""
    folder = bundle.path / ENGINES_FOLDER
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def said(build, *args, **options):
    """The engine, and what was said while it was built."""
    lines = []
    return build(*args, say=lines.append, **options), lines


def state(engine):
    """What changes when a file is written anew, whatever its content."""
    files = engine.path, engine.path.with_suffix(".json")
    return [(p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes()) for p in files]


def assert_one_line(error, *words):
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


# --- what comes out ---


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The trained model in a bundle; its gate is left out for time, the tests of the export have it."""
    out = tmp_path_factory.mktemp("tiny") / "bundle"
    return engine_pieces.export_ungated(load_weights("tiny"), out, size=(240, 320))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_trained_model_is_fused_and_computes_in_what_was_asked(tiny, precision):
    engine, lines = said(build_engine, tiny, precision=precision)
    assert lines == [
        f"lowering the graph to {precision}",
        f"checking {precision} against float32",
        "building the engine",
    ]
    assert engine.path == tiny.path / ENGINES_FOLDER / f"{STEM}-{precision}.engine"
    figures = engine.manifest
    assert (figures["attentions"], figures["fused_attentions"]) == (10, 10)
    assert figures["kernels"] == len(figures["list"]) <= 110
    assert figures["kinds"]["attention"] == 10
    assert figures["precisions"].keys() == {"fp32", precision}
    assert figures["precisions"][precision] > 70
    for kernel in figures["list"]:
        blocks = [n for n in kernel["nodes"] if n.startswith(("encoder.", "decoder."))]
        if kernel["kind"] in ("attention", "matmul", "convolution") and blocks:
            assert kernel["precision"] == precision, kernel["name"]
    # 8 of 10 blocks see 3528 tokens, 2 see x's half: 24 C^2 a token and 4 * 196 C for attention. The last MLP
    # leaves out 564 tokens of padding. Head, tail and three TC-MoAs are the rest.
    blocks = (8 * 3528 + 2 * 1764) * (24 * 256**2 + 4 * 196 * 256) - 564 * 16 * 256**2
    assert blocks < figures["flops"] < 1.05 * blocks
    assert figures["minimum_bytes"] < figures["bytes_moved"] < 1.15 * figures["minimum_bytes"]


def test_the_json_beside_it_is_complete_and_accepted(built):
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
    assert left(built) == [FP16, f"{STEM}-fp16.json"]


def test_a_bundle_of_16_bits_is_built_as_it_is(tmp_path):
    out = tmp_path / "low"
    engine_pieces.export_ungated(scrambled(Sizes(64, 2, 2, 64, 2, 2)), out, size=SIZE, precision="bf16")
    engine, lines = said(build_engine, out)
    assert lines == ["building the engine"]
    assert (engine.precision, engine.manifest["fused_attentions"]) == ("bf16", 4)
    for other in ("fp16", "fp32"):
        with pytest.raises(InputError, match="this bundle is bf16") as error:
            build_engine(out, precision=other)
        assert_one_line(error, f"precision is '{other}'", "--precision fp32")
    with pytest.raises(InputError, match="precision is 'int4': expected one of fp32, fp16, bf16"):
        build_engine(out, precision="int4")


# --- kept and built again ---


def test_what_is_up_to_date_is_kept(built, no_build):
    before = state(build_engine(built))
    engine, lines = said(build_engine, str(built.path), precision="fp16")
    assert lines == ["up to date"]
    assert state(engine) == before
    assert left(built) == [FP16, f"{STEM}-fp16.json"]


def test_rebuild_builds_in_any_case(built):
    before = state(build_engine(built))
    engine, lines = said(build_engine, built, rebuild=True)
    assert lines[-1] == "building the engine"
    assert state(engine)[0][:2] != before[0][:2]


@pytest.mark.parametrize("options", [{"workspace_mb": 2000}, {"timing_cache": False}], ids=str)
def test_another_option_builds_anew_in_the_same_place(built, options):
    before = state(build_engine(built))
    engine, lines = said(build_engine, built, **options)
    assert lines[-1] == "building the engine"
    assert state(engine) != before
    assert said(build_engine, built, **options)[1] == ["up to date"]
    assert left(built) == [FP16, f"{STEM}-fp16.json"]


def test_another_version_of_this_builder_builds_anew(built, monkeypatch):
    monkeypatch.setattr(engine_build, "BUILDER_VERSION", engine_build.BUILDER_VERSION + 1)
    assert said(build_engine, built)[1][-1] == "building the engine"


def test_another_graph_builds_anew(built, tmp_path):
    """As when a bundle was exported again into the folder that holds engines."""
    other = scrambled(Sizes(64, 2, 2, 64, 2, 2), seed=1)
    engine_pieces.export_ungated(other, tmp_path / "other", size=SIZE)
    for name in ("bundle.json", "fusion.onnx"):
        shutil.copy(tmp_path / "other" / name, built.path / name)
    with pytest.raises(BundleError, match="with the same bytes"):
        Engine.open(Bundle.open(built.path), built.path / ENGINES_FOLDER / FP16)
    engine, lines = said(build_engine, built.path)
    assert lines[-1] == "building the engine"
    assert Engine.open(Bundle.open(built.path), engine.path).read()


def test_targets_name_the_engine(built):
    before = state(build_engine(built))
    engine, lines = said(build_engine, built, targets=["sm89", "sm86", "sm89"])
    assert lines[-1] == "building the engine"
    assert (engine.targets, engine.path.name) == (("sm86", "sm89"), f"rtx-{VERSION}-sm86+sm89-fp16.engine")
    assert len(find_engines(built)) == 2
    again, lines = said(build_engine, built, targets=["sm86", "sm89"])
    assert (again.path, lines) == (engine.path, ["up to date"])
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
    """Another option, and the right hash of it: made by other software."""
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
def test_what_is_damaged_is_built_anew(built, suffix, damage):
    damage((built.path / ENGINES_FOLDER / FP16).with_suffix(suffix))
    engine, lines = said(build_engine, built)
    assert lines[-1] == "building the engine"
    assert Engine.open(built, engine.path).read()
    assert left(built) == [FP16, f"{STEM}-fp16.json"]


# --- float32 ---


def test_float32_is_not_fused_and_only_written_on_demand(bundle):
    with pytest.raises(BuildError) as error:
        build_engine(bundle, precision="fp32")
    assert_one_line(
        error, "4 of 4 attentions are not fused", "encoder.0/attention/Softmax", "--allow-unfused"
    )
    assert left(bundle) == []
    engine, lines = said(build_engine, bundle, precision="fp32", allow_unfused=True)
    assert lines == ["building the engine"]  # not lowered, nothing to compare
    assert (engine.manifest["attentions"], engine.manifest["fused_attentions"]) == (4, 0)
    assert engine.manifest["precisions"] == {"fp32": engine.manifest["kernels"]}
    assert engine.manifest["options"]["allow_unfused"] is True
    assert said(build_engine, bundle, precision="fp32", allow_unfused=True)[1] == ["up to date"]
    # An engine that was let through before does not pass without the option.
    before = state(engine)
    with pytest.raises(BuildError, match="not fused"):
        build_engine(bundle, precision="fp32")
    assert state(engine) == before


def test_a_product_in_another_precision_is_refused(bundle, monkeypatch):
    monkeypatch.setattr(engine_build, "graph_facts", facts_of_another_precision)
    with pytest.raises(BuildError) as error:
        build_engine(bundle)
    assert_one_line(error, "kernels do not compute as asked", "reads fp16, not fp32", "--allow-unfused")
    assert left(bundle) == []
    engine = build_engine(bundle, allow_unfused=True)
    assert engine.manifest["options"]["allow_unfused"] is True


def facts_of_another_precision(model):
    """As if all products but those of attention had been asked to stay in float32."""
    facts = audit.graph_facts(model)
    return dataclasses.replace(facts, float32=frozenset(facts.flops))


def test_what_the_builder_is_asked_for(bundle, monkeypatch):
    """TF32 has 10 bits, too few for the routers; without a flag RTX engines may not be captured into a graph."""
    asked = []

    def noting(name):
        original = getattr(rtx.IBuilderConfig, name)

        def method(config, *values):
            asked.append((name, *values))
            return original(config, *values)

        monkeypatch.setattr(rtx.IBuilderConfig, name, method)

    for name in ("set_flag", "clear_flag", "set_memory_pool_limit", "set_compute_capability"):
        noting(name)
    build_engine(bundle, targets=["sm120", "sm86"], workspace_mb=500)
    assert set(asked) == {
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
        ({"flavor": "trt"}, "flavor is 'trt': expected one of tensorrt, rtx"),
        ({"precision": "int4"}, "precision is 'int4': expected one of fp32, fp16, bf16"),
        ({"workspace_mb": 0}, "workspace is 0 MB: expected 1 or more"),
        ({"workspace_mb": -5}, "workspace is -5 MB"),
        ({"hardware_compatibility": "all"}, "hardware compatibility is 'all'"),
        ({"hardware_compatibility": "ampere_plus"}, "RTX engines have --target"),
        ({"flavor": "tensorrt", "targets": ["sm86"]}, "targets are for --flavor rtx"),
        ({"targets": ["sm75"]}, "target is 'sm75': Turing"),
        (
            {"targets": ["sm86", "sm99"]},
            f"target is 'sm99': TensorRT-RTX {VERSION} builds for sm80, sm86, sm89, sm120",
        ),
        ({"targets": ["junk"]}, "target is 'junk'"),
        ({"targets": [""]}, "target is ''"),
        ({"targets": ["none"]}, "target is 'none'"),
        ({"targets": ["current"]}, "target is 'current'"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_before_anything_is_done(bundle, no_build, options, words):
    with pytest.raises(InputError) as error:
        build_engine(bundle, **options)
    assert_one_line(error, words)
    assert left(bundle) == []


def test_a_workspace_that_is_too_small(bundle):
    with pytest.raises(BuildError) as error:
        build_engine(bundle, precision="fp32", allow_unfused=True, workspace_mb=1)
    assert_one_line(error, f"tensorrt_rtx_bindings {VERSION} did not build the engine")
    assert_one_line(error, "nothing was written: raise --workspace above 1 MB")
    assert left(bundle) == []


def test_a_graph_that_the_parser_does_not_know(bundle):
    model = onnx.load(bundle.graph_path)
    model.graph.node[0].op_type = "Nonsense"
    builder = engine_build.Builder(rtx, BuildOptions(), bundle.path, lambda *_: None)
    with pytest.raises(BuildError) as error:
        builder.build(model, "fusion.onnx")
    assert_one_line(error, "fusion.onnx: tensorrt_rtx_bindings", "cannot read the graph (")


@pytest.mark.parametrize("damage", [truncate, flip])
def test_a_damaged_bundle_is_refused_before_it_is_built(bundle, no_build, damage):
    damage(bundle.graph_path)
    with pytest.raises(BundleError, match=r"fusion\.onnx"):
        build_engine(bundle.path)
    assert left(bundle) == []


def test_without_the_package(bundle, monkeypatch):
    for name, flavor in (("tensorrt_rtx_bindings", "rtx"), ("tensorrt", "tensorrt")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingError) as error:
            build_engine(bundle, flavor=flavor)
        assert_one_line(error, f"{name} cannot be imported", f"pip install 'tcmoa[{flavor}]'")
    assert left(bundle) == []


def test_stripping_needs_a_gpu(bundle, no_gpu, no_build):
    with pytest.raises(MissingError) as error:
        build_engine(bundle, strip=True)
    assert_one_line(error, "stripping weights needs a GPU", "no CUDA driver", "leave --strip out")
    assert left(bundle) == []


# --- the check of a lowered graph ---


def test_a_lowered_graph_that_is_too_far_from_float32_is_not_built(bundle, monkeypatch, no_build):
    monkeypatch.setitem(parity.LEAST_PSNR, "fp16", 200.0)
    with pytest.raises(GateError) as error:
        build_engine(bundle)
    assert_one_line(error, "the fp16 graph is too far from the model", "at least 200 expected")
    assert left(bundle) == []


def test_real_pairs_take_the_place_of_photographs(bundle, tmp_path, monkeypatch):
    folder = tmp_path / "pairs"
    folder.mkdir()
    for side, frame in zip("xy", frames(90, 80, 2), strict=True):
        cv2.imwrite(str(folder / f"night_{side}.png"), frame)
    seen = []

    def judged(*args):
        seen.append(engine_judge(*args).pictures)

    engine_judge = engine_build.judge_lowered
    monkeypatch.setattr(engine_build, "judge_lowered", judged)
    build_engine(bundle, pairs=folder)
    build_engine(bundle, rebuild=True)
    assert seen[0] == ["night"]
    assert seen[1][0].startswith("photograph ")
    with pytest.raises(InputError, match="no such"):
        build_engine(bundle, pairs=tmp_path / "nowhere", rebuild=True)


def test_without_photographs_pairs_are_asked_for(bundle, monkeypatch, no_build):
    monkeypatch.setitem(sys.modules, "tcmoa_export.photographs", None)
    with pytest.raises(MissingError) as error:
        build_engine(bundle)
    assert_one_line(error, "give --pairs DIR", "tcmoa[export]")
    assert left(bundle) == []


# --- progress and interruption ---


def test_progress_tells_phases_and_their_steps(bundle):
    calls = []
    build_engine(bundle, progress=lambda *call: calls.append(call))
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
        build_engine(bundle, progress=press)
    assert left(bundle) == []
    assert signal.getsignal(signal.SIGINT) is before
    whole = []
    assert build_engine(bundle, progress=lambda _name, done, _of: whole.append(done)).read()
    assert 1 in steps
    assert len(steps) < len(whole) / 10  # it stopped there, not at the end


def test_ctrl_c_keeps_the_engine_that_was_there(built):
    before = state(build_engine(built))
    with pytest.raises(KeyboardInterrupt):
        build_engine(built, rebuild=True, progress=lambda *_: signal.raise_signal(signal.SIGINT))
    assert state(Engine.open(built, built.path / ENGINES_FOLDER / FP16)) == before


def test_a_progress_function_that_fails_ends_the_build_with_its_own_exception(bundle, capfd):
    def fail(*_):
        raise RuntimeError("the bar is broken")

    with pytest.raises(RuntimeError, match="the bar is broken"):
        build_engine(bundle, progress=fail)
    assert left(bundle) == []
    assert capfd.readouterr() == ("", "")  # or the bindings would have printed it


# --- tensorrt ---


@pytest.fixture
def tensorrt(monkeypatch, fake_gpu):
    """What the config of a `tensorrt` was asked for."""
    module, calls = engine_pieces.tensorrt_from(rtx)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return calls


LOCAL = "tensorrt-11.0.0.12-local-fp16"
CACHE = "tensorrt-11.0.0.12.timing_cache"


def test_tensorrt_builds_for_the_gpu_of_this_machine(bundle, tensorrt):
    engine = build_engine(bundle, flavor="tensorrt")
    assert (engine.path.name, engine.flavor, engine.targets) == (f"{LOCAL}.engine", "tensorrt", ())
    assert engine.manifest["gpu"] == {"name": "NVIDIA Test 1", "compute_capability": "8.6"}
    assert engine.manifest["fused_attentions"] == 4
    assert engine.mismatch("tensorrt", "11.0.0.12", "8.6") is None
    assert engine.mismatch("tensorrt", "11.0.0.12", "8.9") is not None
    assert ("hardware_compatibility_level", "none") in tensorrt
    assert said(build_engine, bundle, flavor="tensorrt")[1] == ["up to date"]


def test_tensorrt_keeps_its_timings(bundle, tensorrt):
    build_engine(bundle, flavor="tensorrt")
    assert [c for c in tensorrt if "timing" in c[0]] == [
        ("create_timing_cache", b""),
        ("set_timing_cache", b"", False),
    ]
    assert left(bundle) == sorted([CACHE, f"{LOCAL}.engine", f"{LOCAL}.json"])
    assert (bundle.path / ENGINES_FOLDER / CACHE).read_bytes() == b"+1 build"
    tensorrt.clear()
    build_engine(bundle, flavor="tensorrt", rebuild=True)
    assert [c for c in tensorrt if "timing" in c[0]] == [
        ("create_timing_cache", b"+1 build"),
        ("set_timing_cache", b"+1 build", False),
    ]
    assert (bundle.path / ENGINES_FOLDER / CACHE).read_bytes() == b"+1 build+1 build"
    assert find_engines(bundle) == [bundle.path / ENGINES_FOLDER / f"{LOCAL}.engine"]


def test_where_a_gpu_can_load_the_engine_its_inspector_is_asked(bundle, fake_gpu, monkeypatch):
    """The log's kernels as the inspector writes them, but for one name that tells where the list came from."""
    asked = []

    class Inspector:
        def get_engine_information(self, form):
            asked.append(form)
            return json.dumps({"Layers": layers})

    class Runtime:
        def __init__(self, logger):
            lines = [line for text in logger.lines for line in text.splitlines() if line.startswith("Name: ")]
            layers.extend(map(as_layer, kernels.kernels_from_log(lines)))
            layers[0]["Name"] = "told by the inspector"

        def deserialize_cuda_engine(self, data):
            return types.SimpleNamespace(create_engine_inspector=Inspector)

    layers = []
    monkeypatch.setattr(rtx, "Runtime", Runtime)
    engine = build_engine(bundle)
    assert asked == [rtx.LayerInformationFormat.JSON]
    assert engine.manifest["list"][0]["name"] == "told by the inspector"
    assert engine.manifest["fused_attentions"] == engine.manifest["attentions"] > 0


def as_layer(kernel):
    """A kernel in the inspector's form."""

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


def test_an_engine_for_other_gpus_is_audited_by_the_builders_log(bundle, fake_gpu, monkeypatch):
    refusing = types.SimpleNamespace(deserialize_cuda_engine=lambda _: None)
    monkeypatch.setattr(rtx, "Runtime", lambda _: refusing)
    assert build_engine(bundle).manifest["kernels"] > 20


def test_tensorrt_without_timings(bundle, tensorrt):
    build_engine(bundle, flavor="tensorrt", timing_cache=False)
    assert not [c for c in tensorrt if "timing" in c[0]]
    assert left(bundle) == [f"{LOCAL}.engine", f"{LOCAL}.json"]


def test_tensorrt_for_other_gpus_too(bundle, tensorrt):
    engine = build_engine(bundle, flavor="tensorrt", hardware_compatibility="ampere_plus")
    assert ("hardware_compatibility_level", "ampere_plus") in tensorrt
    assert engine.manifest["hardware_compatibility"] == "ampere_plus"
    assert engine.mismatch("tensorrt", "11.0.0.12", "8.9") is None


def test_another_gpu_builds_anew(bundle, tensorrt, monkeypatch):
    build_engine(bundle, flavor="tensorrt")
    other = CudaDevice(0, "NVIDIA Test 2", "8.6", 1 << 34, "13.0")
    monkeypatch.setattr(CudaDevice, "current", staticmethod(lambda: other))
    engine, lines = said(build_engine, bundle, flavor="tensorrt")
    assert lines[-1] == "building the engine"
    assert engine.manifest["gpu"]["name"] == "NVIDIA Test 2"


def test_tensorrt_needs_a_gpu(bundle, tensorrt, no_gpu, no_build):
    with pytest.raises(MissingError) as error:
        build_engine(bundle, flavor="tensorrt")
    assert_one_line(error, "TensorRT needs a GPU to build on", "no CUDA driver", "use --flavor rtx")
    assert left(bundle) == []


def test_rtx_touches_no_timing_cache(bundle, monkeypatch):
    """It raises when it is asked for one, whatever the bindings show."""

    def refuse(*_):
        raise RuntimeError("RTX has no timing cache")

    for name in ("create_timing_cache", "set_timing_cache", "get_timing_cache"):
        monkeypatch.setattr(rtx.IBuilderConfig, name, refuse)
    build_engine(bundle, timing_cache=True)
    assert left(bundle) == [FP16, f"{STEM}-fp16.json"]


def test_weights_that_are_left_out_come_from_a_graph_of_the_engines_types(bundle, tensorrt):
    engine = build_engine(bundle, flavor="tensorrt", strip=True)
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

    monkeypatch.setattr(engine_build, "write_engine", full)
    with pytest.raises(InputError, match="no space left"):
        build_engine(bundle, flavor="tensorrt", strip=True)
    assert not [name for name in left(bundle) if name.endswith((".onnx", ".engine"))]


def test_weights_that_were_lost_are_built_anew(bundle, tensorrt):
    engine = build_engine(bundle, flavor="tensorrt", strip=True)
    lost = engine.path.with_name(engine.weights)
    lost.unlink()
    assert build_engine(bundle, flavor="tensorrt", strip=True).weights == lost.name
    assert lost.is_file()


def test_weights_that_are_left_out_of_a_bundle_of_that_precision_come_from_its_graph(tmp_path, tensorrt):
    model = scrambled(Sizes(64, 2, 2, 64, 2, 2))
    low = engine_pieces.export_ungated(model, tmp_path / "low", size=SIZE, precision="fp16")
    engine = build_engine(low, flavor="tensorrt", strip=True)
    assert (engine.stripped, engine.weights) == (True, None)
    assert f"{LOCAL}.onnx" not in left(low)


# --- sizes that are used ---


def assert_fused_and_small(report, precision, most_kernels, attentions):
    assert len(report.kernels) <= most_kernels
    assert len(report.facts.attentions) == attentions
    assert report.unfused == ()
    assert report.wrong_precision == ()
    assert set(report.precisions) == {"fp32", precision}
    assert sum(report.flops()) == sum(report.facts.flops.values())
    moving = {"Reshape", "Transpose", "Split", "Concat"}
    for kernel in report.kernels:
        operators = {n.rsplit("/", 1)[-1].split(".")[0] for n in kernel.nodes}
        assert not (operators and operators <= moving), f"{kernel.name} only moves"


def assert_as_documented(report, model, frame, precision):
    """The row of docs/engines.md, where this is the version that it was made with."""
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith(f"| {model} | {frame} |")]
    (row,) = (cells for cells in rows if cells[2].strip() == precision)
    if f"TensorRT-RTX {VERSION}" not in page:
        return
    fused = len(report.facts.attentions) - len(report.unfused)
    moved = f"{report.bytes_moved / 1e9:.3f} ({report.facts.minimum_bytes / 1e9:.3f})"
    told = [str(len(report.kernels)), f"{fused} of {len(report.facts.attentions)}", moved]
    told.append(f"{sum(report.flops()) / 1e9:.0f}")
    bounds = [f"{report.bound_ms(gpu):.2f} ms" for gpu in audit.GPUS]
    assert [cell.strip() for cell in (*row[3:7], *row[8:])] == told + bounds


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_tiny_at_640x480(precision):
    report = engine_pieces.audit_of(rtx, load_weights("tiny"), (480, 640), precision)
    assert_fused_and_small(report, precision, 110, 10)
    assert_as_documented(report, "tiny", "640x480", precision)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_nano_at_640x480_with_windows_of_ten_tokens(precision):
    report = engine_pieces.audit_of(rtx, load_weights("nano"), (480, 640), precision)
    assert_fused_and_small(report, precision, 95, 8)
    assert_as_documented(report, "nano", "640x480", precision)


# Large, 448x448, passes the same but takes more than 3 GB and half a minute: benchmarks/engine_table.py builds it.
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_base_at_448x448(precision):
    model = engine_pieces.random_weights(PRESETS["base"])
    report = engine_pieces.audit_of(rtx, model, (448, 448), precision)
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
    products = [n for n in report.facts.flops if n.startswith(f"{block}/")]
    assert len(products) == 8  # q, k, v, two in attention, projection, two in the MLP
    assert any(set(products[:3]) <= set(k.nodes) for k in report.kernels)  # q, k, v by one kernel
    for node in products:
        assert sum(node in k.nodes for k in report.kernels) == 1, node
