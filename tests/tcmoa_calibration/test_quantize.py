"""A whole calibration: the trained model on photographs, error budgets, interruptions, and refused input."""

import json

import numpy as np
import onnx
import pytest

from calibration_pieces import SIDE, export_tiny, write_pairs
from engine_pieces import export_unchecked
from micro_model import scrambled
from tcmoa import Sizes
from tcmoa_calibration.quantize import (
    ErrorBudget,
    QuantizationError,
    calibrate,
    choose,
    draw_curve,
    quantize_bundle,
)
from tcmoa_calibration.quantize.evaluator import Evaluator
from tcmoa_calibration.quantize.result_cache import ResultCache
from tcmoa_calibration.quantize.scheme import Scheme
from tcmoa_calibration.sample_pairs import fused_to_rgb, graph_inputs, read_split
from tcmoa_runtime import Bundle, Fuser
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import read_frame, write_image
from tcmoa_runtime.log import log_step
from tcmoa_runtime.options.quantize import QuantizeOptions
from tcmoa_runtime.pairs import find_pairs
from tcmoa_runtime.typing import ignore_steps

FAST = {"smoothing": 0.5, "ranges": "max"}
NO_LIMIT = {"min_psnr": 0}


def quantize(bundle, pairs, out, *, on_message=log_step, on_progress=ignore_steps, **options):
    return quantize_bundle(
        bundle, pairs, out, QuantizeOptions(**options), on_message=on_message, on_progress=on_progress
    )


def export_small(out, **options):
    """Export a random model of 6 blocks, so of 12 groups: calibrations measure each group alone."""
    return export_unchecked(scrambled(Sizes(64, 4, 2, 64, 2, 2)), out, **{"size": (SIDE, SIDE), **options})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return export_tiny(tmp_path_factory.mktemp("whole") / "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("whole") / "pairs", 6)


@pytest.fixture(scope="module")
def pairs(folder):
    return find_pairs(folder)


@pytest.fixture(scope="module")
def done(tiny, pairs, tmp_path_factory):
    return quantize(tiny, pairs, tmp_path_factory.mktemp("whole") / "int8")


def psnr(a, b):
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


def test_the_image_is_preserved_and_the_bundle_is_small(tiny, done, pairs):
    assert done.error.psnr_db > 50
    assert abs(done.error.qabf_drop) < 0.005
    assert done.kept_float32 == []
    assert done.bytes_after < 0.4 * done.bytes_before  # 1.2 of 1.7 M weights are in the blocks
    assert (len(done.pairs.fit), len(done.pairs.held_out)) == (4, 2)
    # It is smoothing that preserves the image, not clipping.
    without = done.choice.tried[Scheme(0.0, "max")].psnr_db
    assert without < done.error.psnr_db - 5
    assert done.scheme.smoothing > 0
    # The PSNR is that of the frames of the Fuser.
    differences = []
    with (
        Fuser.load(tiny.path, "onnxruntime") as before,
        Fuser.load(done.bundle.path, "onnxruntime") as after,
    ):
        for sample in done.pairs.held_out:
            differences.append(
                np.mean((before(sample.x, sample.y).astype(float) - after(sample.x, sample.y)) ** 2)
            )
    assert 10 * np.log10(255**2 / np.mean(differences)) == pytest.approx(done.error.psnr_db, abs=0.3)


def test_the_manifest_records_the_calibration(done, tiny):
    bundle = Bundle.open(done.bundle.path)
    bundle.check()
    manifest, record = bundle.manifest, bundle.manifest["quantization"]
    assert bundle.precision == "int8"
    stored = [t for t in onnx.load(bundle.graph_path).graph.initializer if t.name.endswith("weight_q")]
    assert len(stored) == 36
    assert max(np.abs(onnx.numpy_helper.to_array(t).astype(int)).max() for t in stored) == 64
    assert manifest["graph"]["name"] == onnx.load(bundle.graph_path).graph.name
    assert manifest["graph"]["constants"]["int8"] > 1_200_000
    metadata = {entry.key: entry.value for entry in onnx.load(bundle.graph_path).metadata_props}
    assert metadata["tcmoa.precision"] == "int8"
    assert metadata["tcmoa.task"] == bundle.task
    assert record["against"]["sha256"] == tiny.files["fusion.onnx"].sha256
    assert record["psnr_db"] == manifest["parity"]["psnr_db"] == round(done.error.psnr_db, 2)
    assert record["held_pairs"] == [s.name for s in done.pairs.held_out]
    assert not set(record["held_pairs"]) & set(record["fit_pairs"])
    assert (record["linears"], record["groups"], record["kept_float32"]) == (36, 12, [])
    assert not list(done.bundle.path.parent.glob(".*"))  # the cache is removed when the bundle is written


def test_openvino_gives_the_same_image(done, pairs):
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'tcmoa[openvino]'")
    sample = read_split(pairs, (SIDE, SIDE), max_pairs=4, min_pairs=4, seed=0).held_out[0]
    inputs = graph_inputs(done.bundle, sample)
    frames = []
    for name in ("onnxruntime", "openvino"):
        backend = load_backend(done.bundle, name)
        frames.append(fused_to_rgb(done.bundle, backend.infer(inputs)["fused"]))
        backend.close()
    # A value halfway between two steps may be rounded either way.
    assert psnr(*frames) > 50


def test_the_same_input_gives_the_same_graph(micro, pairs, tmp_path):
    first, second = (quantize(micro, pairs, tmp_path / name, **NO_LIMIT) for name in "ab")
    assert first.bundle.files == second.bundle.files
    other = quantize(micro, pairs, tmp_path / "c", **NO_LIMIT, seed=1, **FAST)
    assert {s.name for s in other.pairs.held_out} != {s.name for s in first.pairs.held_out}


def test_fp8_is_simulated_and_preserves_the_image(tiny, pairs, tmp_path):
    result = quantize(tiny, pairs, tmp_path / "fp8", number_format="fp8", min_psnr=40, **FAST)
    assert result.bundle.precision == "fp8"
    assert 40 < result.error.psnr_db < 60
    assert result.bundle.manifest["graph"]["constants"]["fp8"] > 1_200_000
    sample = result.pairs.held_out[0]
    with Fuser.load(result.bundle.path, "onnxruntime") as fuser:
        assert psnr(fuser(sample.x, sample.y), Fuser.load(tiny.path)(sample.x, sample.y)) > 38


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    return export_small(tmp_path_factory.mktemp("whole") / "micro")


@pytest.fixture(scope="module")
def least(micro, pairs, tmp_path_factory):
    """PSNR with all groups in int8, in dB."""
    out = tmp_path_factory.mktemp("whole") / "all"
    return quantize(micro, pairs, out, **NO_LIMIT, **FAST).error.psnr_db


@pytest.fixture(scope="module")
def limited_and_count(micro, least, pairs, tmp_path_factory):
    """`limited`, and the number of graphs that were measured for it."""
    out = tmp_path_factory.mktemp("limited") / "int8"
    with pytest.MonkeyPatch.context() as patch:
        measured = count_measurements(patch)
        result = quantize(micro, pairs, out, min_psnr=least + 3, sensitivity=True, **FAST)
    return result, len(measured)


@pytest.fixture(scope="module")
def limited(limited_and_count):
    """A limit that only some groups in int8 keep to: the others stay in float32."""
    return limited_and_count[0]


def count_measurements(patch):
    """Return a list that grows with each graph that is measured from now on."""
    measured = []
    compare = Evaluator._compare
    patch.setattr(Evaluator, "_compare", lambda self, model: measured.append(1) or compare(self, model))
    return measured


def test_the_most_sensitive_groups_stay_in_float32_until_the_limit_holds(limited, least):
    groups = limited.num_groups
    assert 0 < len(limited.kept_float32) < groups
    assert limited.error.psnr_db >= least + 3
    by_error = sorted(
        limited.allocation.sensitivity, key=lambda g: -limited.allocation.sensitivity[g].mean_squared_error
    )
    assert limited.kept_float32 == by_error[: len(limited.kept_float32)]
    measured = {point.num_quantized: point for point in limited.curve}
    assert measured[groups - len(limited.kept_float32) + 1].error.psnr_db < least + 3
    graph = onnx.load(limited.bundle.graph_path).graph
    quantized = {n.name.split("/q")[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    scopes = {"/".join(name.split("/")[:2]) for name in quantized}
    assert scopes == set(limited.allocation.sensitivity) - set(limited.kept_float32)
    assert limited.bundle.manifest["quantization"]["kept_float32"] == limited.kept_float32


def test_the_trade_off_is_drawn(limited, least):
    steps, budget = limited.curve, ErrorBudget(min_psnr=least + 3)
    assert len(steps) >= 8
    assert [s.share for s in steps] == sorted((s.share for s in steps), reverse=True)
    assert steps[0].share == 1
    chosen = limited.num_groups - len(limited.kept_float32)
    image = draw_curve(steps, budget, chosen, "micro vif, int8")
    assert image.shape == (420, 680, 3)
    line = (image == (200, 90, 20)).all(axis=2)
    bound = (image == (40, 40, 200)).all(axis=2)
    assert line.sum() > 300
    assert np.argmax(bound.sum(axis=1)) in range(40, 360)
    assert bound.sum() > 400
    other = draw_curve(steps, budget, limited.num_groups, "micro vif, int8")
    assert (other != image).any()  # the ring is at another point


def test_a_drop_of_qabf_is_a_budget_too():
    lost = QuantizationError(1.0, 2.0, 0.004, 3, 0.5, 0.1)
    assert ErrorBudget(max_qabf_drop=0.005).allows(lost)
    assert not ErrorBudget(max_qabf_drop=0.003).allows(lost)
    assert not ErrorBudget(min_psnr=60, max_qabf_drop=0.005).allows(lost)
    assert ErrorBudget(40, 0.005).describe() == "at least 40 dB and a drop of Qabf of at most 0.005"


@pytest.mark.parametrize(
    ("error", "held", "ranges"), [(0.6, 2, "max"), (0.4, 2, "percentile"), (0.4, 3, "max")]
)
def test_clipping_must_halve_the_error_on_enough_pairs(
    micro, pairs, tmp_path, monkeypatch, error, held, ranges
):
    errors = {"max": 1.0, "percentile": error, "entropy": 5.0, "mse": 3.0}
    monkeypatch.setattr(choose, "MIN_PAIRS_TO_CLIP", held)

    def measure(self, scheme, groups):
        return QuantizationError(errors[scheme.ranges], errors[scheme.ranges], 0.0, 1, 0.1, 0.0)

    monkeypatch.setattr(Evaluator, "measure", measure)
    result = quantize(micro, pairs, tmp_path / "int8", **NO_LIMIT, smoothing=0.5)
    assert result.scheme.ranges == ranges
    assert result.bundle.manifest["quantization"]["ranges"] == ranges


def test_a_limit_that_cannot_hold_reports_the_least_error_and_writes_nothing(micro, pairs, least, tmp_path):
    with pytest.raises(InputError) as caught:
        quantize(micro, pairs, tmp_path / "int8", min_psnr=120, **FAST)
    text = str(caught.value)
    assert f"error budget: all groups in int8 give {least:.2f} dB" in text
    assert "the least sensitive group alone gives" in text
    assert "; expected at least 120 dB (" in text
    assert text.endswith(" and 9 more). Relax min_psnr. No bundle was written.")
    assert not (tmp_path / "int8").exists()


def test_an_interrupted_calibration_continues_where_it_stopped(
    micro, pairs, least, limited_and_count, tmp_path, monkeypatch
):
    whole, whole_count = limited_and_count
    ticks = []

    def stop(done, of):
        ticks.append((done, of))
        if done == 4 + 6:  # 4 pairs for the statistics, then graphs
            raise KeyboardInterrupt

    options = {"min_psnr": least + 3, "sensitivity": True, **FAST}
    with pytest.raises(KeyboardInterrupt):
        quantize(micro, pairs, tmp_path / "int8", on_progress=stop, **options)
    assert not (tmp_path / "int8").exists()
    assert all(done <= of for done, of in ticks)
    (cache,) = tmp_path.glob(".int8.calibration")
    known = len(json.loads(cache.read_bytes())["results"])
    assert known >= 5
    measured = count_measurements(monkeypatch)
    resumed = quantize(micro, pairs, tmp_path / "int8", **options)
    assert not cache.exists()
    assert whole_count == len(measured) + known
    assert resumed.bundle.files == whole.bundle.files


def test_results_of_another_key_and_damaged_ones_are_not_used(tmp_path):
    lost = QuantizationError(1.0, 2.0, 0.004, 3, 0.5, 0.1)
    ResultCache(tmp_path / "cache", "key").put("a", lost)
    assert ResultCache(tmp_path / "cache", "key").get("a") == lost
    assert ResultCache(tmp_path / "cache", "other").get("a") is None
    for text in (b"", b"[]", b'{"key": "key"}', b'{"key": "key", "results": {"a": 3}}', b"\xff"):
        (tmp_path / "cache").write_bytes(text)
        assert ResultCache(tmp_path / "cache", "key").get("a") is None


def test_unusable_pairs_are_skipped_and_named(micro, folder, tmp_path):
    mixed = tmp_path / "mixed"
    write_pairs(mixed, 5)
    (mixed / "broken_x.png").write_bytes(b"no picture")
    write_image(mixed / "broken_y.png", read_frame(folder / "00_y.png"))
    for side in "xy":
        write_image(mixed / f"flat_{side}.png", np.full((SIDE, SIDE, 3), 7, np.uint8))
    write_image(mixed / "odd_x.png", np.zeros((50, 60, 3), np.uint8))
    write_image(mixed / "odd_y.png", read_frame(folder / "00_y.png"))
    messages = []
    result = quantize(
        micro, find_pairs(mixed), tmp_path / "int8", **NO_LIMIT, on_message=messages.append, **FAST
    )
    assert len(result.pairs.fit) + len(result.pairs.held_out) == 5
    assert sorted(line.split(":")[0] for line in result.pairs.skipped) == ["broken", "flat", "odd"]
    assert any(
        "skipped flat: x shows a single color; expected an image with structure" in line for line in messages
    )
    assert any("skipped odd: x is 60x50, y is 112x112; expected equal sizes" in line for line in messages)


def test_too_few_pairs(tiny, pairs, tmp_path):
    with pytest.raises(InputError, match="pairs: 3 of 3 are usable; expected at least 4"):
        quantize(tiny, pairs[:3], tmp_path / "int8")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"number_format": "int4"}, "number_format: 'int4'; expected one of int8, fp8"),
        ({"smoothing": 1.0}, r"smoothing: 1; expected from 0 \(none\) to below 1"),
        ({"smoothing": -0.1}, "smoothing: -0.1"),
        ({"ranges": "best"}, "ranges: 'best'; expected one of auto, max, percentile, entropy, mse"),
    ],
)
def test_wrong_options(tiny, pairs, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        quantize(tiny, pairs, tmp_path / "int8", **options)
    assert not list(tmp_path.iterdir())


def test_bundles_that_are_not_float32(done, pairs, tmp_path):
    with pytest.raises(
        InputError,
        match=r"precision int8; expected a float32 bundle\. Calibrate the float32 bundle that it was",
    ):
        quantize(done.bundle, pairs, tmp_path / "int8")
    half = export_small(tmp_path / "half", precision="fp16")
    with pytest.raises(
        InputError, match=r"precision fp16; expected a float32 bundle\. Export it with precision='fp32'"
    ):
        quantize(half, pairs, tmp_path / "int8")


def test_a_bundle_larger_than_one_onnx_file_is_refused(micro, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(calibrate, "MAX_INLINE_BYTES", 1000)
    with pytest.raises(InputError, match="GB; expected at most 1e-06 GB, which one ONNX file can hold"):
        quantize(micro, pairs, tmp_path / "int8")


def test_an_existing_bundle_is_not_replaced(tiny, pairs, done, tmp_path):
    with pytest.raises(InputError, match=r"holds a bundle already; .* overwrite=True"):
        quantize(tiny, pairs, done.bundle.path)


@pytest.mark.parametrize(
    "options", [{"channel_order": "bgr"}, {"gray": ("y",)}, {"batch": 2, "with_prompt": True}]
)
def test_bundles_of_other_kinds(pairs, least, tmp_path, options):
    bundle = export_small(tmp_path / "other", **options)
    result = quantize(bundle, pairs[:4], tmp_path / "int8", **NO_LIMIT, **FAST)
    assert result.error.psnr_db > least - 6
    assert result.bundle.contract == bundle.contract
