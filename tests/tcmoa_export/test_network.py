"""The whole graph against the unfolded model, for every option, and what the graph must not contain."""

import numpy as np
import onnx
import pytest
import torch

from graph_comparison import assert_equal_to_model
from micro_model import MICRO, frames, scrambled
from onnx_pieces import run_graph
from tcmoa import Sizes
from tcmoa.reference import fuse_frames
from tcmoa_export.network import build_graph
from tcmoa_export.spec import make_spec
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.export import ExportOptions

SMALL = (100, 130)


@pytest.fixture(params=["gpu", "cpu"])
def target(request):
    """Parametrize by both orders of tokens."""
    return request.param


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_every_task(micro, task, target):
    assert_equal_to_model(micro, SMALL, task, target=target)


@pytest.mark.parametrize("size", [(112, 112), (224, 112), (1, 1), (7, 250), (113, 8), (111, 224), (8, 8)])
def test_every_size(micro, size):
    if min(size) < 8:
        spec = make_spec(micro, ExportOptions(task="vif", size=size))
        x = np.full((1, *size, 3), 90, np.uint8)
        ones = np.ones((1, *spec.layout.grid), np.float32)
        got = run_graph(
            build_graph(micro, spec, "test", "0"), x=x, y=x, prompt_scale=ones, prompt_shift=0 * ones
        )
        expected = fuse_frames(micro, torch.from_numpy(x), torch.from_numpy(x), "vif").fused.round()
        assert np.abs(got["fused"].astype(int) - expected.numpy()).max() <= 1
        return
    assert_equal_to_model(micro, size)


def test_without_upsampling():
    assert_equal_to_model(scrambled(upsample=False), (230, 250))


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 3},
        {"channel_order": "bgr"},
        {"color": "luma"},
        {"color": "luma", "channel_order": "bgr"},
        {"gray": ("y",)},
        {"gray": ("x",)},
        {"gray": ("x", "y"), "batch": 2},
        {"gray": ("x",), "color": "luma"},
        {"gray": ("y",), "color": "luma", "channel_order": "bgr"},
        {"routers": ("mff", "vif", "mef")},
        {"as_published": True},
        {"as_published": True, "batch": 2, "color": "luma"},
    ],
    ids=str,
)
def test_every_option(micro, options, target):
    assert_equal_to_model(micro, SMALL, target=target, **options)


@pytest.mark.parametrize(
    ("size", "target", "options"),
    [
        ((450, 470), "gpu", {}),
        ((470, 448), "cpu", {"batch": 2, "channel_order": "bgr"}),
        ((448, 470), "cpu", {"color": "luma"}),
        ((448, 470), "gpu", {"color": "luma"}),
    ],
    ids=str,
)
def test_as_published_crops_of_448(micro, size, target, options):
    assert_equal_to_model(micro, size, as_published=True, target=target, **options)


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(64, 2, 2, 64, 2, 2),  # the decoder's only TC-MoA is after its last block
        Sizes(64, 8, 2, 96, 8, 3),  # two in the decoder, widths differ
        Sizes(64, 4, 4, 64, 2, 2, tau=8),  # none in the decoder
        Sizes(64, 4, 2, 64, 4, 2, experts=6, top_k=3),
        Sizes(64, 4, 2, 64, 4, 2, window=8),
    ],
    ids=str,
)
def test_every_shape_of_model(sizes, target):
    assert_equal_to_model(scrambled(sizes), SMALL, target=target)


def test_crops_that_are_not_whole_windows_are_refused():
    model = scrambled(Sizes(64, 4, 2, 64, 4, 2, window=10))
    assert make_spec(model, ExportOptions(task="vif", size=(470, 920))).layout.fit == "pad"
    with pytest.raises(InputError, match="crops of 448 pixels; expected a multiple of 80"):
        make_spec(model, ExportOptions(task="vif", size=(470, 920), as_published=True))


def test_alpha_one_and_beta_zero_change_no_bit(micro):
    """Constant maps of 1 and 0 give the results of a graph without prompt control."""
    spec = make_spec(micro, ExportOptions(task="mef", size=SMALL, with_prompt=True))
    proto = build_graph(micro, spec, "test", "0")
    inputs = {"x": frames(*SMALL, 1, 1), "y": frames(*SMALL, 1, 2)}
    ones = np.ones((1, *spec.layout.grid), np.float32)
    controlled = run_graph(proto, **inputs, prompt_scale=ones, prompt_shift=0 * ones)
    # Remove the control: p*1 + 0 becomes an Identity.
    for node in proto.graph.node:
        if node.op_type in ("Mul", "Add", "Sub") and any(i.startswith("control/") for i in node.input):
            raw = [i for i in node.input if not i.startswith("control/")]
            if len(raw) == 1 and "_moa." in raw[0]:
                node.op_type = "Identity"
                del node.input[:]
                node.input.append(raw[0])
    identities = [n for n in proto.graph.node if n.op_type == "Identity"]
    assert len(identities) == 2 * 2 * len(spec.routers)
    plain = run_graph(proto, **inputs, prompt_scale=3 * ones, prompt_shift=ones)
    np.testing.assert_array_equal(controlled["fused"], plain["fused"])
    np.testing.assert_array_equal(controlled["prompt"], plain["prompt"])


FORBIDDEN = {"TopK", "If", "Loop", "Scan", "Scatter", "ScatterElements", "ScatterND", "NonZero", "Unique"}


@pytest.mark.parametrize("options", [{}, {"color": "luma"}, {"as_published": True}], ids=str)
def test_the_graph_contains_only_what_every_backend_supports(micro, options):
    size = (470, 500) if options.get("as_published") else SMALL
    spec = make_spec(micro, ExportOptions(task="vif", size=size, with_prompt=True, **options))
    proto = build_graph(micro, spec, "test", "0")
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    types = {v.name: v.type.tensor_type for v in [*inferred.graph.value_info, *inferred.graph.input]}
    types |= {v.name: v.type.tensor_type for v in inferred.graph.output}
    assert [o.version for o in proto.opset_import] == [18]
    assert not FORBIDDEN & {node.op_type for node in proto.graph.node}
    for node in proto.graph.node:
        for name in (*node.input, *node.output):
            if name in types:
                shape = types[name].shape.dim
                assert len(shape) <= 8, f"{node.name}: TensorRT supports at most 8 dimensions"
                assert all(d.HasField("dim_value") for d in shape), f"{node.name}: shapes are static"
                if types[name].elem_type == onnx.TensorProto.UINT8:
                    assert node.op_type == "Cast", (
                        f"{node.name}: TensorRT supports nothing but a Cast on uint8"
                    )
    used = {name for node in proto.graph.node for name in node.input}
    assert {t.name for t in proto.graph.initializer} <= used, "an unused constant"


def test_y_and_the_padding_are_not_computed_after_the_last_moa_and_attention(micro):
    spec = make_spec(micro, ExportOptions(task="vif", size=SMALL))
    proto = onnx.shape_inference.infer_shapes(build_graph(micro, spec, "test", "0"), data_prop=True)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.value_info}
    tokens = spec.layout.tokens_per_image
    assert shapes["decoder.1/mlp/MatMul"][0] == 2 * tokens
    assert shapes["decoder.2/mlp/MatMul"][0] == tokens
    assert shapes["decoder.3/attention/MatMul"][0] == tokens
    gh, gw = spec.layout.grid
    assert shapes["decoder.3/mlp/MatMul"][0] == gh * gw < tokens
    assert shapes["tail/MatMul"] == [gh * gw, 8 * 8 * 3]


def test_graphs_are_named_by_their_content(micro):
    names = set()
    for size, model in ((SMALL, micro), ((96, 130), micro), (SMALL, scrambled(MICRO, seed=1))):
        proto = build_graph(model, make_spec(model, ExportOptions(task="vif", size=size)), "stem", "0")
        assert proto.graph.name.startswith("stem_")
        names.add(proto.graph.name)
    repeated = build_graph(micro, make_spec(micro, ExportOptions(task="vif", size=SMALL)), "stem", "0")
    assert len(names) == 3
    assert repeated.graph.name in names


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "x-ray"}, "task: 'x-ray'; expected one of vif, mef, mff"),
        ({"size": (0, 10)}, "size: 10x0; expected 1x1 to 8192x8192 pixels"),
        ({"size": (9000, 10)}, "size: 10x9000; expected 1x1 to 8192x8192 pixels"),
        ({"batch": 0}, "batch: 0 frames; expected 1 to 64 frames"),
        ({"precision": "int4"}, "precision: 'int4'; expected one of fp32, fp16, bf16"),
        ({"channel_order": "rbg"}, "channel_order: 'rbg'; expected one of rgb, bgr"),
        ({"color": "hsv"}, "color: 'hsv'; expected one of rgb, luma"),
        ({"target": "npu"}, "target: 'npu'; expected one of gpu, cpu"),
        ({"gray": ("z",)}, "gray: 'z'; expected one of x, y"),
        ({"routers": ("vif",)}, "routers: 1 routers; expected 3"),
        ({"routers": ("vif", "vif", "xyz")}, "routers: 'xyz'; expected one of vif, mef, mff"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_in_one_line(micro, options, words):
    task, size = options.pop("task", "vif"), options.pop("size", SMALL)
    with pytest.raises(InputError, match=words) as error:
        make_spec(micro, ExportOptions(task=task, size=size, **options))
    assert "\n" not in str(error.value)
