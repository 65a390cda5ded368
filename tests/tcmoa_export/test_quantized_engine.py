"""Bundles in 8 bits as TensorRT-RTX builds them: which products read 8 bits on both sides, and what stays fused.

The builder runs without a GPU; what it made never ran.
"""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from calibration_pieces import export_tiny, write_pairs
from engine_pieces import NO_RTX
from tcmoa_calibration.quantize import quantize_bundle
from tcmoa_calibration.quantize.sessions import new_session
from tcmoa_calibration.sample_pairs import graph_inputs
from tcmoa_export import build_engine
from tcmoa_export.audit import GPUS, Audit, GraphFacts, graph_facts
from tcmoa_export.kernels import Kernel, Tensor
from tcmoa_export.precision import lower, sign_activations
from tcmoa_runtime.options.quantize import QuantizeOptions
from tcmoa_runtime.pairs import find_pairs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("engine") / "pairs", 4)


@pytest.fixture(scope="module")
def quantized(pairs, tmp_path_factory):
    """A calibration of the trained model by format; made once."""
    folder = tmp_path_factory.mktemp("engine")
    source = export_tiny(folder / "tiny")
    known = {}

    def of(number_format):
        if number_format not in known:
            options = QuantizeOptions(number_format=number_format, min_psnr=0, smoothing=0.5, ranges="max")
            known[number_format] = quantize_bundle(source, find_pairs(pairs), folder / number_format, options)
        return known[number_format]

    return of


def test_signed_activations_are_the_same_numbers(quantized):
    result = quantized("int8")
    model = onnx.load(result.bundle.graph_path)
    inputs = graph_inputs(result.bundle, result.pairs.held_out[0])
    before = new_session(model).run(None, inputs)[0]
    sign_activations(model)
    assert not [t for t in model.graph.initializer if t.data_type == TensorProto.UINT8]
    after = new_session(model).run(None, inputs)[0].astype(int)
    # Sums are taken in another order, and a number on the edge of a step may fall to either side.
    assert 10 * np.log10(255**2 / np.mean((after - before) ** 2)) > 55


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_lowering_leaves_the_quantized_numbers_alone(quantized, precision):
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
        # What a norm gives in float32 is quantized from there, without a rounding to 16 bits between.
        if node.op_type == "QuantizeLinear" and "LayerNormalization" in node.input[0]:
            assert node.input[0].endswith("LayerNormalization") or "LayerNormalization." in node.input[0]
            assert types[node.input[1]] == TensorProto.FLOAT


def test_facts_of_a_quantized_graph(quantized):
    result = quantized("int8")
    plain = graph_facts(lower(onnx.load(result.bundle.path.parent / "tiny" / "fusion.onnx"), "fp16"))
    facts = graph_facts(lower(sign_activations(onnx.load(result.bundle.graph_path)), "fp16"))
    assert set(facts.eight_bit.values()) == {"int8"}
    assert len(facts.eight_bit) == 60  # q, k and v counted by themselves
    assert plain.eight_bit == {}
    assert len(facts.attentions) == len(plain.attentions) == 10
    assert all(len(products) == 2 for products in facts.attentions.values())
    assert sum(facts.flops.values()) == sum(plain.flops.values())
    assert facts.minimum_bytes < plain.minimum_bytes


@pytest.mark.slow
@pytest.mark.parametrize("number_format", ["int8", "fp8"])
def test_the_real_builder_multiplies_in_8_bits_and_fuses_every_attention(quantized, pairs, number_format):
    pytest.importorskip("tensorrt_rtx_bindings", reason=NO_RTX)
    bundle = quantized(number_format).bundle
    targets = {"int8": ["sm86", "sm89"], "fp8": ["sm89", "sm120"]}[number_format]
    engine = build_engine(bundle, targets=targets, pairs=pairs)
    figures = engine.manifest
    # Four products a block, or six where q, k and v are not made one: nothing reads 16 bits where the graph says 8.
    assert figures["eight_bit_products"] in (40, 60)
    assert figures["eight_bit_linears"] == 60
    facts = graph_facts(onnx.load(bundle.graph_path))
    computed = {n for k in figures["list"] if k["precision"] == number_format for n in k["nodes"]}
    assert facts.eight_bit.keys() <= computed
    assert (figures["fused_attentions"], figures["attentions"]) == (10, 10)
    assert figures["precisions"][number_format] >= 40
    for kernel in figures["list"]:
        if kernel["kind"] == "matmul" and kernel["precision"] == number_format:
            stored = {"int8": "Int8", "fp8": "FP8"}[number_format]
            assert stored in {tensor["type"] for tensor in kernel["inputs"]}
            assert stored in {constant["type"] for constant in kernel["constants"]}
    assert ("RTX A6000" in figures["bounds"]) == (number_format == "int8")  # Ampere has no FP8
    assert figures["precision"] == "fp16"  # of all else


def kernel_of(node, reads, weights):
    return Kernel(
        "k", "gemm", (Tensor("a", (8, 8), reads),), (Tensor("w", (8, 8), weights),), (Tensor("o", (8, 8), "Half"),),
        (node,),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reads", "weights", "wrong"),
    [
        ("Int8", "Int8", ()),
        ("Half", "Int8", ("k reads no activations in int8",)),
        ("FP8", "FP8", ("k reads fp8, not int8",)),
        ("Int8", "Half", ("k reads fp16, not int8",)),
    ],
)
def test_a_product_that_is_8_bit_in_name_only_is_found(reads, weights, wrong):
    node = "encoder.0/mlp/MatMul"
    facts = GraphFacts({node: 1024}, frozenset(), {node: "int8"}, {}, 0)
    report = Audit((kernel_of(node, reads, weights),), facts, "fp16")
    assert report.wrong_precision == wrong
    assert report.eight_bit_products == (reads == weights)


def test_gpus_without_the_arithmetic_get_no_bound():
    node = "encoder.0/mlp/MatMul"
    facts = GraphFacts({node: 10**12}, frozenset(), {node: "fp8"}, {}, 0)
    report = Audit((kernel_of(node, "FP8", "FP8"),), facts, "fp16")
    bounds = {gpu.name: report.bound_ms(gpu) for gpu in GPUS}
    assert bounds["RTX A6000"] is None
    assert bounds["RTX 4090"] == pytest.approx(1e12 / 330.3e12 * 1e3)
