"""Lowering networks of which nothing is known: what stays float32 is measured."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tcmoa_export.graph_session import GraphSession
from tcmoa_export.islands import lower_by_measurement
from tcmoa_export.precision import lower
from tcmoa_runtime.graph_forms import prepare
from wrapped_pieces import contract_of, two_layers

CONTRACT = contract_of(16, 16)


def frames_of(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 256, (1, 16, 16, 3), np.uint8) for name in "xy"}


def chain(count, bad=None):
    """Return a graph of `count` convolutions; the results of number `bad` are beyond float16 until they are divided."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Cast", ["x"], ["xf"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["y"], ["yf"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["xf", "yf"], ["sum"]),
        helper.make_node("Constant", [], ["half"], value_float=1 / 510),
        helper.make_node("Mul", ["sum", "half"], ["mean"]),
        helper.make_node("Transpose", ["mean"], ["v0"], perm=[0, 3, 1, 2]),
    ]
    constants = []
    for index in range(count):
        weight = np.eye(3, dtype=np.float32)[..., None, None] + rng.normal(0, 0.02, (3, 3, 1, 1)).astype(
            np.float32
        )
        factor = 1e6 if index == bad else 1.0
        constants += [
            numpy_helper.from_array((weight * factor).astype(np.float32), f"w{index}"),
            numpy_helper.from_array(np.float32(1 / factor), f"f{index}"),
        ]
        nodes += [
            helper.make_node("Conv", [f"v{index}", f"w{index}"], [f"c{index}"], f"conv{index}"),
            helper.make_node("Mul", [f"c{index}", f"f{index}"], [f"v{index + 1}"]),
        ]
    nodes += [
        helper.make_node("Transpose", [f"v{count}"], ["nhwc"], perm=[0, 2, 3, 1]),
        helper.make_node("Div", ["nhwc", "half"], ["double"]),
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2))),
        helper.make_node("Div", ["double", "two"], ["gray"]),
        helper.make_node("Constant", [], ["top"], value_float=255.0),
        helper.make_node("Clip", ["gray", "", "top"], ["clipped"]),
        helper.make_node("Round", ["clipped"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["fused"], to=TensorProto.UINT8),
    ]
    infos = [helper.make_tensor_value_info(s.name, TensorProto.UINT8, s.shape) for s in CONTRACT.inputs]
    out = helper.make_tensor_value_info("fused", TensorProto.UINT8, (1, 16, 16, 3))
    graph = helper.make_graph(nodes, "chain", infos, [out], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def measured(model, precision):
    """Lower by measurement; return what was found and the messages."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    expected = GraphSession(copy, CONTRACT, "fp32").infer(frames_of())["fused"].astype(float)

    def measure(lowered):
        fused = GraphSession(lowered, CONTRACT, precision).infer(frames_of())["fused"]
        error = np.mean((fused - expected) ** 2)
        return float(10 * np.log10(255**2 / error)) if error else float("inf")

    messages = []
    return lower_by_measurement(model, precision, measure, messages.append), messages


def test_a_network_that_bears_16_bits_is_lowered_whole():
    islands, messages = measured(chain(3), "fp16")
    assert (islands.kept, messages) == ((), [])
    assert islands.psnr_db >= 50
    kinds = {t.name: t.data_type for t in islands.model.graph.initializer}
    assert kinds["w1/fp16"] == TensorProto.FLOAT16


def test_the_part_that_loses_most_stays_float32():
    islands, messages = measured(chain(5, bad=2), "fp16")
    assert islands.kept == ("conv2",)
    assert islands.psnr_db >= 50
    assert messages[-1].startswith("1 of 5 parts stay float32, from conv2 on: ")
    kinds = {t.name: t.data_type for t in islands.model.graph.initializer}
    assert kinds["w2"] == TensorProto.FLOAT
    assert kinds["w1/fp16"] == TensorProto.FLOAT16
    onnx.checker.check_model(islands.model, full_check=True)


def test_bf16_is_held_to_the_same_bound():
    islands, _ = measured(chain(5), "bf16")
    assert islands.psnr_db >= 50
    onnx.checker.check_model(islands.model)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_extremes_stay_float32_outputs(precision):
    contract = contract_of(16, 16, stretches=1)
    model = two_layers(contract)
    prepare(model)
    lower(model, precision)  # without a mark of what stays float32
    frames = {**frames_of(), "held_extremes": np.float32([[[1, 0]]])}
    extremes = GraphSession(model, contract, precision).infer(frames)["extremes"]
    np.testing.assert_allclose(extremes, [[[frames["x"].min(), frames["x"].max()]]], rtol=0.01)


def test_scales_of_a_resize_stay_float32():
    nodes = [
        helper.make_node("Cast", ["x"], ["xf"], to=TensorProto.FLOAT),
        helper.make_node("Resize", ["xf", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("MaxPool", ["large_planes"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Cast", ["small_pixels"], ["fused"], to=TensorProto.UINT8),
    ]
    nodes.insert(2, helper.make_node("Transpose", ["large"], ["large_planes"], perm=[0, 3, 1, 2]))
    nodes.insert(4, helper.make_node("Transpose", ["small"], ["small_pixels"], perm=[0, 2, 3, 1]))
    infos = [helper.make_tensor_value_info(s.name, TensorProto.UINT8, s.shape) for s in CONTRACT.inputs]
    out = helper.make_tensor_value_info("fused", TensorProto.UINT8, (1, 16, 16, 3))
    scales = numpy_helper.from_array(np.float32([1, 2, 2, 1]), "scales")
    graph = helper.make_graph(nodes, "resize", infos, [out], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    prepare(model)
    lower(model, "fp16")
    frames = frames_of()
    np.testing.assert_array_equal(GraphSession(model, CONTRACT, "fp16").infer(frames)["fused"], frames["x"])


def test_nodes_get_names_of_their_own():
    model = chain(2)
    for node in model.graph.node:
        node.name = "a"
    prepare(model)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert all(tensor.HasField("raw_data") for tensor in model.graph.initializer)
    assert all(node.op_type != "Constant" for node in model.graph.node)


def test_operators_that_no_engine_has_in_bf16_stay_float32():
    model = chain(2)
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32)[..., None, None], "wt")
    model.graph.initializer.append(weight)
    conv = next(node for node in model.graph.node if node.name == "conv1")
    conv.op_type, conv.input[1] = "ConvTranspose", "wt"
    for precision, element_type in (("bf16", TensorProto.FLOAT), ("fp16", TensorProto.FLOAT16)):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        islands, _ = measured(copy, precision)
        assert islands.kept == ()
        name = "wt" if precision == "bf16" else "wt/fp16"
        assert {t.name: t.data_type for t in islands.model.graph.initializer}[name] == element_type


def test_conversions_around_the_network_stay_float32():
    model = chain(3)
    for node in model.graph.node:
        if node.name == "conv1":
            node.name = "network/conv1"
    islands, _ = measured(model, "fp16")
    assert islands.parts == 1
    kinds = {t.name: t.data_type for t in islands.model.graph.initializer}
    assert (kinds["w0"], kinds["w1/fp16"], kinds["w2"]) == (
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.FLOAT,
    )
