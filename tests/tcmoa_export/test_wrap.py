"""Wrapping as a whole: bundles, the gate, references, modules, questions, and what cannot be wrapped."""

import dataclasses
import json
import re
import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import wrap_networks as nets
from tcmoa_export.parity import ParityError
from tcmoa_export.wrap import gate
from tcmoa_export.wrap.planning import make_plan, wrapped_graph
from tcmoa_export.wrap.prepare import prepare_graph
from tcmoa_export.wrap.questions import QuestionsError
from tcmoa_export.wrap.wrapping import _name_of, open_network, read_conventions, wrap_network
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import to_frame
from tcmoa_runtime.options.wrap import Conventions, WrapOptions

SIZE = (32, 48)
GRAY = {"range_in": "0..1", "range_out": "0..1", "color_out": "gray"}


def options(task="vif", *, size=SIZE, conventions=None, **given):
    return WrapOptions(task=task, size=size, conventions=Conventions(**(conventions or GRAY)), **given)


@pytest.fixture
def network(tmp_path):
    return nets.two_inputs(tmp_path / "two.onnx", names=("vis", "ir"))


def test_a_bundle_of_a_network(network, tmp_path):
    report = wrap_network(network, options(name="two", license="MIT"), tmp_path / "b")
    manifest = report.bundle.manifest
    assert manifest["network"]["kind"] == "wrapped"
    assert (manifest["network"]["name"], manifest["network"]["license"]) == ("two", "MIT")
    assert manifest["network"]["source"] == "two.onnx"
    assert manifest["network"]["sha256"] == open_network(network).sha256
    assert manifest["network"]["conventions"]["range_in"] == "0..1"
    assert manifest["gate"]["beyond_one"] == 0
    assert report.can_tile
    assert "x goes into 'vis' and y into 'ir'" in report.read
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 256, (*SIZE, c), dtype=np.uint8) for c in (3, 1))
    with Fuser.load(tmp_path / "b", backend="onnxruntime") as fuser:
        assert fuser(x, y).shape == (*SIZE, 3)
    said = Conventions.from_values(manifest["network"]["conventions"], "bundle.json")
    again = wrap_network(network, options(conventions=said.given(), name="two"), tmp_path / "again")
    assert again.bundle.manifest["graph"] == manifest["graph"], "the bundle states all that it was made with"


def test_a_network_that_looks_at_the_whole_frame_is_not_tiled(tmp_path):
    path = nets.joined_batch(tmp_path / "net.onnx", with_small=True)
    given = {**GRAY, "order": "xy", "small_inputs": ("I_lr",), "small_side": 16}
    assert not wrap_network(path, options("mef", conventions=given), tmp_path / "b").can_tile
    net = nets.Writer()
    mean = net.op("ReduceMean", "a", axes=[2, 3], keepdims=1)
    value = net.op("Sigmoid", net.op("Sub", net.op("Add", "a", "b"), net.op("Mul", mean, net.constant(3.0))))
    net.save(tmp_path / "mean.onnx", [("a", nets.ANY), ("b", nets.ANY)], [(value, "out", None)])
    given = {**GRAY, "order": "xy", "layout": "nchw", "x_content": "luma", "y_content": "luma"}
    assert not wrap_network(tmp_path / "mean.onnx", options(conventions=given), tmp_path / "m").can_tile


@pytest.mark.parametrize(
    ("file", "given", "name"),
    [
        ("net", None, "net"),
        ("нетто-2", None, "2"),
        ("сеть", None, "network"),
        ("n" * 90, None, "n" * 80),
        ("n", "A b", "A b"),
    ],
)
def test_names_are_those_of_files_or_given(file, given, name):
    assert _name_of(SimpleNamespace(name=file), options(name=given)) == name


@pytest.mark.parametrize("name", ["", "é", "a\nb", "n" * 81])
def test_a_wrong_name_is_refused_before_the_work(network, tmp_path, name):
    with pytest.raises(InputError) as caught:
        wrap_network(network, options(name=name), tmp_path / "b")
    assert str(caught.value) == f"name: {name!r}; expected 1 to 80 printable ASCII characters"
    assert not (tmp_path / "b").exists()


def test_the_gate_refuses_another_graph(network, tmp_path, monkeypatch):
    real = gate.fuse_plainly

    def brighter(*arguments):
        return np.minimum(real(*arguments).astype(int) + 3, 255).astype(np.uint8)

    monkeypatch.setattr(gate, "fuse_plainly", brighter)
    with pytest.raises(ParityError) as caught:
        wrap_network(network, options(), tmp_path / "b")
    line = str(caught.value)
    assert re.match(
        rf"{network}: 99\.\d\d% of values differ by more than one gray level from the network", line
    )
    assert re.search(r"but 'astronaut' has \d+ in place of \d+ at row 0, column 0, channel 0\. Nothing", line)
    assert not (tmp_path / "b").exists()
    assert caught.value.exit_code == 1


def test_a_uniform_result_is_refused(network, tmp_path):
    with pytest.raises(InputError, match="the result spans gray levels 0 to 1 only; expected a picture"):
        wrap_network(network, options(conventions={**GRAY, "range_out": "0..255"}), tmp_path / "b")


@pytest.fixture
def pairs(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for source in "xy":
            image = cv2.resize(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8), SIZE[::-1])
            cv2.imwrite(str(folder / f"{name}_{source}.png"), image)
    return folder


def test_references_of_the_networks_own_script(network, pairs, tmp_path):
    first = wrap_network(network, options(pairs=pairs), tmp_path / "first")
    references = tmp_path / "own"
    references.mkdir()
    with Fuser.load(first.bundle.path, backend="onnxruntime") as fuser:
        for name in ("a", "b"):
            x, y = (cv2.imread(str(pairs / f"{name}_{s}.png"))[..., ::-1] for s in "xy")
            frame = fuser(x, to_frame(y, "y", 1))
            cv2.imwrite(str(references / f"{name}.png"), np.asarray(frame)[..., ::-1])
    report = wrap_network(network, options(pairs=pairs, reference=references), tmp_path / "b")
    assert report.reference.psnr_db is None
    assert "unlike" not in report.describe()
    assert report.bundle.manifest["gate"]["reference"]["pictures"] == ["a", "b"]
    image = cv2.imread(str(references / "a.png"))
    cv2.imwrite(str(references / "a.png"), np.where(image < 250, image + 5, image))
    report = wrap_network(network, options(pairs=pairs, reference=references), tmp_path / "c")
    assert report.reference.max_difference == 5
    assert 36 < report.reference.psnr_db < 40
    assert report.describe().endswith("by more than one (unlike them: a convention is wrong)")
    (references / "b.png").unlink()
    with pytest.raises(
        InputError, match=r"no picture for b; expected NAME\.EXT for each pair, e\.g\. b\.png"
    ):
        wrap_network(network, options(pairs=pairs, reference=references), tmp_path / "d")
    shutil.copy(references / "a.png", references / "b.png")
    with pytest.raises(InputError, match="expected 40x32 as the bundle"):
        wrap_network(network, options(size=(32, 40), pairs=pairs, reference=references), tmp_path / "e")


# Conventions ---------------------------------------------------------------------------------------------------------


def test_a_file_beside_the_network_is_read_and_overridden(network, tmp_path):
    network.with_suffix(".toml").write_text(
        'range_in = "-1..1"\nrange_out = "0..1"\ncolor_out = "chroma-x"\n\n[constant]\n'
    )
    report = wrap_network(network, options(conventions={"range_in": "0..1"}), tmp_path / "b")
    assert (report.conventions.range_in, report.conventions.color_out) == ("0..1", "chroma-x")
    other = tmp_path / "other.toml"
    other.write_text('range_in = "0..255"\nrange_out = "0..1"\ncolor_out = "gray"\n')
    given = WrapOptions(task="vif", size=SIZE, conventions_file=other)
    assert wrap_network(network, given, tmp_path / "c").conventions.range_in == "0..255"


def test_options_replace_the_file_also_by_defaults(network, tmp_path, capsys):
    network.with_suffix(".toml").write_text(
        'range_in = "0..1"\nrange_out = "0..1"\ncolor_out = "gray"\nrounding = "truncate"\nstretch_in = true\n'
        "border = 2\n"
    )
    out = tmp_path / "b"
    flags = ("--rounding", "nearest", "--no-stretch-in", "--border", "0")
    code, _, _ = run(capsys, "wrap", network, "--task", "vif", "--size", "48x32", *flags, "-o", out)
    assert code == 0
    conventions = json.loads((out / "bundle.json").read_text())["network"]["conventions"]
    assert not conventions.keys() & {"rounding", "stretch_in", "border"}
    network.with_suffix(".toml").write_text(
        'range_in = "mean-std"\nrange_out = "0..1"\nmean = 0.5\nstd = 0.25\ncolor_out = "gray"\n'
    )
    for conventions, range_in, mean in (
        ({"mean": (0.25,)}, "mean-std", (0.25,)),
        ({"range_in": "0..1"}, "0..1", ()),
    ):
        found = read_conventions(network, options(conventions=conventions))
        assert (found.range_in, found.mean) == (range_in, mean)
    flags = ("--range-in", "0..1", "--mean", "0.5")
    code, _, errors = run(
        capsys, "wrap", network, "--task", "vif", "--size", "48x32", *flags, "-o", tmp_path / "c"
    )
    assert code == 2
    assert errors.splitlines()[-1] == (
        "tcmoa: error: --mean: given, but no range is mean-std; expected one. Use --range-in mean-std, or leave it out."
    )
    with pytest.raises(InputError, match=r"^overrides: 'roundin'; expected names of conventions$"):
        WrapOptions(task="vif", overrides=("roundin",))


def test_every_convention_can_be_written_in_toml(tmp_path):
    path = tmp_path / "net.toml"
    path.write_text(
        'inputs = ["a", "b"]\norder = "yx"\nmean = [0.5]\nstd = 0.25\nrange_in = "mean-std"\nmultiple = 16\n'
        'stretch_in = true\noutput = "fused"\nconstant = { sigma = 0, shape = [1, 2] }\n'
    )
    found = Conventions.from_toml(path)
    assert found.inputs == ("a", "b")
    assert (found.mean, found.std, found.multiple, found.stretch_in) == ((0.5,), (0.25,), 16, True)
    assert found.output == ("fused",)
    assert found.constants() == {"sigma": (0.0,), "shape": (1.0, 2.0)}
    assert Conventions.from_values(found.to_json(), "again") == found


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('range_inn = "0..1"', "net.toml: 'range_inn' is no convention; expected e.g. 'range_in'."),
        ("qqq = 1", "net.toml: 'qqq' is no convention; expected the name of a convention."),
        ('range_in = "0-1"', "net.toml: range_in: '0-1'; expected one of 0..1, 0..255, -1..1, mean-std."),
        ('multiple = "8"', "net.toml: multiple: '8'; expected a whole number."),
        ("multiple = 65", "net.toml: multiple: 65 pixels; expected 1 to 64 pixels."),
        ('mean = ["a"]', "net.toml: mean: ['a']; expected numbers."),
        ("order = 1", "net.toml: order: 1; expected a string."),
        ("stretch_in = 1", "net.toml: stretch_in: 1; expected true or false."),
        ('range_in = "mean-std"', "net.toml: mean-std: needs mean and std; expected both. Give mean and std in 0..1."),
        ("mean = 0.5", "net.toml: mean: given, but no range is mean-std; expected one. Use range_in='mean-std', or "
         "leave it out."),
        ("std = [0]", "net.toml: std: 0; expected numbers above 0."),
        ('constant = "sigma"', "net.toml: constant: 'sigma'; expected NAME=VALUE, e.g. sigma=0."),
    ],
)  # fmt: skip
def test_faults_of_a_file_are_one_line(tmp_path, text, line):
    path = tmp_path / "net.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        Conventions.from_toml(path)
    assert str(caught.value).replace(str(tmp_path) + "/", "") == line.rstrip(".") or (
        str(caught.value).replace(str(tmp_path) + "/", "") == line
    )


def test_the_conventions_in_the_guide_are_valid():
    text = (Path(__file__).parents[2] / "docs/guides/wrap.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 12
    for block in blocks:
        Conventions.from_values(tomllib.loads(block), "wrap.md")
    for field in dataclasses.fields(Conventions):
        assert f"`{field.name}`" in text


def ask(path, task="vif", size=SIZE, **given):
    with pytest.raises(QuestionsError) as caught:
        make_plan(open_network(path), Conventions(**given), task=task, size=size)
    return caught.value.questions


def test_what_is_open_is_asked_for_at_once(network, tmp_path):
    assert ask(network, "mef") == {
        "order": "xy|yx",
        "range_in": "0..1|0..255|-1..1|mean-std",
        "range_out": "0..1|0..255|-1..1|mean-std",
        "color_out": "gray|chroma-x|chroma-weighted|chroma-nearest",
    }
    assert set(ask(network, size=None)) == {"range_in", "range_out", "size"}
    rgb = nets.two_inputs(tmp_path / "rgb.onnx", channels=(3, 3), out=3)
    assert set(ask(rgb, "mff")) == {"order", "x_content", "y_content", "range_in", "range_out"}
    assert set(ask(network, multiple=64, **GRAY)) == {"padding"}
    pair = nets.joined_channels(tmp_path / "pair.onnx")
    assert set(ask(pair, **GRAY)) == {"order"}
    both = nets.with_constants(tmp_path / "both.onnx")
    given = {**GRAY, "constant": ("sigma=0", "scale=1")}
    assert make_plan(open_network(both), Conventions(**given), task="vif", size=SIZE).conventions.output == (
        "fused",
    ), "features have 32 channels"


def test_shapes_that_depend_on_sizes_are_folded_without_a_word(tmp_path, capfd):
    """Sizes computed from the input, as exporters write them: onnxsim prints what it cannot fold at once."""
    net = nets.Writer()
    joined = net.op("Concat", "a", "b", axis=1)
    shape = net.op("Shape", joined)
    sides = net.op("Slice", shape, net.constant([2], np.int64), net.constant([4], np.int64))
    target = net.op("Concat", net.constant([1, 2], np.int64), sides, axis=0)
    half = net.op("AveragePool", joined, kernel_shape=[2, 2], strides=[2, 2])
    large = net.op("Resize", half, "", "", target, mode="linear")
    count = net.op("ReduceProd", sides, keepdims=1)
    flat = net.op("Reshape", large, net.op("Concat", net.constant([1, 2], np.int64), count, axis=0))
    back = net.op("Reshape", flat, target)
    value = net.op("Sigmoid", net.conv(back, 2, 1))
    path = net.save(tmp_path / "net.onnx", [("a", nets.ANY), ("b", nets.ANY)], [(value, "out", None)])
    network = open_network(path)
    plan = make_plan(network, Conventions(**GRAY, order="xy"), task="vif", size=SIZE)
    kinds = {node.op_type for node in wrapped_graph(network, plan).graph.node}
    assert not kinds & {"Shape", "ReduceProd"}
    assert capfd.readouterr() == ("", "")


# What cannot be wrapped ----------------------------------------------------------------------------------------------


def build(path, conventions, task, size):
    network = open_network(path)
    wrapped_graph(network, make_plan(network, conventions, task=task, size=size))


def refuse(path, *, size=SIZE, task="vif", **given):
    """Return the message of wrapping, without the path."""
    with pytest.raises(InputError) as caught:
        build(path, Conventions(**{**GRAY, "order": "xy", **given}), task, size)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{path}: ", "").replace(f"{path}", "")


def test_control_flow_and_other_operators_are_named(tmp_path):
    path = tmp_path / "net.onnx"
    net = nets.Writer()
    grid = net.op("Concat", net.op("Add", "a", "b"), "b", axis=1)
    grid = net.op("Transpose", grid, perm=[0, 2, 3, 1])
    value = net.op("GridSample", net.conv("a", 1, 1), grid)
    net.save(path, [("a", nets.ANY), ("b", nets.ANY)], [(value, "out", None)])
    assert "is the operator GridSample (warping by a flow field, as registration networks do)" in refuse(path)
    net = nets.Writer()
    noise = net.op("RandomNormalLike", "a")
    value = net.op("Add", net.conv(noise, 1, 1), "b")
    net.save(path, [("a", nets.ANY), ("b", nets.ANY)], [(value, "out", None)])
    assert "RandomNormalLike (random numbers, as diffusion models draw)" in refuse(path)
    net = nets.Writer()
    net.nodes.append(helper.make_node("FusedConv", ["a"], ["f"], name="fc", domain="com.microsoft"))
    net.nodes.append(helper.make_node("Add", ["f", "b"], ["out"]))
    model = helper.make_model(
        helper.make_graph(
            net.nodes,
            "net",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, nets.ANY) for n in "ab"],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, tuple("pqrs"))],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        ir_version=8,
    )
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"it holds the operator FusedConv of the domain 'com\.microsoft'"):
        prepare_graph(model, dict.fromkeys("ab", (1, 1, *SIZE)), {}, ["out"], "net")
    model.graph.node[0].op_type, model.graph.node[0].domain = (
        "Fancy",
        "my.domain",
    )  # which ONNX Runtime has not
    model.opset_import[1].domain = "my.domain"
    onnx.save(model, path)
    assert refuse(path) == (
        "it holds the operator Fancy of the domain 'my.domain'; expected the standard one only. Export the network "
        "without contributed or custom operators."
    )


def test_a_loop_is_named(tmp_path):
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond"], ["cond_out"]),
            helper.make_node("Mul", ["v", "v"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, ()),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, nets.ANY),
        ],
        [
            helper.make_tensor_value_info("cond_out", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, nets.ANY),
        ],
    )
    net = nets.Writer()
    total = net.op("Add", net.conv("a", 1, 1), "b")
    # As many steps as the picture has rows of light: not known before.
    steps = net.op("Cast", net.op("ReduceMax", "a", keepdims=0), to=TensorProto.INT64)
    value = net.op("Loop", steps, "", total, body=body)
    path = net.save(tmp_path / "net.onnx", [("a", nets.ANY), ("b", nets.ANY)], [(value, "out", None)])
    assert "is the operator Loop (control flow, e.g. the loop of a diffusion model)" in refuse(path)


def test_stacks_flows_and_steps_are_refused(tmp_path):
    path = tmp_path / "net.onnx"
    nets.joined_channels(path, count=5, dims=("n", 5, "h", "w"))
    assert refuse(path) == (
        "the input 'pair' joins 5 pictures along its channels; expected two sources. Export the network for two "
        "pictures and fuse stacks pair by pair."
    )
    nets.two_inputs(path, out=2)
    assert "has two channels, as the flow field of a registration network has" in refuse(path)
    nets.two_inputs(path, out=5)
    assert "its output 'fused' has 5 channels; expected a picture in 1 or 3" in refuse(path)
    nets.two_inputs(path, names=("image", "timestep"))
    assert "the input 'timestep' is a step of a diffusion loop; expected two sources" in refuse(path)
    net = nets.Writer()
    value = net.op("Add", net.op("Add", net.conv("a", 1, 1), "b"), "c")
    net.save(path, [(name, nets.ANY) for name in "abc"], [(value, "out", None)])
    assert refuse(path).startswith(
        "it has the inputs a, b, c; expected two sources, or one input that joins them."
    )
    assert refuse(path, inputs=("a", "b")).startswith("nothing is said of the inputs c; expected a value")


def test_inputs_outputs_and_sizes_that_do_not_fit(tmp_path):
    path = nets.two_inputs(tmp_path / "net.onnx")
    assert "no input is named 'z'; expected one of a, b" in refuse(path, inputs=("z", "a"))
    assert "no output is named 'z'; expected one of fused" in refuse(path, output=("z",))
    assert "has 4 axes, but the layout hw 2; expected equal numbers" in refuse(path, layout="hw")
    assert "x_content is rgb, but the network takes x in one channel" in refuse(path, x_content="rgb")
    assert "rgb, but the network gives one channel; expected gray or a chroma" in refuse(
        path, color_out="rgb"
    )
    fixed = nets.two_inputs(tmp_path / "fixed.onnx", dims=[(1, 1, 30, 40)] * 2)
    assert "it takes 40x30 only, but the frames are 48x32; expected frames of its size" in refuse(fixed)
    half = tmp_path / "half.onnx"
    net = nets.Writer()
    value = net.op(
        "AveragePool", net.conv(net.op("Add", "a", "b"), 1, 1), kernel_shape=[2, 2], strides=[2, 2]
    )
    net.save(half, [("a", nets.ANY), ("b", nets.ANY)], [(value, "out", None)])
    assert "its output 'out' is [1, 1, 16, 24]; expected a picture of 48x32" in refuse(half)


def test_a_multiple_that_was_not_stated_is_found(tmp_path):
    net = nets.Writer()
    half = net.op("MaxPool", "a", kernel_shape=[4, 4], strides=[4, 4])
    large = net.op("Resize", half, "", net.constant([1, 1, 4, 4]), mode="nearest")
    value = net.op("Sigmoid", net.conv(net.op("Concat", "b", large, axis=1), 2, 1))
    path = net.save(tmp_path / "net.onnx", [("a", nets.ANY), ("b", nets.ANY)], [(value, "out", None)])
    assert refuse(path, size=(30, 48)) == (
        "it does not take 48x30; expected multiples of 4 pixels. Set multiple=4 and padding, or another size."
    )
    build(path, Conventions(**GRAY, order="xy", multiple=4, padding="repeat"), "vif", (30, 48))


def test_files_that_are_no_networks(tmp_path):
    path = tmp_path / "net.onnx"
    assert "cannot be read: No such file or directory" in refuse(path)
    path.write_bytes(b"not a network")
    assert "expected an ONNX file" in refuse(path)
    path.write_bytes(b"")
    assert "expected an ONNX file" in refuse(path)
    weights = tmp_path / "net.pth"
    weights.write_bytes(b"")
    assert refuse(weights).startswith("weights without the network; expected an ONNX file. Build the module")
    old = onnx.load(nets.two_inputs(path))
    old.opset_import[0].version = 8
    onnx.save(old, path)
    assert refuse(path).startswith("operator set 8; expected operator set 9 or newer.")


def test_weights_in_another_file_count_in_the_hash(network, tmp_path):
    proto = onnx.load(network)
    external = tmp_path / "external.onnx"
    onnx.save(proto, external, save_as_external_data=True, location="weights.bin", size_threshold=0)
    report = wrap_network(external, options(), tmp_path / "b")
    before = report.bundle.manifest["network"]["sha256"]
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[3] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert open_network(external).sha256 != before


# Modules -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_module(tmp_path):
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(4, 1, 1))

        def forward(self, vis, ir, scale=2.0):
            return {"fused": torch.sigmoid(self.layers(torch.cat([vis, ir], 1)) * scale), "vis": vis}

    torch.manual_seed(0)
    module = Net().train()
    given = {**GRAY, "output": ("fused",)}
    report = wrap_network(module, options(conventions=given), tmp_path / "b")
    assert module.training
    assert report.bundle.network.name == "Net"
    assert "x goes into 'vis' and y into 'ir'" in report.read
    with pytest.raises(InputError, match=r"Net: no output is named 'z'; expected one of fused, vis"):
        wrap_network(module, options(conventions={**GRAY, "output": ("z",)}), tmp_path / "c")


# Command line --------------------------------------------------------------------------------------------------------


def run(capsys, *arguments):
    from tcmoa_runtime.cli import run as run_command

    code = run_command([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command(network, tmp_path, capsys):
    flags = ("--range-in", "0..1", "--range-out", "0..1", "--color-out", "chroma-x", "--license", "MIT")
    out = tmp_path / "b"
    code, printed, _ = run(capsys, "wrap", network, "--task", "vif", "--size", "48x32", *flags, "-o", out)
    assert code == 0
    assert f"{network}: x goes into 'vis' and y into 'ir'" in printed
    assert printed.endswith(
        f"{out}: vif, 48x32; against the network: largest difference 0 gray levels, 0.0000% of values differ\n"
    )
    manifest = json.loads((out / "bundle.json").read_text())
    assert manifest["network"]["license"] == "MIT"
    code, _, errors = run(capsys, "wrap", network, "--task", "vif", "--size", "48x32", *flags, "-o", out)
    assert (code, "--overwrite" in errors) == (2, True)
    shutil.rmtree(out)
    code, _, errors = run(capsys, "wrap", network, "--task", "vif", "--size", "48x32", "-o", out)
    assert code == 2
    ranges = "(0..1|0..255|-1..1|mean-std)"
    colors = "(gray|chroma-x|chroma-weighted|chroma-nearest)"
    assert errors.splitlines()[-1].startswith(
        f"tcmoa: error: {network}: the network does not say range_in {ranges}, range_out {ranges}, color_out {colors}; "
        f"expected one of each. Set --range-in, --range-out, --color-out, or put a TOML file of the same name beside "
        f"the network"
    )
    assert not out.exists()
