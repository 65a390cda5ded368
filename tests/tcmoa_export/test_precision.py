"""16-bit graphs: close to float32, marked nodes stay float32, no overflow on hard input."""

import functools

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from micro_model import frames, scrambled
from onnx_pieces import open_graph, run_graph
from tcmoa import PRESETS, TCMoA, load_weights
from tcmoa_export import ParityError, export_bundle, parity
from tcmoa_export.bf16_emulation import emulate_bf16
from tcmoa_export.graph_builder import FLOAT32, FLOAT32_IN_BF16, GraphBuilder
from tcmoa_export.network import build_graph
from tcmoa_export.photographs import make_pair
from tcmoa_export.precision import lower
from tcmoa_export.spec import make_spec
from tcmoa_runtime import BundleError, Fuser
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.pairs import find_pairs
from tcmoa_runtime.prompts import MAX_PROMPT

SIZE = (50, 100)
"""Two windows, as the model doubles the frame, with padding below and to the right."""
MIN_PSNR_DB = {"fp16": 50, "bf16": 45}
LOW = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def psnr(a, b):
    return 10 * np.log10(255**2 / np.maximum(np.mean((a.astype(float) - b) ** 2), 1e-9))


def lowered(model, task, size, precision):
    """Return a graph that ONNX Runtime runs on a CPU, and its spec."""
    spec = make_spec(model, ExportOptions(task=task, size=size, precision=precision, with_prompt=True))
    proto = build_graph(model, spec, precision, "0")
    return emulate_bf16(proto) if precision == "bf16" else proto, spec


def fuse(model, task, precision, x, y):
    return fuse_in(*lowered(model, task, x.shape[:2], precision), x, y)


def fuse_in(graph, spec, x, y):
    ones = np.ones((1, *spec.layout.grid), np.float32)
    return run_graph(graph, x=x[None], y=y[None], prompt_scale=ones, prompt_shift=ones * 0)["fused"][0]


@pytest.fixture(scope="module")
def tiny():
    """The trained model; tests do not change it."""
    return load_weights("tiny")


@pytest.fixture(scope="module")
def photographs(tiny):
    """Function that returns a pair of photographs of a task, and the result in float32."""

    @functools.cache
    def of(task):
        pair = make_pair(task, "coffee", (224, 224))
        return pair.x, pair.y, fuse(tiny, task, "fp32", pair.x, pair.y)

    return of


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_trained_weights_stay_close_to_float32_on_photographs(task, precision, tiny, photographs):
    x, y, exact = photographs(task)
    assert psnr(exact, fuse(tiny, task, precision, x, y)) >= MIN_PSNR_DB[precision]


@pytest.fixture(scope="module")
def real_pairs(val_pairs, tiny):
    """Function that returns some pairs of a task, all of one size, with the results in float32."""

    @functools.cache
    def of(task):
        found = find_pairs(val_pairs / task)[::8]
        pairs = [
            [np.ascontiguousarray(read_frame(path)[:224, :322]) for path in (pair.x, pair.y)]
            for pair in found
        ]
        proto, spec = lowered(tiny, task, pairs[0][0].shape[:2], "fp32")
        session = open_graph(proto)
        return [
            (pair.name, x, y, fuse_in(session, spec, x, y)) for pair, (x, y) in zip(found, pairs, strict=True)
        ]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_trained_weights_stay_close_to_float32_on_real_pairs(precision, task, tiny, real_pairs):
    pairs = real_pairs(task)
    proto, spec = lowered(tiny, task, pairs[0][1].shape[:2], precision)
    session = open_graph(proto)
    for name, x, y, exact in pairs:
        assert psnr(exact, fuse_in(session, spec, x, y)) >= MIN_PSNR_DB[precision], name


@pytest.fixture(scope="module")
def base(val_pairs):
    """The float32 graph of the base model and its spec, a real pair, and its result in float32."""
    graph, spec = lowered(TCMoA(PRESETS["base"], upsample=False).eval(), "vif", (224, 224), "fp32")
    found = find_pairs(val_pairs / "vif")[0]
    x, y = (np.ascontiguousarray(read_frame(path)[:224, :224]) for path in (found.x, found.y))
    return graph, spec, x, y, fuse_in(graph, spec, x, y)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_base_with_random_weights_stays_close_to_float32_on_a_real_pair(precision, base):
    graph, spec, x, y, exact = base
    low = onnx.ModelProto()
    low.CopyFrom(graph)
    low = lower(low, precision)  # as an export in the precision ends
    low = emulate_bf16(low) if precision == "bf16" else low
    assert psnr(exact, fuse_in(low, spec, x, y)) >= MIN_PSNR_DB[precision]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_random_weights_stay_close_to_float32(precision):
    x, y = frames(*SIZE)[0], frames(*SIZE, seed=1)[0]
    exact, low = (fuse(scrambled(), "vif", p, x, y) for p in ("fp32", precision))
    # With 8 bits and random weights bf16 is below the bound of the export: this only excludes gross errors.
    assert psnr(exact, low) >= (50 if precision == "fp16" else 36)


@pytest.fixture(scope="module")
def observed():
    """Function that returns a session of a random model in a precision that outputs every sum and product."""

    @functools.cache
    def of(precision):
        proto, spec = lowered(scrambled(), "vif", SIZE, precision)
        outputs = [
            n.output[0]
            for n in proto.graph.node
            if n.op_type in ("LayerNormalization", "MatMul", "Add", "Conv")
        ]
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        return open_graph(proto), spec

    return of


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("scale", [-MAX_PROMPT, 0.0, MAX_PROMPT])
@pytest.mark.parametrize("shift", [-MAX_PROMPT, MAX_PROMPT])
@pytest.mark.parametrize("kind", ["black", "white", "noise"])
def test_hard_frames_and_extreme_prompts_overflow_nothing(kind, scale, shift, precision, observed):
    """The prompts would show NaN; in the image the last Clip turns infinity into 0 or 255."""
    level = {"black": 0, "white": 255}.get(kind)
    x = np.full((*SIZE, 3), level or 0, np.uint8)
    y = 255 - x
    if level is None:
        x, y = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
    session, spec = observed(precision)
    ones = np.ones((1, *spec.layout.grid), np.float32)
    values = run_graph(
        session,
        x=x[None],
        y=y[None],
        prompt_scale=np.float32(scale) * ones,
        prompt_shift=np.float32(shift) * ones,
    )
    assert len(values) > 100
    for name, value in values.items():
        assert np.isfinite(value.astype(np.float32)).all(), name


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_marked_nodes_are_float32_and_no_others(precision):
    spec = make_spec(scrambled(), ExportOptions(task="vif", size=SIZE, precision=precision))
    graph = build_graph(scrambled(), spec, "low", "0")
    onnx.checker.check_model(graph, full_check=True)
    proto = onnx.shape_inference.infer_shapes(graph, strict_mode=True, data_prop=True)
    types = {v.name: v.type.tensor_type.elem_type for v in proto.graph.value_info}
    seen = set()
    for node in proto.graph.node:
        if node.output[0] in types and types[node.output[0]] in (TensorProto.FLOAT, LOW[precision]):
            marked = node.doc_string == FLOAT32 or (
                node.doc_string == FLOAT32_IN_BF16 and precision == "bf16"
            )
            expected = TensorProto.FLOAT if marked else LOW[precision]
            if node.op_type != "Cast":
                assert types[node.output[0]] == expected, node.name
                seen.add((node.op_type, expected == TensorProto.FLOAT))
    for op_type in ("Exp", "Log", "Sqrt", "Sigmoid", "LayerNormalization"):
        assert (op_type, True) in seen
        assert (op_type, False) not in seen, op_type
    assert ("Erf", False) in seen
    assert types["encoder.0/attention/MatMul"] == LOW[precision]
    assert types["tail/MatMul"] == TensorProto.FLOAT
    # Visible in 8 bits: the patch embedding, the projection to the decoder, and its residual stream.
    for name in ("head/Conv", "decoder_embed/MatMul", "decoder.0/mlp/Add.3", "decoder.1/attention/Add.2"):
        assert types[name] == (TensorProto.FLOAT if precision == "bf16" else TensorProto.FLOAT16), name
    assert types["encoder.0/mlp/Add.3"] == LOW[precision]
    assert types["encoder_moa.0/MatMul"] == TensorProto.FLOAT


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_frames_are_cast_only_as_tensorrt_can(precision):
    """By NVIDIA's headers (`ICastLayer`), uint8 converts to and from float32 and float16 only."""
    spec = make_spec(scrambled(), ExportOptions(task="vif", size=SIZE, precision=precision))
    graph = build_graph(scrambled(), spec, "low", "0").graph
    casts = {
        node.output[0]: node.attribute[0].i
        for node in graph.node
        if node.op_type == "Cast" and node.input[0] in "xy"
    }
    assert len(casts) == 2
    assert set(casts.values()) == {TensorProto.FLOAT if precision == "bf16" else TensorProto.FLOAT16}
    (last,) = (node for node in graph.node if graph.output[0].name in node.output)
    assert (last.op_type, last.attribute[0].i, last.doc_string) == ("Cast", TensorProto.UINT8, FLOAT32)


def test_attention_is_accumulated_in_float32_product_by_product():
    """TensorRT fuses this form with float32 accumulation: 16-bit operands cast up, the product cast down."""
    graph = build_graph(
        scrambled(),
        make_spec(scrambled(), ExportOptions(task="vif", size=SIZE, precision="fp16")),
        "low",
        "0",
    ).graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    inside = [n for n in graph.node if n.op_type == "MatMul" and "/attention/" in n.name]
    products = [n for n in inside if constants.isdisjoint(n.input)]
    assert len(products) == len(inside) / 3  # the others are q, k, v and the projection
    for node in products:
        assert node.doc_string == FLOAT32
        assert [makers[name].op_type for name in node.input] == ["Cast", "Cast"]
        readers = [n for n in graph.node if node.output[0] in n.input]
        assert [n.op_type for n in readers] == ["Cast"]


def small_graph():
    """Return z = float32(cast(x) * 1.1 + 1.1), where one constant is used in both precisions."""
    graph = GraphBuilder()
    number = graph.scalar(1.1)
    low = graph.mul(graph.op("Cast", "x", to=TensorProto.FLOAT), number)
    with graph.float32():
        graph.output("Add", "z", low, number)
    proto = graph.build("small", [], [], "0")
    proto.graph.input.append(helper.make_tensor_value_info("x", TensorProto.UINT8, [3]))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [3]))
    return proto


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_constant_that_is_used_in_both_precisions_is_stored_in_both(precision):
    proto = lower(small_graph(), precision)
    onnx.checker.check_model(proto, full_check=True)
    kinds = sorted(t.data_type for t in proto.graph.initializer)
    assert kinds == sorted([TensorProto.FLOAT, LOW[precision]])
    for tensor in proto.graph.initializer:
        assert abs(float(numpy_helper.to_array(tensor)) - 1.1) < 0.01
    x = np.array([0, 1, 200], np.uint8)
    values = run_graph(emulate_bf16(proto) if precision == "bf16" else proto, x=x)["z"]
    np.testing.assert_allclose(values, x * np.float32(1.1) + 1.1, rtol=0.01)
    # The rounding to 16 bits has an effect.
    exact = run_graph(small_graph(), x=x)["z"]
    assert np.abs(values - exact).max() > 0


def test_lowering_to_float32_changes_nothing():
    proto = small_graph()
    before = proto.SerializeToString(deterministic=True)
    assert lower(proto, "fp32").SerializeToString(deterministic=True) == before


def test_emulation_rounds_as_bfloat16_does():
    graph = GraphBuilder()
    graph.output("Mul", "z", graph.op("Cast", "x", to=TensorProto.FLOAT), graph.scalar(1.1))
    proto = graph.build("small", [], [], "0")
    proto.graph.input.append(helper.make_tensor_value_info("x", TensorProto.UINT8, [200]))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [200]))
    low = lower(proto, "bf16")
    low.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    x = np.arange(200, dtype=np.uint8)
    b = ml_dtypes.bfloat16
    expected = (x.astype(b).astype(np.float32) * np.float32(b(1.1))).astype(b).astype(np.float32)
    np.testing.assert_array_equal(run_graph(emulate_bf16(low), x=x)["z"], expected)


def test_an_fp16_bundle_is_half_the_size_and_fuses(tmp_path):
    sizes = {}
    fused = {}
    x, y = frames(*SIZE)[0], frames(*SIZE, seed=1)[0]
    for precision in ("fp32", "fp16"):
        bundle = export_bundle(
            scrambled(), ExportOptions(task="vif", size=SIZE, precision=precision), tmp_path / precision
        )
        assert bundle.precision == precision
        sizes[precision] = bundle.files["fusion.onnx"].bytes
        with Fuser.load(bundle.path) as fuser:
            fused[precision] = fuser(x, y)
    assert bundle.manifest["parity"]["psnr_db"] >= 50
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    assert psnr(fused["fp32"], fused["fp16"]) >= 50


def test_a_bf16_bundle_is_checked_by_emulation_and_refused_by_onnx_runtime(tmp_path):
    bundle = export_bundle(
        load_weights("tiny"), ExportOptions(task="vif", size=SIZE, precision="bf16"), tmp_path / "b"
    )
    assert bundle.precision == "bf16"
    assert bundle.manifest["parity"]["psnr_db"] >= 45
    assert "emulated" in bundle.manifest["parity"]["backend"]
    with pytest.raises(BundleError, match="a bf16 graph, which ONNX Runtime cannot run on the CPU") as error:
        Fuser.load(bundle.path)
    assert "tcmoa build" in str(error.value)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_graph_below_its_bound_leaves_no_bundle(tmp_path, monkeypatch, precision):
    monkeypatch.setitem(parity.MIN_PSNR_DB, precision, 99.0)
    with pytest.raises(ParityError, match="PSNR to the model is"):
        export_bundle(scrambled(), ExportOptions(task="vif", size=SIZE, precision=precision), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []
