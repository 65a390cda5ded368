"""Each step of quantising by itself: what must not change the image does not, and what rounds rounds as it says."""

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from calibration_pieces import SIDE, export_tiny, write_pairs
from tcmoa_calibration.quantize.formats import FP8, INT8
from tcmoa_calibration.quantize.linears import Linear, backbone_linears, groups_of
from tcmoa_calibration.quantize.observe import Observed, observe
from tcmoa_calibration.quantize.ranges import METHODS, range_end
from tcmoa_calibration.quantize.rewrite import finish, quantise, share_tables
from tcmoa_calibration.quantize.smoothing import smooth, smoothing_scales
from tcmoa_calibration.samples import graph_inputs, read_samples
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.pairs import find_pairs


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return export_tiny(tmp_path_factory.mktemp("steps") / "tiny")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = write_pairs(tmp_path_factory.mktemp("steps") / "pairs", 4)
    return read_samples(find_pairs(folder), (SIDE, SIDE), most=4, least=4, seed=0).fit


@pytest.fixture
def model(tiny):
    return onnx.load(tiny.graph_path)


def floats(model, bundle, sample):
    """What the graph makes before it rounds to uint8, as its tail's float32 input to the cast."""
    graph = model.graph
    cast = next(n for n in graph.node if "fused" in n.output)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.append(helper.make_tensor_value_info(cast.input[0], TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(watched.SerializeToString(), options)
    return session.run([cast.input[0]], graph_inputs(bundle, sample))[0]


def test_the_linears_are_six_a_block_and_none_of_the_adapters(tiny, model):
    linears = backbone_linears(model)
    blocks = tiny.manifest["model"]["depth"] + tiny.manifest["model"]["decoder_depth"]
    assert len(linears) == 6 * blocks  # q, k and v are three
    assert sum(linear.norm is not None for linear in linears) == 4 * blocks
    groups = groups_of(linears)
    assert len(groups) == 2 * blocks
    assert {len(members) for members in groups.values()} == {2, 4}
    assert not [linear for linear in linears if "moa" in linear.node or "tail" in linear.node]


def test_observed_maxima_are_those_of_the_real_inputs(tiny, model, samples):
    linears = backbone_linears(model)
    observed = observe(model, tiny, samples, linears, seed=0)
    assert set(observed) == {linear.source for linear in linears}
    name = linears[0].source
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = ort.InferenceSession(watched.SerializeToString())
    inputs = [np.abs(session.run([name], graph_inputs(tiny, s))[0]) for s in samples]
    np.testing.assert_allclose(
        observed[name].channel_max, np.max([v.max(axis=0) for v in inputs], axis=0), rtol=1e-5
    )
    rows = np.concatenate(inputs)
    for row in observed[name].rows[:5]:
        assert np.abs(rows - row).max(axis=1).min() < 1e-4


@pytest.mark.parametrize("strength", [0.35, 0.65])
def test_smoothing_leaves_the_image_as_it_was_and_evens_the_channels_out(tiny, model, samples, strength):
    before = floats(model, tiny, samples[0])
    linears = backbone_linears(model)
    observed = observe(model, tiny, samples, linears, seed=0)
    now = smooth(model, linears, observed, strength)
    # Grey levels; a rounding of the last bit of weights is all that is allowed.
    assert np.abs(floats(model, tiny, samples[0]) - before).max() < 0.02
    # What is said of the inputs is what they are now.
    again = observe(model, tiny, samples, backbone_linears(model), seed=0)
    for name, seen in again.items():
        np.testing.assert_allclose(now[name].channel_max, seen.channel_max, rtol=2e-3, atol=1e-4)

    def spread(of):
        ratios = [
            of[x.source].channel_max.max() / np.median(of[x.source].channel_max) for x in linears if x.norm
        ]
        return float(np.mean(ratios))

    assert spread(now) < 0.8 * spread(observed)


@given(
    st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=8),
    st.floats(0.05, 0.95),
)
def test_smoothing_scales_have_mean_one_and_follow_the_formula(maxima, strength):
    channel_max = np.array(maxima, np.float32)
    weights = [np.diag(np.arange(1, len(maxima) + 1)).astype(np.float32)]
    scales = smoothing_scales(channel_max, weights, strength)
    assert np.exp(np.mean(np.log(scales.astype(np.float64)))) == pytest.approx(1, rel=1e-4)
    expected = channel_max**strength / np.arange(1, len(maxima) + 1) ** (1 - strength)
    np.testing.assert_allclose(scales / scales[0], expected / expected[0], rtol=1e-3)


def test_small_tables_are_exact(tiny, model, samples):
    before = floats(model, tiny, samples[0])
    size = model.ByteSize()
    share_tables(model)
    np.testing.assert_array_equal(floats(model, tiny, samples[0]), before)
    assert model.ByteSize() < size - 5_000_000  # of 6.1 MB in tables
    finish(model, "other")
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(floats(model, tiny, samples[0]), before)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50), st.floats(1e-3, 10))
def test_rounding_errs_by_half_a_step_at_most_within_the_range(values, scale):
    array = np.array(values)
    inside = np.abs(array) <= 127 * scale
    rounded = INT8.rounded(array, scale)
    assert np.all(np.abs(rounded - array)[inside] <= scale / 2 * (1 + 1e-9))
    assert np.all(np.abs(rounded) <= 128 * scale)
    assert np.all(np.abs(FP8.rounded(array, scale)) <= 448 * scale)
    steps = np.abs(array / scale)
    normal = (steps >= 2**-6) & (steps <= 448)
    # Three bits behind the point: half of the last one.
    assert np.all(
        np.abs(FP8.rounded(array, scale) - array)[normal] <= np.abs(array)[normal] / 16 * (1 + 1e-9)
    )


@pytest.mark.parametrize("number_format", [INT8, FP8])
@pytest.mark.parametrize("shared", [False, True])
def test_the_graph_computes_with_the_numbers_that_the_format_gives(number_format, shared):
    rng = np.random.default_rng(0)
    weight = (rng.normal(0, 1, (6, 4)) * np.array([1, 0.1, 5, 0])).astype(np.float32)
    names = ["encoder.0/attention/MatMul", "encoder.0/attention/MatMul.901"][: 1 + shared]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", f"w{i}"], [f"out{i}"], name) for i, name in enumerate(names)],
        "g",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [5, 6])],
        [helper.make_tensor_value_info(f"out{i}", TensorProto.FLOAT, [5, 4]) for i in range(len(names))],
        [numpy_helper.from_array(weight * (i + 1), f"w{i}") for i in range(len(names))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    linears = [
        Linear(name, "a", f"w{i}", None, "encoder.0/attention", (6, 4)) for i, name in enumerate(names)
    ]
    quantise(model, linears, {"a": 2.0}, number_format)
    onnx.checker.check_model(model)
    a = rng.normal(0, 1.5, (5, 6)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString())
    quantised_a = number_format.rounded(a, np.float32(2.0 / number_format.largest))
    for i, result in enumerate(session.run(None, {"a": a})):
        most = np.abs(weight * (i + 1)).max(axis=0)
        scales = np.where(most > 0, most / number_format.largest_weight, 1).astype(np.float32)
        if shared:
            scales = np.float32(np.abs(2 * weight).max() / number_format.largest_weight)
        if number_format is INT8:
            stored = np.clip(np.rint((weight * (i + 1)).astype(np.float64) / scales), -64, 64)
        else:
            stored = ((weight * (i + 1)).astype(np.float64) / scales).astype(ml_dtypes.float8_e4m3fn)
        np.testing.assert_allclose(result, quantised_a @ (stored.astype(np.float64) * scales), atol=1e-4)


def of_values(values):
    return Observed(np.array([np.abs(values).max()], np.float32), np.abs(values)[:, None].astype(np.float32))


def test_ranges_by_method():
    rng = np.random.default_rng(0)
    even = of_values(rng.uniform(-1, 1, 100_000))
    for method in METHODS:
        assert range_end(even, method, INT8) > 0.85
    lonely = of_values(np.concatenate([rng.normal(0, 1, 200_000), [1000.0]]))
    assert range_end(lonely, "max", INT8) == 1000
    assert 3 < range_end(lonely, "percentile", INT8) < 6
    assert range_end(lonely, "entropy", INT8) < 200
    assert range_end(lonely, "mse", INT8) <= 1000
    # What mse chooses is no worse than not clipping.
    bell = of_values(np.concatenate([rng.normal(0, 1, 65_000), [8.0]]))
    end, values = range_end(bell, "mse", INT8), bell.rows[:, 0]
    assert end < 8
    errors = [np.mean((INT8.rounded(values, e / 127) - values) ** 2) for e in (end, 8.0)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("method", METHODS)
def test_an_input_that_is_always_zero_gets_a_range(method):
    assert range_end(of_values(np.zeros(100)), method, INT8) > 0


def test_a_method_that_is_none_is_refused():
    with pytest.raises(InputError, match="ranges are 'best': expected one of max, percentile, entropy, mse"):
        range_end(of_values(np.ones(4)), "best", INT8)


def test_a_graph_without_linears_is_refused():
    with pytest.raises(
        InputError, match="no float32 linears of a backbone: export the bundle with --precision"
    ):
        backbone_linears(onnx.ModelProto())


def test_two_products_fit_into_16_bits():
    """x86 CPUs without VNNI add them up there."""
    assert 2 * 255 * INT8.largest_weight <= 2**15 - 1
