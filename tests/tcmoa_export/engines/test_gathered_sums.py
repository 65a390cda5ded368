"""Sums of gathers become products that compute the same; everything else stays."""

from collections import Counter

import numpy as np
import onnx
import pytest

from micro_model import MICRO_WEIGHTS, frames, scrambled
from onnx_pieces import run_graph
from tcmoa_export.engines.gathered_sums import use_products
from tcmoa_export.graph_builder import GraphBuilder
from tcmoa_export.network import build_graph
from tcmoa_export.precision import lower
from tcmoa_export.spec import make_spec
from tcmoa_runtime.graph_storage import store_short_indices
from tcmoa_runtime.options.export import ExportOptions

SIZE = (100, 140)


def exported(task):
    model = scrambled(MICRO_WEIGHTS)
    spec = make_spec(model, ExportOptions(task=task, size=SIZE, target="cpu"))
    return build_graph(model, spec, "test", "0"), spec


def count(model, op_type):
    return Counter(node.op_type for node in model.graph.node)[op_type]


@pytest.mark.parametrize("has_short_indices", [False, True], ids=["int64", "short"])
@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_a_graph_for_cpus_computes_the_same_by_products(task, has_short_indices):
    model, spec = exported(task)
    if has_short_indices:
        store_short_indices(model)
    before, x, y = count(model, "Gather"), frames(*SIZE, 1, 0), frames(*SIZE, 1, 1)
    ones = np.ones((1, *spec.layout.grid), np.float32)
    inputs = {"x": x, "y": y, "prompt_scale": ones, "prompt_shift": 0.1 * ones}
    expected = run_graph(model, **inputs)["fused"].astype(int)
    products = count(model, "MatMul")
    use_products(model)
    onnx.checker.check_model(model, full_check=True)
    assert count(model, "MatMul") > products + 10
    # What rolls and sorts tokens, and looks up prompts, stays.
    assert count(model, "Gather") < 0.4 * before
    difference = abs(run_graph(model, **inputs)["fused"] - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_products_keep_float32_in_a_graph_in_16_bits():
    model, _ = exported("mff")
    names = {node.name for node in model.graph.node if node.op_type == "MatMul"}
    lower(use_products(model), "fp16")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    added = [node for node in model.graph.node if node.op_type == "MatMul" and node.name not in names]
    matrices = [name for node in added for name in node.input if name.endswith("/matrix")]
    assert len(matrices) == len(added) > 10
    assert {types[name] for name in matrices} == {onnx.TensorProto.FLOAT}


def piece(build):
    """Return a model of planes `v` [1, 1, 4, 6] whose output `build` adds."""
    graph = GraphBuilder()
    output = build(graph, lambda index, axis: graph.gather("v", np.array(index), axis))
    model = graph.build("piece", [], [], "0")
    info = onnx.helper.make_tensor_value_info
    model.graph.input.append(info("v", onnx.TensorProto.FLOAT, (1, 1, 4, 6)))
    model.graph.output.append(info(output, onnx.TensorProto.FLOAT, None))
    return model, output


SUMS = {
    "rows": lambda g, read: g.add(
        g.mul(read([0, 2], 2), g.scalar(0.25)), g.mul(read([1, 3], 2), g.scalar(0.75))
    ),
    "columns": lambda g, read: g.mul(g.add(read([0, 2, 5], 3), read([1, 3, 5], 3)), g.scalar(0.5)),
    "the same position twice": lambda g, read: g.add(read([0, 0], 2), read([0, 3], 2)),
}
OTHERS = {
    "a single gather": lambda g, read: g.mul(read([0, 2], 2), g.scalar(0.25)),
    "two axes": lambda g, read: g.add(read([0, 1, 2, 3, 3, 3], 3), read([0, 1, 2, 3], 2)),
    "a gather that something else reads": lambda g, read: (lambda r: g.mul(g.add(r, read([1, 3], 2)), r))(
        read([0, 2], 2)
    ),
    "a factor with axes": lambda g, read: g.add(
        g.mul(read([0, 2], 2), g.floats(np.ones((1, 1, 1, 6), np.float32), "f")), read([1, 3], 2)
    ),
}


@pytest.mark.parametrize("name", [*SUMS, *OTHERS])
def test_what_is_replaced(name):
    model, output = piece({**SUMS, **OTHERS}[name])
    v = np.arange(24, dtype=np.float32).reshape(1, 1, 4, 6)
    expected = run_graph(model, v=v)[output]
    use_products(model)
    assert count(model, "MatMul") == (name in SUMS)
    assert (count(model, "Gather") == 0) == (name in SUMS)
    np.testing.assert_allclose(run_graph(model, v=v)[output], expected, rtol=1e-6)
