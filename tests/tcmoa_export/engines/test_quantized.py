"""8-bit bundles built by TensorRT-RTX: which products read 8 bits on both sides, and what stays fused.

The builder runs without a GPU; its engines are not run.
"""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from calibration_pieces import export_micro, export_tiny, write_pairs
from engine_pieces import NO_RTX
from tcmoa_calibration.quantize import quantize_bundle
from tcmoa_calibration.quantize.sessions import new_session
from tcmoa_calibration.sample_pairs import graph_inputs
from tcmoa_export import build_engine, parity
from tcmoa_export.engines import build
from tcmoa_export.engines.audit import Audit
from tcmoa_export.engines.gpus import GPUS
from tcmoa_export.engines.graph_summary import GraphSummary, summarize_graph
from tcmoa_export.engines.kernels import Kernel, TensorView
from tcmoa_export.engines.lowering import sign_activations
from tcmoa_export.precision import lower
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.build import BuildOptions
from tcmoa_runtime.options.quantize import QuantizeOptions
from tcmoa_runtime.pairs import find_pairs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("engine") / "pairs", 4)


@pytest.fixture(scope="module")
def quantized(pairs, tmp_path_factory):
    """Return a function from number format to the calibration of the trained model; each is made once."""
    folder = tmp_path_factory.mktemp("engine")
    source = export_tiny(folder / "tiny")
    known = {}

    def of(number_format):
        if number_format not in known:
            options = QuantizeOptions(number_format=number_format, min_psnr=0, smoothing=0.5, ranges="max")
            known[number_format] = quantize_bundle(source, find_pairs(pairs), folder / number_format, options)
        return known[number_format]

    return of


@pytest.fixture(scope="module")
def for_gpus(pairs, tmp_path_factory):
    """The calibration of a small model for GPUs."""
    folder = tmp_path_factory.mktemp("engine")
    options = QuantizeOptions(min_psnr=0, smoothing=0.5, ranges="max", target="gpu")
    return quantize_bundle(export_micro(folder / "micro"), find_pairs(pairs), folder / "int8", options)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_signed_activations_are_the_same_numbers(quantized, for_gpus, target):
    result = for_gpus if target == "gpu" else quantized("int8")
    model = onnx.load(result.bundle.graph_path)
    inputs = graph_inputs(result.bundle, result.pairs.held_out[0])
    before = new_session(model).run(None, inputs)[0]
    sign_activations(model)
    assert not [t for t in model.graph.initializer if t.data_type == TensorProto.UINT8]
    after = new_session(model).run(None, inputs)[0].astype(int)
    # Sums are computed in another order, and a number on the edge of a step may be rounded either way.
    assert 10 * np.log10(255**2 / max(np.mean((after - before) ** 2), 1e-9)) > 55


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_lowering_does_not_change_the_quantized_numbers(quantized, precision):
    model = onnx.load(quantized("int8").bundle.graph_path)
    weights = {t.name: t.raw_data for t in model.graph.initializer if t.data_type == TensorProto.INT8}
    lower(sign_activations(model), precision)
    onnx.checker.check_model(model)
    after = {t.name: t.raw_data for t in model.graph.initializer}
    assert all(after[name] == data for name, data in weights.items())
    kind = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.BFLOAT16
    types = {t.name: t.data_type for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            assert types[node.input[1]] == kind
        # The float32 result of a norm is quantized without rounding to 16 bits in between.
        if node.op_type == "QuantizeLinear" and "LayerNormalization" in node.input[0]:
            assert node.input[0].endswith("LayerNormalization") or "LayerNormalization." in node.input[0]
            assert types[node.input[1]] == TensorProto.FLOAT


def test_the_summary_of_a_quantized_graph(quantized):
    result = quantized("int8")
    plain = summarize_graph(lower(onnx.load(result.bundle.path.parent / "tiny" / "fusion.onnx"), "fp16"))
    summary = summarize_graph(lower(sign_activations(onnx.load(result.bundle.graph_path)), "fp16"))
    assert set(summary.eight_bit.values()) == {"int8"}
    assert len(summary.eight_bit) == 36  # q, k and v count separately
    assert plain.eight_bit == {}
    assert len(summary.attentions) == len(plain.attentions) == 6
    assert all(len(products) == 2 for products in summary.attentions.values())
    assert sum(summary.flops.values()) == sum(plain.flops.values())
    assert summary.min_bytes < plain.min_bytes


@pytest.mark.slow
@pytest.mark.parametrize("number_format", ["int8", "fp8"])
def test_the_real_builder_multiplies_in_8_bits_and_fuses_every_attention(quantized, pairs, number_format):
    pytest.importorskip("tensorrt_rtx_bindings", reason=NO_RTX)
    bundle = quantized(number_format).bundle
    targets = {"int8": ("sm86", "sm89"), "fp8": ("sm89", "sm120")}[number_format]
    engine = build_engine(bundle, BuildOptions(targets=targets, pairs=pairs))
    manifest = engine.manifest
    # Four products per block, or six where q, k and v are not merged: none reads 16 bits where the graph states 8.
    assert manifest["eight_bit_products"] in (24, 36)
    assert manifest["eight_bit_linears"] == 36
    summary = summarize_graph(onnx.load(bundle.graph_path))
    computed = {n for k in manifest["list"] if k["precision"] == number_format for n in k["nodes"]}
    assert summary.eight_bit.keys() <= computed
    assert (manifest["fused_attentions"], manifest["attentions"]) == (6, 6)
    assert manifest["precisions"][number_format] >= 24
    for kernel in manifest["list"]:
        if kernel["kind"] == "matmul" and kernel["precision"] == number_format:
            stored = {"int8": "Int8", "fp8": "FP8"}[number_format]
            assert stored in {tensor["type"] for tensor in kernel["inputs"]}
            assert stored in {constant["type"] for constant in kernel["constants"]}
    assert ("RTX A6000" in manifest["bounds"]) == (number_format == "int8")  # Ampere has no FP8
    assert manifest["precision"] == "fp16"  # of everything else


def test_engines_of_a_bundle_for_gpus_have_8_kernels_a_block(for_gpus, pairs):
    """GELU is the only one more than in fp16, and reads and writes 8 bits."""
    pytest.importorskip("tensorrt_rtx_bindings", reason=NO_RTX)
    manifest = build_engine(for_gpus.bundle, BuildOptions(targets=("sm86", "sm89"), pairs=pairs)).manifest
    assert for_gpus.bundle.manifest["quantization"]["target"] == "gpu"
    assert (manifest["fused_attentions"], manifest["attentions"]) == (10, 10)
    assert (manifest["eight_bit_linears"], manifest["eight_bit_products"]) == (50, 30)

    def types(tensors):
        """Types of the tensors of many numbers: tokens and weights, not scales."""
        return {t["type"] for t in tensors if np.prod(t["shape"]) > 1024}

    blocks = [f"{stage}.{i}" for stage, depth in (("encoder", 6), ("decoder", 4)) for i in range(depth)]
    # One kernel may compute the end of a block and the norm of the next.
    counts = [manifest["by_scope"][block]["kernels"] for block in blocks]
    assert max(counts) <= 9
    assert sum(counts) <= 8 * len(blocks)
    for block in blocks:
        kernels = [k for k in manifest["list"] if any(node.startswith(f"{block}/") for node in k["nodes"])]
        copies = [k["name"] for k in kernels if k["kind"] == "other" and "Erf" not in k["name"]]
        assert not copies, block
        (before,) = [k for k in kernels if k["kind"] == "matmul" and f"{block}/mlp/MatMul" in k["nodes"]]
        assert types(before["inputs"]) == types(before["outputs"]) == types(before["constants"]) == {"Int8"}
        (gelu,) = [k for k in kernels if "Erf" in k["name"]]
        assert types(gelu["inputs"]) == types(gelu["outputs"]) == {"Int8"}
        (projection,) = [
            k for k in kernels if k["kind"] == "matmul" and f"{block}/attention/MatMul.5" in k["nodes"]
        ]
        assert projection["precision"] == "fp16"
        assert types(projection["inputs"]) == types(projection["outputs"]) == {"Half"}


def test_a_build_says_when_a_bundle_in_int8_was_calibrated_for_cpus(quantized, for_gpus, pairs, monkeypatch):
    pytest.importorskip("tensorrt_rtx_bindings", reason=NO_RTX)
    said = []

    def stop(*_):
        raise InputError("stopped")

    monkeypatch.setattr(build, "load_lowered_graph", stop)
    for result, expected in ((quantized("int8"), 1), (for_gpus, 0)):
        said.clear()
        with pytest.raises(InputError, match="stopped"):
            build_engine(result.bundle, BuildOptions(pairs=pairs), on_message=said.append)
        assert len([line for line in said if "was calibrated for CPUs" in line]) == expected


def kernel_of(node, reads, weights):
    def view(name, dtype):
        return (TensorView(name, (8, 8), dtype),)

    return Kernel("k", "gemm", view("a", reads), view("w", weights), view("o", "Half"), (node,))


@pytest.mark.parametrize(
    ("reads", "weights", "wrong"),
    [
        ("Int8", "Int8", ()),
        ("Half", "Int8", ("k reads no activations in int8",)),
        ("FP8", "FP8", ("k reads fp8, not int8",)),
        ("Int8", "Half", ("k reads fp16, not int8",)),
    ],
)
def test_a_product_with_only_one_operand_in_8_bits_is_reported(reads, weights, wrong):
    node = "encoder.0/mlp/MatMul"
    summary = GraphSummary({node: 1024}, frozenset(), {node: "int8"}, {}, 0)
    report = Audit((kernel_of(node, reads, weights),), summary, "fp16")
    assert report.wrong_precision == wrong
    assert report.eight_bit_products == (reads == weights)


def test_gpus_without_the_arithmetic_have_no_bound():
    node = "encoder.0/mlp/MatMul"
    summary = GraphSummary({node: 10**12}, frozenset(), {node: "fp8"}, {}, 0)
    report = Audit((kernel_of(node, "FP8", "FP8"),), summary, "fp16")
    bounds = {gpu.name: report.bound_ms(gpu) for gpu in GPUS}
    assert bounds["RTX A6000"] is None
    assert bounds["RTX 4090"] == pytest.approx(1e12 / 330.3e12 * 1e3)


def test_prompts_of_products_in_8_bits_may_differ_as_much_as_those_of_bf16():
    near = parity.Parity(1, ["a"], "onnxruntime", 1, 0.03, 0.0, 50.0, 0.15)
    parity.check_parity(near, "fp16, products in 8 bits")
    with pytest.raises(parity.ParityError) as caught:
        parity.check_parity(replace(near, prompt_difference=0.16), "fp16, products in 8 bits")
    assert str(caught.value) == (
        "the fp16 graph with products in 8 bits: the difference of prompts is 0.16; expected at most 0.15 (the largest "
        "difference from the model is 1 gray levels). Nothing was written. Please report it, with the weights if you "
        "can."
    )
