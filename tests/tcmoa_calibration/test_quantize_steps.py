"""The steps of quantization: exact rewrites do not change the image, and rounding is that of the number format."""

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from calibration_pieces import SIDE, export_tiny, write_pairs
from tcmoa_calibration.quantize.activations import ActivationStats, collect_activation_stats
from tcmoa_calibration.quantize.formats import FP8, INT8
from tcmoa_calibration.quantize.linears import BackboneLinear, backbone_linears, group_linears
from tcmoa_calibration.quantize.placement import chosen_linears, quantized_results
from tcmoa_calibration.quantize.ranges import clipping_threshold
from tcmoa_calibration.quantize.result_scales import ResultScales, balance_result_scales, column_scales
from tcmoa_calibration.quantize.rewrite import finalize, quantize_linears
from tcmoa_calibration.quantize.smoothing import smooth, smoothing_scales
from tcmoa_calibration.sample_pairs import graph_inputs, read_split
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.graph_storage import share_position_biases
from tcmoa_runtime.options.quantize import RANGE_METHODS, QuantizeOptions
from tcmoa_runtime.pairs import find_pairs


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return export_tiny(tmp_path_factory.mktemp("steps") / "tiny")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = write_pairs(tmp_path_factory.mktemp("steps") / "pairs", 4)
    return read_split(find_pairs(folder), (SIDE, SIDE), max_pairs=4, min_pairs=4, seed=0).fit


@pytest.fixture
def model(tiny):
    return onnx.load(tiny.graph_path)


def floats(model, bundle, sample):
    """The fused frame before the cast to uint8, in float32."""
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
    groups = group_linears(linears)
    assert len(groups) == 2 * blocks
    assert {len(members) for members in groups.values()} == {2, 4}
    assert not [linear for linear in linears if "moa" in linear.node or "tail" in linear.node]


def test_observed_maxima_are_those_of_the_real_inputs(tiny, model, samples):
    linears = backbone_linears(model)
    observed = collect_activation_stats(model, tiny, samples, linears, seed=0)
    assert set(observed) == {linear.input for linear in linears}
    name = linears[0].input
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
def test_smoothing_preserves_the_image_and_evens_out_the_channels(tiny, model, samples, strength):
    before = floats(model, tiny, samples[0])
    linears = backbone_linears(model)
    observed = collect_activation_stats(model, tiny, samples, linears, seed=0)
    now = smooth(model, linears, observed, strength)
    # Gray levels: the weights are rounded to float32 once more.
    assert np.abs(floats(model, tiny, samples[0]) - before).max() < 0.02
    # The returned statistics are those of the changed inputs.
    expected = collect_activation_stats(model, tiny, samples, backbone_linears(model), seed=0)
    for name, seen in expected.items():
        np.testing.assert_allclose(now[name].channel_max, seen.channel_max, rtol=2e-3, atol=1e-4)

    def spread(of):
        ratios = [
            of[x.input].channel_max.max() / np.median(of[x.input].channel_max) for x in linears if x.norm
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


def test_shared_position_biases_are_exact(tiny, model, samples):
    before = floats(model, tiny, samples[0])
    size = model.ByteSize()
    share_position_biases(model)
    np.testing.assert_array_equal(floats(model, tiny, samples[0]), before)
    assert model.ByteSize() < size - 500_000  # of 0.6 MB
    finalize(model, "other")
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(floats(model, tiny, samples[0]), before)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50), st.floats(1e-3, 10))
def test_the_rounding_error_within_the_range_is_at_most_half_a_step(values, scale):
    array = np.array(values)
    inside = np.abs(array) <= 127 * scale
    rounded = INT8.round_trip(array, scale)
    assert np.all(np.abs(rounded - array)[inside] <= scale / 2 * (1 + 1e-9))
    assert np.all(np.abs(rounded) <= 128 * scale)
    assert np.all(np.abs(FP8.round_trip(array, scale)) <= 448 * scale)
    steps = np.abs(array / scale)
    normal = (steps >= 2**-6) & (steps <= 448)
    # E4M3 has three bits of mantissa.
    assert np.all(
        np.abs(FP8.round_trip(array, scale) - array)[normal] <= np.abs(array)[normal] / 16 * (1 + 1e-9)
    )


@pytest.mark.parametrize("number_format", [INT8, FP8])
@pytest.mark.parametrize("shared", [False, True])
def test_the_graph_computes_with_the_numbers_of_the_format(number_format, shared):
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
        BackboneLinear(name, "a", f"w{i}", None, "encoder.0/attention", (6, 4))
        for i, name in enumerate(names)
    ]
    quantize_linears(model, linears, {"a": 2.0}, number_format)
    onnx.checker.check_model(model)
    a = rng.normal(0, 1.5, (5, 6)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString())
    quantized_a = number_format.round_trip(a, np.float32(2.0 / number_format.activation_max))
    for i, result in enumerate(session.run(None, {"a": a})):
        most = np.abs(weight * (i + 1)).max(axis=0)
        scales = np.where(most > 0, most / number_format.weight_max, 1).astype(np.float32)
        if shared:
            scales = np.float32(np.abs(2 * weight).max() / number_format.weight_max)
        if number_format is INT8:
            stored = np.clip(np.rint((weight * (i + 1)).astype(np.float64) / scales), -64, 64)
        else:
            stored = ((weight * (i + 1)).astype(np.float64) / scales).astype(ml_dtypes.float8_e4m3fn)
        np.testing.assert_allclose(result, quantized_a @ (stored.astype(np.float64) * scales), atol=1e-4)


@pytest.mark.parametrize("number_format", [INT8, FP8])
def test_a_quantized_result_is_rounded_in_steps_of_its_column(number_format):
    rng = np.random.default_rng(0)
    weight = (rng.normal(0, 1, (6, 4)) * np.array([1, 0.1, 5, 0])).astype(np.float32)
    linear = BackboneLinear("encoder.0/mlp/MatMul", "a", "w", "norm", "encoder.0/mlp", (6, 4))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["a", "w"], [linear.node], linear.node),
            helper.make_node("Add", [linear.node, "bias"], ["out"]),
        ],
        "g",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [5, 6])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [5, 4])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.ones(4, np.float32), "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    scales = ResultScales(2 * column_scales(weight, number_format), threshold=300.0)
    quantize_linears(model, [linear], {"a": 2.0}, number_format, {linear.node: scales})
    onnx.checker.check_model(model)
    a = rng.normal(0, 1.5, (5, 6)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString())
    if number_format is INT8:
        rounded = np.rint(weight.astype(np.float64) / scales.weight) * scales.weight
    else:
        rounded = (weight.astype(np.float64) / scales.weight).astype(ml_dtypes.float8_e4m3fn) * scales.weight
    exact = number_format.round_trip(a, np.float32(2.0 / number_format.activation_max)) @ rounded
    steps = scales.weight.astype(np.float64) * scales.threshold / number_format.activation_max
    expected = number_format.round_trip(exact, steps) + 1
    # A value halfway between two steps may be rounded either way.
    spacing = 1 if number_format is INT8 else 32
    assert np.all(np.abs(session.run(None, {"a": a})[0] - expected) <= spacing * steps + 1e-4)
    assert np.mean(np.abs(session.run(None, {"a": a})[0] - expected) < 1e-3) > 0.8


@given(st.integers(0, 1000), st.floats(1, 100))
def test_scales_of_a_result_clip_nothing_and_balance_both_errors(seed, outlier):
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 1, (16, 8)).astype(np.float32)
    a = rng.normal(0, 1, (64, 16)).astype(np.float32)
    result = a @ weight
    result[0, 3] *= outlier
    inputs, results = (ActivationStats(np.abs(v).max(axis=0), np.abs(v)) for v in (a, result))
    found = balance_result_scales(weight, inputs, results, INT8)
    assert np.all(np.abs(weight / found.weight).max(axis=0) <= 64 * (1 + 1e-6))
    assert np.all(results.channel_max / found.weight <= found.threshold * (1 + 1e-6))

    def error(scales):
        steps = scales.weight.astype(np.float64) * scales.threshold / 127
        weight_error = a @ (np.rint(weight / scales.weight) * scales.weight - weight)
        rounding_error = INT8.round_trip(result, steps) - result
        return np.mean(weight_error**2) + np.mean(rounding_error**2)

    plain = column_scales(weight, INT8)
    assert error(found) < 1.3 * error(ResultScales(plain, float((results.channel_max / plain).max())))


def test_where_8_bits_are_used_by_target(model):
    linears = backbone_linears(model)
    for number_format, target in (("int8", "cpu"), ("fp8", "cpu"), ("fp8", "gpu")):
        assert chosen_linears(linears, number_format, target) == linears
        assert quantized_results(linears, number_format, target) == []
    left_out = [x for x in linears if x not in chosen_linears(linears, "int8", "gpu")]
    assert [x.shape for x in left_out] == [(160, 160)] * 6
    assert {x.group for x in left_out} == {x.group for x in linears if x.group.endswith("attention")}
    results = quantized_results(linears, "int8", "gpu")
    assert [x.shape for x in results] == [(160, 320)] * 6


def test_measured_results_are_those_of_the_layers(tiny, model, samples):
    results = [linear for linear in backbone_linears(model) if linear.is_before_gelu][:1]
    stats = collect_activation_stats(model, tiny, samples[:1], [], seed=0, results=results)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.append(helper.make_tensor_value_info(results[0].node, TensorProto.FLOAT, None))
    session = ort.InferenceSession(watched.SerializeToString())
    (expected,) = session.run([results[0].node], graph_inputs(tiny, samples[0]))
    np.testing.assert_allclose(
        stats[results[0].node].channel_max, np.abs(expected).max(axis=0), rtol=1e-4, atol=1e-5
    )


def stats_of(values):
    return ActivationStats(
        np.array([np.abs(values).max()], np.float32), np.abs(values)[:, None].astype(np.float32)
    )


def test_ranges_by_method():
    rng = np.random.default_rng(0)
    even = stats_of(rng.uniform(-1, 1, 100_000))
    for method in RANGE_METHODS:
        assert clipping_threshold(even, method, INT8) > 0.85
    lonely = stats_of(np.concatenate([rng.normal(0, 1, 200_000), [1000.0]]))
    assert clipping_threshold(lonely, "max", INT8) == 1000
    assert 3 < clipping_threshold(lonely, "percentile", INT8) < 6
    assert clipping_threshold(lonely, "entropy", INT8) < 200
    assert clipping_threshold(lonely, "mse", INT8) <= 1000
    # The threshold of mse is no worse than not clipping.
    bell = stats_of(np.concatenate([rng.normal(0, 1, 65_000), [8.0]]))
    end, values = clipping_threshold(bell, "mse", INT8), bell.rows[:, 0]
    assert end < 8
    errors = [np.mean((INT8.round_trip(values, e / 127) - values) ** 2) for e in (end, 8.0)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("method", RANGE_METHODS)
def test_an_input_that_is_always_zero_gets_a_threshold(method):
    assert clipping_threshold(stats_of(np.zeros(100)), method, INT8) > 0


def test_an_unknown_method_is_refused():
    with pytest.raises(
        InputError, match="ranges: 'best'; expected one of auto, max, percentile, entropy, mse"
    ):
        QuantizeOptions(ranges="best")


def test_a_graph_without_linears_is_refused():
    with pytest.raises(
        InputError,
        match=r"graph: no linear layers with float32 weights; .* Export the bundle with precision='fp32'",
    ):
        backbone_linears(onnx.ModelProto())


def test_two_products_fit_into_16_bits():
    """x86 CPUs without VNNI add them in 16 bits."""
    assert 2 * 255 * INT8.weight_max <= 2**15 - 1
