"""Engines by the real builder of TensorRT-RTX, which needs no GPU: fused, in the precision, and small."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

import engine_pieces
from build_pieces import (
    FP16,
    STEM,
    VERSION,
    assert_one_line,
    build_and_listen,
    build_with,
    names_in,
    rtx,
    state,
)
from engine_pieces import SIZE
from micro_model import scrambled
from tcmoa import PRESETS, Sizes, load_weights
from tcmoa_export import BuildError
from tcmoa_export.engines import build
from tcmoa_export.engines.build import build_engine
from tcmoa_export.engines.gpus import GPUS
from tcmoa_export.engines.graph_summary import summarize_graph
from tcmoa_runtime import InputError
from tcmoa_runtime.engine import Engine
from tcmoa_runtime.engine_folders import ENGINES_FOLDER


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


@pytest.mark.usefixtures("remembered_builds")
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


@pytest.mark.usefixtures("remembered_builds")
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
