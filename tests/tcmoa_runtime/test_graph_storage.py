"""Constants stored in fewer bytes are restored to the numbers that were computed with."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from micro_model import scrambled
from tcmoa import Sizes
from tcmoa_calibration.quantize.linears import backbone_linears
from tcmoa_export import export_bundle
from tcmoa_export.graph_builder import FLOAT32
from tcmoa_export.graph_loading import load_graph
from tcmoa_export.network import build_graph
from tcmoa_export.parity import MIN_PSNR_DB, Parity, ParityError, check_parity
from tcmoa_export.precision import lower
from tcmoa_export.spec import make_spec
from tcmoa_runtime import Fuser
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.graph_storage import (
    MIN_ELEMENTS,
    restore_constants,
    store_float16,
    store_short_indices,
)
from tcmoa_runtime.options.export import ExportOptions

SIZE = (100, 130)


def export(out, **options):
    model = scrambled(Sizes(64, 4, 2, 64, 4, 2))
    return export_bundle(model, ExportOptions(task="vif", size=SIZE, with_prompt=True, **options), out)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Bundle with weights in float16; read-only."""
    return export(tmp_path_factory.mktemp("half") / "bundle", weight_storage="fp16")


def test_a_graph_below_the_bound_is_refused():
    good = Parity(2, ["a"], "onnxruntime", 1, 0.03, 0.0, 55.0, 0.02)
    check_parity(good, "fp32, weights fp16")
    for change, line in (
        (
            {"psnr_db": 54.99},
            "the fp32 graph with weights in fp16: PSNR to the model is 54.99 dB; expected at least 55 dB. "
            "Nothing was written. Use weight_storage fp32.",
        ),
        (
            {"prompt_difference": 0.021},
            "the fp32 graph with weights in fp16: the difference of prompts is 0.021; expected at most 0.02 (the "
            "largest difference from the model is 1 gray levels). Nothing was written. Please report it, with the "
            "weights if you can.",
        ),
    ):
        with pytest.raises(ParityError) as caught:
            check_parity(Parity(**good.to_dict() | change), "fp32, weights fp16")
        assert str(caught.value) == line


def test_a_graph_in_16_bits_has_no_storage_of_its_own(tcmoa, tmp_path):
    outcome = tcmoa(
        *("export", "--weights", "nano", "--task", "vif", "--size", "80x80", "--out", tmp_path / "b"),
        *("--precision", "fp16", "--weight-storage", "fp16"),
    )
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines() == [
        "tcmoa: error: --weight-storage: 'fp16' in a graph in fp16; expected fp32, as such a graph stores its weights "
        "in 16 bits already. Export in --precision fp32, or leave --weight-storage out."
    ]


def constants_of(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def model_with(value, *, reader="Relu", mark=""):
    """A graph whose only node reads a constant."""
    node = helper.make_node(reader, ["constant"], ["y"], doc_string=mark)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, list(value.shape))
    return helper.make_model(
        helper.make_graph([node], "test", [], [y], [numpy_helper.from_array(value, "constant")])
    )


def test_bundle_json_and_the_gate_state_the_storage(half, vif):
    assert half.weight_storage == "fp16"
    assert half.precision == "fp32"
    assert half.section("parity").get("psnr_db", float) >= MIN_PSNR_DB["fp32, weights fp16"] == 55
    assert "_weights-fp16_" in half.graph_name
    assert Bundle.open(vif).weight_storage == "fp32"
    assert half.files["fusion.onnx"].bytes < 0.7 * Bundle.open(vif).files["fusion.onnx"].bytes


def test_a_bundle_without_the_entry_stores_its_weights_in_its_precision(vif):
    bundle = Bundle.open(vif)
    del bundle.manifest["weight_storage"]
    assert bundle.weight_storage == "fp32"


def test_the_loaded_graph_has_the_constants_of_the_plain_one_rounded(half, vif):
    loaded, plain = constants_of(load_graph(half)), constants_of(load_graph(Bundle.open(vif)))
    assert {name for name in loaded if loaded[name].dtype == np.float32} == {
        name for name in plain if plain[name].dtype == np.float32
    }
    rounded = 0
    for name, value in plain.items():
        if value.dtype == np.float32 and not np.array_equal(loaded[name], value):
            assert np.array_equal(loaded[name], value.astype(np.float16).astype(np.float32)), name
            assert value.size >= MIN_ELEMENTS
            rounded += 1
    assert rounded >= 10
    assert [n.name for n in load_graph(half).graph.node] == [
        n.name for n in load_graph(Bundle.open(vif)).graph.node
    ]


def test_an_engine_in_fp16_is_built_from_the_same_numbers(half, vif):
    """What the 16-bit graph keeps in float32 is stored in float32, and the rest is rounded once."""
    ours, plain = (lower(load_graph(bundle), "fp16") for bundle in (half, Bundle.open(vif)))
    expected = constants_of(plain)
    for name, value in constants_of(ours).items():
        assert np.array_equal(value, expected[name]), name


def test_the_linear_layers_are_found_for_quantization(half, vif):
    assert backbone_linears(load_graph(half)) == backbone_linears(load_graph(Bundle.open(vif)))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_backends_compute_in_float32(half, pair, backend):
    pytest.importorskip(backend)
    model = load_graph(half)
    with Fuser.load(half.path, backend) as fuser:
        fused, prompt = fuser.with_prompt(*pair)
    from tcmoa_export.graph_session import GraphSession

    with Fuser(half, GraphSession(model, half.contract, "fp32")) as fuser:
        expected, expected_prompt = fuser.with_prompt(*pair)
    assert np.abs(fused.astype(int) - expected).max() <= 1
    assert np.quantile(np.abs(prompt - expected_prompt), 0.99) < 1e-4


@pytest.mark.parametrize(
    ("value", "mark"),
    [
        (np.ones(MIN_ELEMENTS - 1, np.float32), ""),
        (np.full(MIN_ELEMENTS, 65505, np.float32), ""),
        (np.full(MIN_ELEMENTS, -7e4, np.float32), ""),
        (np.ones(MIN_ELEMENTS, np.float32), FLOAT32),
        (np.ones(MIN_ELEMENTS, np.int64), ""),
    ],
    ids=["small", "too large", "too negative", "precise", "integers"],
)
def test_some_constants_keep_their_type(value, mark):
    model = model_with(value, mark=mark)
    store_float16(model, FLOAT32)
    assert constants_of(model)["constant"].dtype == value.dtype
    assert len(model.graph.node) == 1


def test_the_largest_float16_is_stored_and_restored():
    value = np.full(MIN_ELEMENTS, 65504, np.float32)
    model = model_with(value)
    store_float16(model, FLOAT32)
    onnx.checker.check_model(model)
    (stored,) = constants_of(model).values()
    assert stored.dtype == np.float16
    assert np.array_equal(constants_of(restore_constants(model))["constant"], value)


def test_indices_that_other_nodes_read_stay_int64():
    index = np.arange(MIN_ELEMENTS, dtype=np.int64)
    for reader, dtype in (("Gather", np.int32), ("Reshape", np.int64)):
        node = helper.make_node(reader, ["x", "index"], ["y"])
        model = helper.make_model(
            helper.make_graph([node], "test", [], [], [numpy_helper.from_array(index, "index")])
        )
        store_short_indices(model)
        assert constants_of(model)["index"].dtype == dtype


def test_the_same_model_gives_the_same_bytes():
    model = scrambled(Sizes(64, 4, 2, 64, 4, 2)).eval()
    spec = make_spec(model, ExportOptions(task="vif", size=SIZE, weight_storage="fp16"))
    first, second = (build_graph(model, spec, "g", "0").SerializeToString() for _ in range(2))
    assert first == second
