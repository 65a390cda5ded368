"""Graphs of models that weigh the sources against the model, for every option that changes them."""

import numpy as np
import onnx
import pytest
import torch

from graph_comparison import assert_equal_to_model
from micro_model import MICRO_WEIGHTS, frames, scrambled
from onnx_pieces import run_graph
from tcmoa import Sizes
from tcmoa.source_weights import RULES, blend_sources
from tcmoa_export.graph_builder import GraphBuilder
from tcmoa_export.network import build_graph
from tcmoa_export.source_weights_graph import WeightGraph
from tcmoa_export.spec import make_spec
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.export import ExportOptions

TASKS = ("vif", "mef", "mff")


@pytest.fixture(scope="module")
def weighing():
    """A small model that weighs the sources, with random parameters; leave it as it is."""
    return scrambled(MICRO_WEIGHTS)


@pytest.mark.parametrize("target", ["gpu", "cpu"])
@pytest.mark.parametrize("task", TASKS)
def test_every_task(weighing, task, target):
    assert_equal_to_model(weighing, (100, 140), task, target=target)


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (8, 70), (65, 17), (63, 129)], ids=str)
@pytest.mark.parametrize("task", ["vif", "mff"])
def test_every_size(weighing, task, size):
    assert_equal_to_model(weighing, size, task)


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 2},
        {"batch": 2, "target": "cpu"},
        {"channel_order": "bgr"},
        {"color": "luma"},
        {"gray": ("y",)},
        {"gray": ("x",)},
        {"gray": ("x", "y"), "batch": 2},
        {"gray": ("x",), "channel_order": "bgr"},
        {"gray": ("y",), "channel_order": "bgr", "batch": 2, "target": "cpu"},
        {"routers": ("mff", "vif", "mef")},
        {"as_published": True},
        {"as_published": True, "batch": 2, "gray": ("y",)},
    ],
    ids=str,
)
@pytest.mark.parametrize("task", ["vif", "mef"])
def test_every_option(weighing, task, options):
    assert_equal_to_model(weighing, (100, 140), task, **options)


@pytest.mark.parametrize("options", [{}, {"batch": 2, "channel_order": "bgr", "target": "cpu"}], ids=str)
def test_as_published_crops_of_448(weighing, options):
    assert_equal_to_model(weighing, (450, 460), "mef", as_published=True, **options)


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(
            64, 2, 2, 64, 4, 2, window=4, output="source-weights"
        ),  # the last TC-MoA is not after the last block
        Sizes(64, 2, 2, 96, 4, 3, window=2, tau=8, output="source-weights"),  # none in the decoder
        Sizes(96, 4, 3, 96, 2, 3, mlp_ratio=2, window=10, tau=2, output="source-weights"),
    ],
    ids=str,
)
def test_every_shape_of_model(sizes):
    assert_equal_to_model(scrambled(sizes), (100, 140), "vif", target="cpu")


def test_equal_sources_are_returned_unchanged(weighing):
    x = frames(100, 140, 1, 4)
    for task in TASKS:
        spec = make_spec(weighing, ExportOptions(task=task, size=(100, 140)))
        ones = np.ones((1, *spec.layout.grid), np.float32)
        proto = build_graph(weighing, spec, "test", "0")
        got = run_graph(proto, x=x, y=x, prompt_scale=ones, prompt_shift=0 * ones)["fused"]
        np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize("by_gathers", [True, False], ids=["gathers", "operators"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", [(64, 96), (32, 160)], ids=str)
def test_the_piece_of_the_graph_that_blends(task, size, by_gathers):
    """Against `blend_sources`, for levels in 0..255 and a prediction far from both sources."""
    rng = np.random.default_rng(0)
    x, y = (255 * rng.random((2, 1, *size), np.float32) for _ in range(2))
    f = rng.uniform(-300, 600, (2, 1, size[0], size[1])).astype(np.float32)
    half = f.reshape(2, 1, size[0] // 2, 2, size[1] // 2, 2).mean((3, 5))
    graph = GraphBuilder()
    result = WeightGraph(graph, RULES[task], by_gathers=by_gathers).blend("f", "x", "y", size)
    model = graph.build("piece", [], [], "0")
    for name, value in (("f", half), ("x", x), ("y", y)):
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, value.shape)
        )
    model.graph.output.append(onnx.helper.make_tensor_value_info(result, onnx.TensorProto.FLOAT, None))
    got = run_graph(model, f=half, x=x, y=y)[result]
    expected = blend_sources(*(torch.from_numpy(v).double() / 255 for v in (f, x, y)), task) * 255
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=0.02)


def test_color_rgb_is_refused(weighing):
    with pytest.raises(InputError) as caught:
        make_spec(weighing, ExportOptions(task="vif", size=(64, 64), color="rgb"))
    assert str(caught.value) == (
        "color: 'rgb'; expected 'luma', as these weights fuse the luma. Leave color out."
    )


def test_color_is_luma_unless_it_is_asked_for(weighing, micro):
    for model, color in ((weighing, "luma"), (micro, "rgb")):
        assert make_spec(model, ExportOptions(task="mef", size=(64, 64))).options.color == color


def test_a_size_that_crops_do_not_divide_is_refused():
    model = scrambled(Sizes(64, 2, 2, 64, 2, 2, window=10, output="source-weights"))
    with pytest.raises(InputError, match="crops of 448 pixels; expected a multiple of 160, the window"):
        make_spec(model, ExportOptions(task="vif", size=(470, 920), as_published=True))


@pytest.mark.parametrize("task", TASKS)
def test_what_a_graph_for_cpus_keeps_exact_with_the_bf16_hint_of_openvino(weighing, task):
    """OpenVINO rounds every MatMul, Conv and Resize and what they read, and keeps the rest of the graph's end."""
    spec = make_spec(weighing, ExportOptions(task=task, size=(64, 96), target="cpu"))
    graph = build_graph(weighing, spec, "test", "0").graph
    producers = {name: node for node in graph.node for name in node.output}
    kept, waiting = set(), ["fused"]
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.name not in kept and node.op_type not in ("MatMul", "Conv", "Resize"):
            kept.add(node.name)
            waiting.extend(node.input)
    assert {node.name for node in graph.node if node.name.startswith("tail/")} <= kept
    assert {
        node.name for node in graph.node if node.op_type == "Cast" and node.name.startswith("head/")
    } <= kept
    decoder = [node.name for node in graph.node if node.name.startswith("decoder.") and node.op_type == "Add"]
    last_bias, residual = [name for name in decoder if "/mlp/" in name][-2:]
    assert residual in kept
    assert last_bias in kept
