"""Engines of wrapped networks: built for RTX on a CPU, audited without attentions, lowered by measurement."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import engine_pieces
from tcmoa_export import ParityError
from tcmoa_export.engines import lowering
from tcmoa_export.engines.audit import audit
from tcmoa_export.engines.build import _warn_of_unfused, build_engine
from tcmoa_export.engines.graph_summary import summarize_graph
from tcmoa_export.engines.kernels import Kernel
from tcmoa_export.engines.lowering import load_lowered_graph
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli.engine_rows import engine_rows
from tcmoa_runtime.options.build import BuildOptions
from tcmoa_runtime.shipped_pairs import shipped_pairs
from wrapped_pieces import contract_of, two_layers, write_two_layers


@pytest.fixture
def bundle(tmp_path):
    """A bundle of the small network, which stretches x by its own extremes."""
    return Bundle.open(write_two_layers(tmp_path / "b", stretches=1))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_engine_is_built_on_a_cpu_and_passes_the_audit(precision, bundle):
    pytest.importorskip("tensorrt_rtx_bindings", reason=engine_pieces.NO_RTX, exc_type=ImportError)
    messages = []
    options = BuildOptions(precision=precision, targets=("sm89",))
    engine = build_engine(bundle, options, on_message=messages.append)
    manifest = engine.manifest
    assert messages == [f"lowering the graph to {precision}", "building the engine"]
    assert (manifest["attentions"], manifest["fused_attentions"]) == (0, 0)
    assert manifest["precisions"][precision] >= 2  # the convolutions
    assert manifest["flops"] == 2 * 40 * 56 * 9 * (6 * 8 + 8 * 3)
    assert list(manifest["contract"]["inputs"]) == ["x", "y", "held_extremes"]
    assert any("kernels" in name or "kernels" in text for name, text in engine_rows(engine))


def test_a_lowered_network_is_compared_with_its_bundle(bundle, monkeypatch):
    monkeypatch.setattr(lowering, "MIN_PSNR_DB", 200.0)
    with pytest.raises(ParityError) as raised:
        load_lowered_graph(bundle, "bf16", shipped_pairs("vif"), lambda message: None)
    text = str(raised.value)
    assert text.startswith("the bf16 graph: PSNR to the bundle is ")
    assert text.endswith("expected at least 200 dB. Nothing was written. Use precision fp32.")


def attention_graph():
    """Return a graph with an attention between two products with weights, and one softmax that is none."""
    nodes = [
        helper.make_node("MatMul", ["tokens", "wq"], ["q"], "q"),
        helper.make_node("MatMul", ["tokens", "wk"], ["k"], "k"),
        helper.make_node("Transpose", ["k"], ["kt"], "kt", perm=[1, 0]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"], "scores"),
        helper.make_node("Mul", ["scores", "scale"], ["scaled"], "scaled"),
        helper.make_node("Softmax", ["scaled"], ["shares"], "shares"),
        helper.make_node("MatMul", ["shares", "tokens"], ["mixed"], "mixed"),
        helper.make_node("Softmax", ["mixed"], ["out"], "weights"),
    ]
    constants = [
        *(numpy_helper.from_array(np.eye(4, dtype=np.float32), name) for name in ("wq", "wk")),
        numpy_helper.from_array(np.float32(0.5), "scale"),
    ]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor("tokens", TensorProto.FLOAT, (6, 4))],
        [tensor("out", TensorProto.FLOAT, (6, 4))],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_attentions_of_others_are_found_by_what_a_softmax_reads_and_feeds():
    summary = summarize_graph(attention_graph(), is_wrapped=True)
    assert summary.attentions == {"shares": frozenset({"scores", "mixed"})}
    assert summarize_graph(two_layers(contract_of()), is_wrapped=True).attentions == {}


def test_attentions_that_are_not_fused_are_said(bundle):
    summary = summarize_graph(attention_graph(), is_wrapped=True)
    kernel = Kernel("k", "matmul", (), (), (), ("q", "k", "scores"))
    with pytest.warns(RuntimeWarning, match="1 of 1 attentions are not one kernel each, e.g. shares"):
        _warn_of_unfused(audit([kernel], summary, "fp32"), bundle)


def test_operations_of_transposed_convolutions_and_gemms_are_counted():
    tensor = helper.make_tensor_value_info
    weights = numpy_helper.from_array(np.zeros((4, 2, 3, 3), np.float32), "w")
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], "up", strides=[2, 2])
    graph = helper.make_graph(
        [node],
        "g",
        [tensor("x", TensorProto.FLOAT, (1, 4, 5, 5))],
        [tensor("y", TensorProto.FLOAT, (1, 2, 11, 11))],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    assert summarize_graph(model, is_wrapped=True).flops == {"up": 2 * 4 * 25 * 2 * 9}
    onnx.checker.check_model(model)


def test_the_scores_of_an_attention_are_not_moved():
    summary = summarize_graph(attention_graph(), is_wrapped=True)
    products = 3 * 24  # tokens in, q and k out
    attention = 3 * 24 + 24  # q, k and v, which are the tokens, in; the result out
    assert summary.min_bytes == 4 * (products + attention + 2 * 16 + 1)


def product_graph(nodes, output, constants):
    """Return a graph of products of `value` [6, 4] and `other` [6, 4]."""
    tensor = helper.make_tensor_value_info
    inputs = [tensor(name, TensorProto.FLOAT, (6, 4)) for name in ("value", "other")]
    initializers = [
        numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in constants.items()
    ]
    graph = helper.make_graph(nodes, "g", inputs, [tensor("out", TensorProto.FLOAT, output)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.checker.check_model(model, full_check=True)
    return model


PRODUCTS = {
    "a constant times a value": (
        [("MatMul", ["w", "value"], "out")],
        (3, 4),
        {"w": (3, 6)},
        24 + 12 + 18,
        18 * 4,
    ),
    "a value times a constant": (
        [("MatMul", ["value", "w"], "out")],
        (6, 5),
        {"w": (4, 5)},
        24 + 30 + 20,
        30 * 4,
    ),
    "a value times a vector": ([("MatMul", ["value", "w"], "out")], (6,), {"w": (4,)}, 24 + 6 + 4, 6 * 4),
    "a value times a transposed constant": (
        [("Transpose", ["w"], "wt"), ("MatMul", ["value", "wt"], "out")],
        (6, 5),
        {"w": (5, 4)},
        24 + 30 + 20,
        30 * 4,
    ),
    "two values": (
        [("Transpose", ["other"], "t"), ("MatMul", ["value", "t"], "out")],
        (6, 6),
        {},
        24 + 24 + 36,
        36 * 4,
    ),
    "two products of one value": (
        [("MatMul", ["value", "w"], "a"), ("MatMul", ["v", "value"], "b"), ("MatMul", ["b", "w"], "out")],
        (3, 5),
        {"w": (4, 5), "v": (3, 6)},
        24 + 30 + 12 + 12 + 15 + 20 + 18,
        30 * 4 + 12 * 6 + 15 * 4,
    ),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_a_product_reads_its_values_and_each_constant_once(case):
    steps, output, constants, numbers, multiplications = PRODUCTS[case]
    nodes = [helper.make_node(kind, inputs, [result], result) for kind, inputs, result in steps]
    summary = summarize_graph(product_graph(nodes, output, constants), is_wrapped=True)
    assert summary.min_bytes == 4 * numbers
    assert sum(summary.flops.values()) == 2 * multiplications
