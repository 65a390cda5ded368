"""fp16 graphs: near to float32, prompts made in float32, no overflow on hard input."""

import numpy as np
import onnx
import pytest

from micro_model import frames, scrambled
from onnx_pieces import run_graph
from tcmoa import load_weights
from tcmoa_export import GateError, export_bundle, gate
from tcmoa_export.network import build_graph
from tcmoa_export.photographs import made_pair
from tcmoa_export.spec import make_spec
from tcmoa_runtime import Fuser
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.pairs import find_pairs
from tcmoa_runtime.prompts import LARGEST

SIZE = (100, 130)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.maximum(np.mean((a.astype(float) - b) ** 2), 1e-9))


def graphs(model, task, size):
    for precision in ("fp32", "fp16"):
        spec = make_spec(model, task, size, precision=precision, with_prompt=True)
        yield build_graph(model, spec, precision, "0"), spec.layout.grid


def both(model, task, x, y, scale=1.0, shift=0.0):
    """fused of float32 and of fp16, and the fp16 graph's prompts."""
    results = []
    for proto, grid in graphs(model, task, x.shape[:2]):
        ones = np.ones((1, *grid), np.float32)
        maps = {"prompt_scale": ones * np.float32(scale), "prompt_shift": ones * np.float32(shift)}
        results.append(run_graph(proto, x=x[None], y=y[None], **maps))
    return results[0]["fused"][0], results[1]["fused"][0], results[1]["prompt"][0]


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_trained_weights_keep_50_db_on_photographs(task):
    pair = made_pair(task, "coffee", (224, 224))
    exact, half, _ = both(load_weights("tiny"), task, pair.x, pair.y)
    assert psnr(exact, half) >= 50


@pytest.mark.slow
@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_trained_weights_keep_50_db_on_real_pairs(task, val_pairs):
    model = load_weights("tiny")
    for found in find_pairs(val_pairs / task)[::4]:
        x, y = (np.ascontiguousarray(read_frame(path)[:224, :336]) for path in (found.x, found.y))
        exact, half, _ = both(model, task, x, y)
        assert psnr(exact, half) >= 50, found.name


def test_random_weights_keep_50_db():
    x, y = frames(*SIZE)[0], frames(*SIZE, seed=1)[0]
    exact, half, _ = both(scrambled(), "vif", x, y)
    assert psnr(exact, half) >= 50


@pytest.mark.parametrize("scale", [-LARGEST, 0.0, LARGEST])
@pytest.mark.parametrize("shift", [-LARGEST, LARGEST])
@pytest.mark.parametrize("kind", ["black", "white", "noise"])
def test_hard_frames_and_extreme_prompts_overflow_nothing(kind, scale, shift):
    """NaN would come out of the prompts; inside the image the last Clip turns infinity into 0 or 255."""
    level = {"black": 0, "white": 255}.get(kind)
    x = np.full((*SIZE, 3), level or 0, np.uint8)
    y = 255 - x
    if level is None:
        x, y = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
    spec = make_spec(scrambled(), "vif", SIZE, precision="fp16", with_prompt=True)
    proto = build_graph(scrambled(), spec, "fp16", "0")
    inside = [
        n.output[0] for n in proto.graph.node if n.op_type in ("LayerNormalization", "MatMul", "Add", "Conv")
    ]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inside)
    ones = np.ones((1, *spec.layout.grid), np.float32)
    values = run_graph(
        proto,
        x=x[None],
        y=y[None],
        prompt_scale=np.float32(scale) * ones,
        prompt_shift=np.float32(shift) * ones,
    )
    assert len(values) > 100
    for name, value in values.items():
        assert np.isfinite(value.astype(np.float32)).all(), name


def test_prompts_are_made_and_sources_restandardised_in_float32():
    spec = make_spec(scrambled(), "vif", SIZE, precision="fp16")
    proto = onnx.shape_inference.infer_shapes(build_graph(scrambled(), spec, "fp16", "0"), data_prop=True)
    types = {v.name: v.type.tensor_type.elem_type for v in proto.graph.value_info}
    kinds = {"Exp": set(), "Log": set(), "Sqrt": set(), "Sigmoid": set(), "MatMul": set(), "Erf": set()}
    for node in proto.graph.node:
        if node.op_type in kinds:
            kinds[node.op_type].add(types[node.output[0]])
    for island in ("Exp", "Log", "Sqrt", "Sigmoid"):
        assert kinds[island] == {onnx.TensorProto.FLOAT}, island
    assert kinds["Erf"] == {onnx.TensorProto.FLOAT16}
    assert types["encoder.0/attention/MatMul"] == onnx.TensorProto.FLOAT16
    assert types["tail/MatMul"] == onnx.TensorProto.FLOAT


def test_an_fp16_bundle_is_half_the_size_and_fuses(tmp_path):
    sizes = {}
    fused = {}
    x, y = frames(*SIZE)[0], frames(*SIZE, seed=1)[0]
    for precision in ("fp32", "fp16"):
        bundle = export_bundle(
            scrambled(), task="vif", size=SIZE, out=tmp_path / precision, precision=precision
        )
        assert bundle.precision == precision
        sizes[precision] = bundle.files["fusion.onnx"]["bytes"]
        with Fuser.load(bundle.path) as fuser:
            fused[precision] = fuser(x, y)
    assert bundle.manifest["parity"]["psnr_db"] >= 50
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    assert psnr(fused["fp32"], fused["fp16"]) >= 50


def test_an_fp16_graph_below_50_db_is_no_bundle(tmp_path, monkeypatch):
    monkeypatch.setitem(gate.LEAST_PSNR, "fp16", 99.0)
    with pytest.raises(GateError, match="too far from the model"):
        export_bundle(scrambled(), task="vif", size=SIZE, out=tmp_path / "b", precision="fp16")
    assert list(tmp_path.iterdir()) == []
