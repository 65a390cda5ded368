"""Every convention of a wrapped network, against the network with the same conventions written out as a script.

The scripts are written for each case as authors write theirs, so that they share nothing with the code under test.
"""

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto
from PIL import Image

import wrap_networks as nets
from tcmoa_export.wrap.plain import fuse_plainly
from tcmoa_export.wrap.planning import make_plan, wrapped_graph
from tcmoa_export.wrap.wrapping import open_network
from tcmoa_runtime.backends.base import neutral_input
from tcmoa_runtime.graph.check import check_graph
from tcmoa_runtime.options.wrap import Conventions

HEIGHT, WIDTH = 44, 60
UNIT = {"range_in": "0..1", "range_out": "0..1"}


def picture(seed, channels=3):
    """A smooth picture with noise, uint8 [H, W, channels], of little contrast so that a stretch shows."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(40, 200, (6, 8, channels)).astype(np.float32)
    smooth = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).reshape(
        HEIGHT, WIDTH, channels
    )
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 12, 231).astype(np.uint8)


X, Y, INFRARED = picture(1), picture(2), picture(3, 1)


def fuse(path, *, task="vif", x=X, y=None, size=(HEIGHT, WIDTH), batch=1, channel_order="rgb", **conventions):
    """Wrap a network, check its graph and the plain computation, and return the frame of the graph."""
    network = open_network(path)
    plan = make_plan(
        network,
        Conventions(**conventions),
        task=task,
        size=size,
        batch=batch,
        channel_order=channel_order,
    )
    y = (INFRARED if plan.contract.y_channels == 1 else Y) if y is None else y
    proto = wrapped_graph(network, plan)
    check_graph(
        proto.SerializeToString(),
        plan.contract,
        graph_name=proto.graph.name,
        data_name="fusion.data",
        data_bytes=None,
    )
    assert_uint8_at_the_ends_only(proto)
    inputs = {spec.name: neutral_input(spec) for spec in plan.contract.inputs if spec.dtype == "float32"}
    inputs |= {"x": np.stack([x] * batch), "y": np.stack([y] * batch)}
    frames = ort.InferenceSession(proto.SerializeToString()).run(["fused"], inputs)[0]
    plain = fuse_plainly(network, plan, x, y)
    assert frames.shape == (batch, *plan.size, 3)
    for frame in frames:
        assert_equal(frame, plain, share=0.001)
    return frames[0]


def assert_uint8_at_the_ends_only(proto):
    """Assert that uint8 is read and written by casts alone: TensorRT has no other operator on it."""
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    narrow = {info.name for info in graph.value_info if info.type.tensor_type.elem_type == TensorProto.UINT8}
    assert not narrow
    assert {node.op_type for node in graph.node if {"x", "y"} & set(node.input)} == {"Cast"}
    assert [node.op_type for node in graph.node if "fused" in node.output] == ["Cast"]


def assert_equal(frame, expected, *, share=0.001, psnr_db=57.0):
    """Assert that all but a share of the values are within one gray level, and a PSNR."""
    expected = np.broadcast_to(np.atleast_3d(expected), frame.shape)
    difference = np.abs(frame.astype(int) - expected.astype(int))
    assert np.mean(difference > 1) <= share, (difference.max(), np.mean(difference > 1))
    square = float(np.mean(difference**2.0))
    assert not square or 10 * np.log10(255**2 / square) >= psnr_db
    assert expected.std() > 1  # a result that shows nothing would prove nothing


def run(path, **inputs):
    """Run the network itself; returns its first output."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options).run(None, inputs)[0]


def nchw(image):
    return np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1)[None], np.float32)


def luma(rgb):
    return (rgb @ np.array([0.299, 0.587, 0.114])).astype(np.float32)


def to_uint8(values):
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


VIS, IR = luma(X.astype(np.float32)), INFRARED[..., 0].astype(np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.onnx"


# Inputs --------------------------------------------------------------------------------------------------------------


def test_two_inputs_by_name_infrared_first(path):
    nets.two_inputs(path, names=("img_ir", "img_vi"), dims=[nets.ANY, nets.ANY])
    expected = to_uint8(255 * run(path, img_ir=nchw(IR / 255), img_vi=nchw(VIS / 255))[0, 0])
    assert_equal(fuse(path, **UNIT, color_out="gray"), expected)


@pytest.mark.parametrize("conventions", [{"order": "yx"}, {"inputs": ("b", "a")}])
def test_order_of_inputs_whose_names_say_nothing(path, conventions):
    nets.two_inputs(path)
    expected = to_uint8(255 * run(path, a=nchw(IR / 255), b=nchw(VIS / 255))[0, 0])
    assert_equal(fuse(path, **UNIT, **conventions, color_out="gray"), expected)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("order", ["xy", "yx"])
def test_sources_joined_as_channels(path, layout, order):
    nets.joined_channels(path, layout=layout)
    parts = [VIS / 255, IR / 255][:: 1 if order == "xy" else -1]
    pair = np.stack(parts)[None].astype(np.float32)
    pair = pair if layout == "nchw" else pair.transpose(0, 2, 3, 1)
    output = run(path, pair=pair)
    assert_equal(
        fuse(path, **UNIT, order=order, color_out="gray"), to_uint8(255 * output.reshape(HEIGHT, WIDTH))
    )


def test_color_and_infrared_joined_as_four_channels(path):
    nets.joined_channels(path, count=4, out=3)
    pair = np.concatenate([X / 255, INFRARED / 255], 2).transpose(2, 0, 1)[None].astype(np.float32)
    expected = to_uint8(255 * run(path, pair=pair)[0].transpose(1, 2, 0))
    assert_equal(fuse(path, **UNIT, order="xy", x_content="rgb"), expected)


@pytest.mark.parametrize("layout", ["ncdhw", "ndchw"])
def test_sources_joined_as_depth(path, layout):
    nets.joined_depth(path, layout)
    height, width = 48, 64  # multiples of 16, padded at the end, as StackMFF is run
    stack = np.stack([luma(s.astype(np.float32)) / 255 for s in (X, Y)])
    stack = np.pad(stack, ((0, 0), (0, height - HEIGHT), (0, width - WIDTH)), mode="edge").astype(np.float32)
    output = run(path, stack=stack[None, None] if layout == "ncdhw" else stack[None, :, None])
    fused = np.clip(output[0, 0, :HEIGHT, :WIDTH], 0, 1) * 255
    lumas = [luma(s.astype(np.float32)) for s in (X, Y)]
    nearest = np.argmin([np.abs(own - fused) for own in lumas], axis=0)
    rgb = np.where(nearest[..., None] == 0, X - lumas[0][..., None], Y - lumas[1][..., None])
    frame = fuse(
        path, task="mff", **UNIT, order="xy", multiple=16, padding="repeat", color_out="chroma-nearest"
    )
    assert_equal(frame, to_uint8(rgb + fused[..., None]))


def saturation_weighted(sources, fused):
    """MEFNet's chroma: each source's weighted by its distance from gray."""
    lumas = [luma(s.astype(np.float64)) for s in sources]
    parts = []
    for channel, factor in ((2, 0.5 / 0.886), (0, 0.5 / 0.701)):
        chroma = [(s[..., channel] - own) * factor for s, own in zip(sources, lumas, strict=True)]
        weight = [np.abs(c) + 1e-6 for c in chroma]
        parts.append((chroma[0] * weight[0] + chroma[1] * weight[1]) / (weight[0] + weight[1]))
    cb, cr = parts
    return np.stack([fused + 1.402 * cr, fused - 0.344136 * cb - 0.714136 * cr, fused + 1.772 * cb], -1)


def test_batch_of_sources_with_a_smaller_copy(path):
    nets.joined_batch(path, with_small=True)
    hr = np.stack([luma(s.astype(np.float32)) / 255 for s in (X, Y)])[:, None].astype(np.float32)
    size = (int(20 * WIDTH / HEIGHT), 20)
    small = [np.asarray(Image.fromarray(s).resize(size, Image.Resampling.BILINEAR)) for s in (X, Y)]
    lr = np.stack([luma(s.astype(np.float32)) / 255 for s in small])[:, None].astype(np.float32)
    fused = 255 * run(path, I_lr=lr, I_hr=hr)[0, 0]
    frame = fuse(
        path,
        task="mef",
        **UNIT,
        order="xy",
        small_inputs=("I_lr",),
        small_side=20,
        color_out="chroma-weighted",
    )
    assert_equal(frame, to_uint8(saturation_weighted((X, Y), fused)))


def test_weight_maps_of_a_batch(path):
    nets.joined_batch(path, output="both")
    hr = np.stack([luma(s.astype(np.float32)) / 255 for s in (X, Y)])[:, None].astype(np.float32)
    expected = 255 * run(path, I_hr=hr)[0, 0]
    frame = fuse(
        path,
        task="mef",
        range_in="0..1",
        order="xy",
        output=("W_hr",),
        output_kind="weights",
        color_out="gray",
    )
    assert_equal(frame, to_uint8(expected))


@pytest.mark.parametrize("maps", [1, 2])
def test_weight_maps_of_color_sources(path, maps):
    nets.weights(path, maps=maps)
    found = run(path, a=nchw(X / 255), b=nchw(Y / 255))[0]
    first = found[0][..., None]
    second = 1 - first if maps == 1 else found[1][..., None]
    total = first + second
    frame = fuse(
        path,
        task="mff",
        range_in="0..1",
        order="xy",
        x_content="rgb",
        y_content="rgb",
        output_kind="weights",
        normalize_weights=maps == 2,
        color_out="rgb",
    )
    assert_equal(frame, to_uint8((first * X + second * Y) / (total if maps == 2 else 1)))


def test_constants_and_outputs_that_nobody_needs(path):
    nets.with_constants(path)
    network = open_network(path)
    given = Conventions(**UNIT, constant=("sigma=0.4", "scale=0.5"), color_out="gray", output=("fused",))
    plan = make_plan(network, given, task="vif", size=(HEIGHT, WIDTH))
    proto = wrapped_graph(network, plan)
    assert sum(node.op_type == "Conv" for node in proto.graph.node) == 1, "the other output's are cut"
    sigma, scale = np.array(0.4, np.float32), np.full((1, 1, 1, 1), 0.5, np.float32)
    inputs = {"vi": nchw(VIS / 255), "ir": nchw(IR / 255), "sigma": sigma, "scale": scale}
    options = ort.SessionOptions()
    options.log_severity_level = 4
    expected = ort.InferenceSession(str(path), options).run(["fused"], inputs)[0]
    frame = fuse(path, **UNIT, constant=("sigma=0.4", "scale=0.5"), color_out="gray", output=("fused",))
    assert_equal(frame, to_uint8(255 * expected[0, 0]))


def test_operator_set_9_with_misleading_names_of_sizes(path):
    nets.old_operators(path)
    output = run(path, input1=nchw(VIS / 255), input2=nchw(IR / 255))
    assert_equal(fuse(path, **UNIT, order="xy", color_out="gray"), to_uint8(255 * output[0, 0]))


def test_a_fixed_size_is_read(path):
    nets.two_inputs(path, dims=[(1, 1, HEIGHT, WIDTH)] * 2)
    expected = to_uint8(255 * run(path, a=nchw(VIS / 255), b=nchw(IR / 255))[0, 0])
    assert_equal(fuse(path, size=None, **UNIT, order="xy", color_out="gray"), expected)


def test_frames_are_padded_up_to_a_fixed_size(path):
    nets.two_inputs(path, dims=[(1, 1, 48, 64)] * 2)
    around = ((2, 2), (2, 2))
    output = run(
        path, a=nchw(np.pad(VIS / 255, around, "reflect")), b=nchw(np.pad(IR / 255, around, "reflect"))
    )
    frame = fuse(path, **UNIT, order="xy", color_out="gray", padding="reflect", pad_at="around")
    assert_equal(frame, to_uint8(255 * output[0, 0, 2:-2, 2:-2]))


# Content and range ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["rgb", "bgr"])
@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
def test_color_of_both_sources(path, content, channel_order):
    nets.two_inputs(path, channels=(3, 3), out=3)
    flip = -1 if content == "bgr" else 1
    output = run(path, a=nchw(X[..., ::flip] / 255), b=nchw(Y[..., ::flip] / 255))[0].transpose(1, 2, 0)
    step = -1 if channel_order == "bgr" else 1
    frame = fuse(
        path,
        task="mff",
        **UNIT,
        order="xy",
        x_content=content,
        y_content=content,
        channel_order=channel_order,
        x=np.ascontiguousarray(X[..., ::step]),
        y=np.ascontiguousarray(Y[..., ::step]),
    )
    assert_equal(frame[..., ::step], to_uint8(255 * output[..., ::flip]))


def test_color_with_mean_and_deviation_truncated(path):
    """IFCNN on color pictures."""
    nets.two_inputs(path, channels=(3, 3), out=3, last=None)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    a, b = (nchw((s / 255 - mean) / std) for s in (X, Y))
    output = run(path, a=a, b=b)[0].transpose(1, 2, 0) * np.float32(0.2)
    frame = fuse(
        path,
        task="mff",
        range_in="mean-std",
        range_out="mean-std",
        mean=mean,
        std=std,
        order="xy",
        x_content="rgb",
        y_content="rgb",
        rounding="truncate",
    )
    output = output / np.float32(0.2)
    expected = (np.clip(output * std + mean, 0, 1) * 255).astype(np.uint8)
    assert_equal(frame, expected)


def test_gray_in_three_channels_made_gray_again(path):
    """IFCNN on infrared: three equal channels in, three out, truncated, then made gray."""
    nets.two_inputs(path, channels=(3, 3), out=3)
    gray = cv2.cvtColor(X, cv2.COLOR_RGB2GRAY)
    a, b = (np.repeat(nchw(s / 255), 3, 1) for s in (gray, IR))
    output = (run(path, a=a, b=b)[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    frame = fuse(
        path,
        **UNIT,
        order="xy",
        x_content="luma",
        y_content="gray",
        luma="opencv",
        rounding="truncate",
        color_out="gray",
    )
    assert_equal(frame, cv2.cvtColor(output, cv2.COLOR_RGB2GRAY))


def test_visible_color_and_infrared_gray(path):
    nets.two_inputs(path, channels=(3, 1), out=3)
    output = run(path, a=nchw(X / 255), b=nchw(IR / 255))[0].transpose(1, 2, 0)
    frame = fuse(path, **UNIT, order="xy", x_content="rgb")
    assert_equal(frame, to_uint8(255 * output))


@pytest.mark.parametrize("which", ["0..255", "-1..1", "0..1"])
def test_ranges(path, which):
    nets.two_inputs(path, last="Tanh" if which == "-1..1" else "Sigmoid")
    into = {
        "0..255": lambda v: v / 255 * 255,
        "-1..1": lambda v: (v - 127.5) / 127.5,
        "0..1": lambda v: v / 255,
    }
    out = {"0..255": lambda v: v, "-1..1": lambda v: v * 127.5 + 127.5, "0..1": lambda v: v * 255}
    value = run(path, a=nchw(into[which](VIS)), b=nchw(into[which](IR)))[0, 0]
    if which == "0..255":  # numbers of 0 to 1 would all be black
        expected = to_uint8(value * 255)
        frame = fuse(path, range_in=which, range_out="0..1", order="xy", color_out="gray")
    else:
        expected = to_uint8(out[which](value))
        frame = fuse(path, range_in=which, range_out=which, order="xy", color_out="gray")
    assert_equal(frame, expected)


def test_a_tanh_that_is_clipped_at_zero(path):
    nets.two_inputs(path, last="Tanh")
    value = run(path, a=nchw(VIS / 255), b=nchw(IR / 255))[0, 0]
    assert_equal(fuse(path, **UNIT, order="xy", color_out="gray"), to_uint8(value.clip(0, 1) * 255))


def test_sources_stretched_by_their_own_extremes(path):
    """LRRNet: both sources and the result are stretched."""
    nets.two_inputs(path)
    stretched = [nchw((v - v.min()) / (v.max() - v.min() + 1e-5)) for v in (VIS, IR)]
    value = run(path, a=stretched[0], b=stretched[1])[0, 0]
    expected = ((value - value.min()) / (value.max() - value.min() + 1e-5) * 255).astype(np.uint8)
    frame = fuse(
        path,
        range_out="0..1",
        stretch_in=True,
        stretch_out="min-max",
        rounding="truncate",
        order="xy",
        color_out="gray",
    )
    assert_equal(frame, expected, psnr_db=54.0)  # truncated steps of two computations


def test_luma_of_limited_range(path):
    """MATLAB's rgb2ycbcr in doubles, as for PMGI and U2Fusion."""
    nets.two_inputs(path)
    ycc = [s / 255 @ MATLAB.T + (16, 128, 128) for s in (X, Y)]
    value = 255 * run(path, a=nchw(ycc[0][..., 0] / 255), b=nchw(ycc[1][..., 0] / 255))[0, 0]
    fused = np.stack([value, ycc[0][..., 1], ycc[0][..., 2]], -1)
    rgb = (fused - (16, 128, 128)) @ np.linalg.inv(MATLAB).T * 255
    conventions = {**UNIT, "order": "xy", "luma": "limited", "color_out": "chroma-x"}
    assert_equal(fuse(path, task="mff", **conventions), to_uint8(rgb))


def test_gray_pictures_in_with_color_in_floats(path):
    """StackMFF: the network takes what OpenCV reads in gray, color is restored in floats."""
    nets.two_inputs(path)
    gray = cv2.cvtColor(X, cv2.COLOR_RGB2GRAY)
    value = 255 * run(path, a=nchw(gray / 255), b=nchw(IR / 255))[0, 0]
    frame = fuse(path, **UNIT, order="xy", luma_in_8_bits=True, color_out="chroma-x")
    assert_equal(frame, to_uint8(X + (value - VIS)[..., None]), psnr_db=65.0)


MATLAB = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
FORTH = {
    "opencv": lambda s: cv2.cvtColor(s, cv2.COLOR_RGB2YCrCb),
    "pillow": lambda s: np.asarray(Image.fromarray(s).convert("YCbCr")),
    "matlab": lambda s: to_uint8(s / 255 @ MATLAB.T + (16, 128, 128)),
}
BACK = {
    "opencv": lambda s: cv2.cvtColor(s, cv2.COLOR_YCrCb2RGB),
    "pillow": lambda s: np.asarray(
        Image.frombytes("YCbCr", (s.shape[1], s.shape[0]), s.tobytes()).convert("RGB")
    ),
    "matlab": lambda s: to_uint8((s.astype(float) - (16, 128, 128)) @ np.linalg.inv(MATLAB).T * 255),
}


@pytest.mark.parametrize("luma_kind", ["opencv", "pillow", "matlab"])
@pytest.mark.parametrize("color", ["chroma-x", "chroma-nearest"])
def test_luma_and_chroma_in_8_bits(path, luma_kind, color):
    nets.two_inputs(path)
    forth, back = FORTH[luma_kind], BACK[luma_kind]
    x, y = forth(X), forth(Y)
    value = to_uint8(255 * run(path, a=nchw(x[..., 0] / 255), b=nchw(y[..., 0] / 255))[0, 0])
    chroma = x[..., 1:]
    if color == "chroma-nearest":
        distance = [np.abs(value.astype(int) - s[..., 0]) for s in (x, y)]
        chroma = np.where((distance[0] <= distance[1])[..., None], x[..., 1:], y[..., 1:])
    expected = back(np.ascontiguousarray(np.concatenate([value[..., None], chroma], -1)))
    frame = fuse(path, task="mff", **UNIT, order="xy", y_content="luma", luma=luma_kind, color_out=color)
    assert_equal(frame, expected)


# Padding -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["reflect", "symmetric", "repeat", "zero"])
@pytest.mark.parametrize("pad_at", ["end", "around"])
def test_padding_up_to_a_multiple(path, padding, pad_at):
    nets.two_inputs(path)
    height, width = 48, 64
    top, left = ((height - HEIGHT) // 2, (width - WIDTH) // 2) if pad_at == "around" else (0, 0)
    around = ((top, height - HEIGHT - top), (left, width - WIDTH - left))
    mode = {"repeat": "edge", "zero": "constant"}.get(padding, padding)
    a, b = (nchw(np.pad(s / 255, around, mode=mode)) for s in (VIS, IR))
    output = run(path, a=a, b=b)[0, 0, top : top + HEIGHT, left : left + WIDTH]
    frame = fuse(path, **UNIT, order="xy", multiple=16, padding=padding, pad_at=pad_at, color_out="gray")
    assert_equal(frame, to_uint8(255 * output))


def test_padding_in_any_case(path):
    """SwinFusion: mirrored with the edge, by a whole window where the frame is a multiple already."""
    nets.two_inputs(path)
    pads = ((0, 4), (0, 4))  # 44x60 are multiples of 4
    a, b = (nchw(np.pad(s / 255, pads, mode="symmetric")) for s in (VIS, IR))
    output = run(path, a=a, b=b)[0, 0, :HEIGHT, :WIDTH]
    frame = fuse(path, **UNIT, order="xy", multiple=4, padding="symmetric", pad_always=True, color_out="gray")
    assert_equal(frame, to_uint8(255 * output))


def test_a_border_that_the_network_consumes(path):
    """FusionGAN: convolutions without padding, edges repeated before."""
    net = nets.Writer()
    weight = net.constant(net.rng.normal(0, 0.2, (1, 2, 5, 5)))
    value = net.op("Sigmoid", net.op("Conv", net.op("Concat", "a", "b", axis=1), weight, pads=[0] * 4))
    net.save(path, [("a", nets.ANY), ("b", nets.ANY)], [(value, "out", None)])
    a, b = (nchw(np.pad(s / 255, 2, mode="edge")) for s in (VIS, IR))
    frame = fuse(path, **UNIT, order="xy", border=2, padding="repeat", color_out="gray")
    assert_equal(frame, to_uint8(255 * run(path, a=a, b=b)[0, 0]))


def test_a_network_on_uint8(path):
    net = nets.Writer()
    joined = net.op("Cast", net.op("Concat", "a", "b", axis=1), to=TensorProto.FLOAT)
    value = net.op("Sigmoid", net.conv(net.op("Mul", joined, net.constant(1 / 255)), 2, 1))
    value = net.op("Cast", net.op("Mul", value, net.constant(255)), to=TensorProto.UINT8)
    net.save(path, [("a", nets.ANY), ("b", nets.ANY)], [(value, "out", None)], dtype=TensorProto.UINT8)
    gray = {"range_in": "0..255", "range_out": "0..255", "luma_in_8_bits": True, "color_out": "gray"}
    a, b = (nchw(np.round(s)).astype(np.uint8) for s in (VIS, IR))
    assert_equal(fuse(path, **gray, order="xy"), run(path, a=a, b=b)[0, 0])


# Result --------------------------------------------------------------------------------------------------------------


def test_stretch_after_color_truncated(path):
    """SeAFusion: luma with the chroma of visible, clipped, stretched over all channels, truncated."""
    nets.two_inputs(path, names=("vis", "ir"))
    fused = run(path, vis=nchw(VIS / 255), ir=nchw(IR / 255))[0, 0]
    y = VIS / 255
    cr, cb = (X[..., 0] / 255 - y) * 0.713, (X[..., 2] / 255 - y) * 0.564
    rgb = np.stack([fused + 1.403 * cr, fused - 0.714 * cr - 0.344 * cb, fused + 1.773 * cb], -1).clip(0, 1)
    expected = (255 * (rgb - rgb.min()) / (rgb.max() - rgb.min())).astype(np.uint8)
    conventions = {**UNIT, "color_out": "chroma-x", "stretch_out": "min-max", "stretch_at": "after-color"}
    assert_equal(fuse(path, **conventions, rounding="truncate"), expected)


@pytest.mark.parametrize("stretch", ["min-max", "max"])
def test_stretch_before_color(path, stretch):
    """U2Fusion, SDNet, MFF-GAN: the luma is saved with a stretch, color is added afterwards."""
    nets.two_inputs(path, last="Tanh")
    value = run(path, a=nchw(VIS / 127.5 - 1), b=nchw(IR / 127.5 - 1))[0, 0] * 127.5 + 127.5
    low = value.min() if stretch == "min-max" else 0
    luma_out = (value - low) / (value.max() - low) * 255
    expected = to_uint8(X + (luma_out - VIS)[..., None])
    frame = fuse(
        path,
        range_in="-1..1",
        range_out="-1..1",
        order="xy",
        stretch_out=stretch,
        color_out="chroma-x",
    )
    assert_equal(frame, expected)


def test_held_extremes_replace_own_ones(path):
    nets.two_inputs(path)
    network = open_network(path)
    given = Conventions(
        range_out="0..1", stretch_in=True, stretch_out="min-max", order="xy", color_out="gray"
    )
    plan = make_plan(network, given, task="vif", size=(HEIGHT, WIDTH))
    assert plan.contract.stretches == 3
    session = ort.InferenceSession(wrapped_graph(network, plan).SerializeToString())
    own = np.array([[[1, 0]] * 3], np.float32)
    frame, extremes = session.run(None, {"x": X[None], "y": INFRARED[None], "held_extremes": own})
    np.testing.assert_allclose(extremes[0, 0], (VIS.min(), VIS.max()), rtol=1e-5)
    np.testing.assert_allclose(extremes[0, 1], (IR.min(), IR.max()), rtol=1e-5)
    again, _ = session.run(None, {"x": X[None], "y": INFRARED[None], "held_extremes": extremes})
    np.testing.assert_array_equal(frame, again)
    wider = extremes + np.array([0, 60], np.float32)
    darker, shown = session.run(None, {"x": X[None], "y": INFRARED[None], "held_extremes": wider})
    assert darker.mean() < frame.mean() - 5
    np.testing.assert_allclose(shown[:, :2], extremes[:, :2], rtol=1e-5)


def test_chroma_weighted_by_the_saturation_of_whole_pictures(path):
    """DeepFuse in PyTorch: 8 bits of OpenCV, weights summed over the picture, truncated."""
    nets.two_inputs(path, last="Tanh")
    ycc = [cv2.cvtColor(s, cv2.COLOR_RGB2YCrCb) for s in (X, Y)]
    a, b = (nchw(s[..., 0] / 127.5 - 1) for s in ycc)
    value = (run(path, a=a, b=b)[0, 0] + 1) * 127.5
    parts = [value]
    for channel in (1, 2):
        planes = [s[..., channel].astype(np.float32) for s in ycc]
        weight = [np.abs(p - 128).sum() for p in planes]
        parts.append((planes[0] * weight[0] + planes[1] * weight[1]) / sum(weight))
    expected = cv2.cvtColor(np.stack(parts, -1).astype(np.uint8), cv2.COLOR_YCrCb2RGB)
    frame = fuse(
        path,
        task="mef",
        range_in="-1..1",
        range_out="-1..1",
        order="xy",
        luma="opencv",
        color_out="chroma-weighted",
        chroma_weights="picture",
        rounding="truncate",
    )
    assert_equal(frame, expected)


@pytest.mark.parametrize("color", ["chroma-weighted", "chroma-nearest"])
@pytest.mark.parametrize("kind", ["full", "opencv"])
def test_chroma_of_color_and_gray(path, color, kind):
    nets.two_inputs(path)
    frame = fuse(path, **UNIT, order="xy", y_content="gray", luma=kind, color_out=color)
    if color == "chroma-weighted":
        assert_equal(frame, fuse(path, **UNIT, order="xy", y_content="gray", luma=kind, color_out="chroma-x"))


def test_output_in_another_layout(path):
    """An output whose rows and columns are exchanged: read off its shape."""
    net = nets.Writer()
    value = net.op("Sigmoid", net.conv(net.op("Concat", "a", "b", axis=1), 2, 1))
    value = net.op("Transpose", value, perm=[0, 1, 3, 2])
    net.save(path, [("a", nets.ANY), ("b", nets.ANY)], [(value, "out", None)])
    output = run(path, a=nchw(VIS / 255), b=nchw(IR / 255))
    assert_equal(fuse(path, **UNIT, order="xy", color_out="gray"), to_uint8(255 * output[0, 0].T))


def test_batches(path):
    nets.two_inputs(path)
    frame = fuse(path, **UNIT, order="xy", color_out="chroma-x", batch=2)
    assert_equal(frame, fuse(path, **UNIT, order="xy", color_out="chroma-x"))
