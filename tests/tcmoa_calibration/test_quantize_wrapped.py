"""Wrapped networks in int8: convolutions and products within the budget, the others in float32."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import engine_pieces
from calibration_pieces import write_pairs
from tcmoa_calibration.quantize import quantize_bundle
from tcmoa_calibration.quantize.products import find_products, group_products
from tcmoa_runtime import Fuser
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli import run
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.options.build import BuildOptions
from tcmoa_runtime.options.quantize import QuantizeOptions
from tcmoa_runtime.pairs import find_pairs
from wrapped_pieces import contract_of, two_layers, write_two_layers


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Bundle of the small network in float32, which stretches x by its extremes."""
    return Bundle.open(write_two_layers(tmp_path_factory.mktemp("wrapped") / "b", stretches=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with four pairs."""
    return write_pairs(tmp_path_factory.mktemp("pairs"), 4)


def quantize(source, folder, out, **options):
    messages = []
    chosen = QuantizeOptions(**{"ranges": "max", "fit": "resize", **options})
    return quantize_bundle(source, find_pairs(folder), out, chosen, on_message=messages.append), messages


def test_a_wrapped_network_is_quantized_within_the_budget(source, folder, tmp_path, capsys):
    result, messages = quantize(source, folder, tmp_path / "int8", min_psnr=30)
    bundle = result.bundle
    assert messages[0].startswith("measuring the inputs of 2 convolutions and products on ")
    assert (bundle.precision, bundle.network, bundle.has_prompt) == ("int8", source.network, False)
    assert (result.num_linears, result.scheme.smoothing, result.error.psnr_db >= 30) == (2, 0, True)
    kinds = {t.name: t.data_type for t in onnx.load(bundle.graph_path).graph.initializer}
    assert kinds["w1/q"] == onnx.TensorProto.INT8
    assert "w1" not in kinds
    x, y = (read_frame(path) for path in sorted(folder.iterdir())[:2])
    with (
        Fuser.load(source.path, "onnxruntime", threads=1) as own,
        Fuser.load(bundle.path, "onnxruntime") as fuser,
    ):
        error = np.mean((own(x, y).astype(float) - fuser(x, y)) ** 2)
    assert 10 * np.log10(255**2 / error) > 28
    assert run(["inspect", str(bundle.path)]) == 0
    assert "2 convolutions and products, smoothing 0.0, ranges max" in capsys.readouterr().out


def test_an_engine_computes_its_convolutions_in_int8(source, folder, tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings", reason=engine_pieces.NO_RTX, exc_type=ImportError)
    from tcmoa_export.engines.build import build_engine

    bundle = quantize(source, folder, tmp_path / "int8", min_psnr=30)[0].bundle
    messages = []
    engine = build_engine(bundle, BuildOptions(targets=("sm89",)), on_message=messages.append)
    assert messages == ["lowering the graph to fp16", "building the engine"]
    assert (engine.manifest["eight_bit_linears"], engine.manifest["eight_bit_products"]) == (2, 2)


def test_layers_that_forbid_it_are_named(source, folder, tmp_path):
    with pytest.raises(InputError) as raised:
        quantize(source, folder, tmp_path / "int8", min_psnr=200)
    text = str(raised.value)
    assert "expected at least 200 dB (the most sensitive first: " in text
    assert "net/hidden" in text
    assert "net/output" in text
    assert not (tmp_path / "int8").exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"smoothing": 0.5},
            "smoothing: 0.5; expected 0 for a wrapped network, whose layers need not follow a norm. Leave it out.",
        ),
        (
            {"number_format": "fp8"},
            "number format: fp8; expected int8, which wrapped networks are calibrated to. Use `tcmoa calibrate int8`",
        ),
    ],
)
def test_options_of_a_backbone_are_refused(options, line, source, folder, tmp_path):
    with pytest.raises(InputError) as raised:
        quantize(source, folder, tmp_path / "int8", **options)
    assert str(raised.value) == line


def test_products_are_found_and_grouped():
    model = two_layers(contract_of())
    products = find_products(model)
    assert [(product.node, product.axis) for product in products] == [("net/hidden", 0), ("net/output", 0)]
    assert products[0].multiplications == 40 * 56 * 8 * 6 * 9
    many = [replace(products[0], node=str(number)) for number in range(60)]
    assert [len(group) for group in group_products(many).values()] == [3] * 20


def test_conversions_around_the_network_are_left_alone():
    model = two_layers(contract_of())
    for node in model.graph.node:
        if node.name == "net/output":
            node.name = "network/output"
    assert [product.node for product in find_products(model)] == ["network/output"]


def test_a_graph_without_products_is_refused():
    constant = numpy_helper.from_array(np.float32(2), "two")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"], "double")],
        "g",
        [info("x", onnx.TensorProto.FLOAT, (1, 3))],
        [info("y", onnx.TensorProto.FLOAT, (1, 3))],
        [constant],
    )
    with pytest.raises(InputError, match="graph: no convolution and no product with float32 weights"):
        find_products(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
