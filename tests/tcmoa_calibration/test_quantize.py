"""A whole calibration: the trained model on photographs, budgets, interruptions and what is refused."""

import json

import numpy as np
import onnx
import pytest

from calibration_pieces import SIDE, export_micro, export_tiny, write_pairs
from tcmoa_calibration.quantize import Budget, calibrate, calibrate_low_precision, draw_curve
from tcmoa_calibration.quantize.judge import Damage, Memo
from tcmoa_calibration.samples import graph_inputs, read_samples, rgb_of
from tcmoa_runtime import Bundle, Fuser
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import read_frame, write_image
from tcmoa_runtime.pairs import find_pairs

FAST = {"smoothing": 0.5, "ranges": "max"}


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
    return calibrate_low_precision(tiny, pairs, tmp_path_factory.mktemp("whole") / "int8")


def psnr(a, b):
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


def test_the_picture_is_kept_and_the_bundle_is_small(tiny, done, pairs):
    assert done.damage.psnr_db > 50
    assert abs(done.damage.qabf_drop) < 0.005
    assert done.kept == []
    assert done.bytes_after < 0.3 * done.bytes_before
    assert (len(done.samples.fit), len(done.samples.held)) == (4, 2)
    # Smoothing is what does it, and clipping does not.
    without = done.tried["smoothing 0, ranges max"].psnr_db
    assert without < done.damage.psnr_db - 5
    assert done.smoothing > 0
    # The figures are those of frames that users get.
    differences = []
    with Fuser.load(tiny.path) as before, Fuser.load(done.bundle.path) as after:
        for sample in done.samples.held:
            differences.append(
                np.mean((before(sample.x, sample.y).astype(float) - after(sample.x, sample.y)) ** 2)
            )
    assert 10 * np.log10(255**2 / np.mean(differences)) == pytest.approx(done.damage.psnr_db, abs=0.3)


def test_the_manifest_says_what_was_done(done, tiny):
    bundle = Bundle.open(done.bundle.path)
    bundle.check()
    manifest, said = bundle.manifest, bundle.manifest["quantisation"]
    assert bundle.precision == "int8"
    stored = [t for t in onnx.load(bundle.graph_path).graph.initializer if t.name.endswith("weight_q")]
    assert len(stored) == 60
    assert max(np.abs(onnx.numpy_helper.to_array(t).astype(int)).max() for t in stored) == 64
    assert manifest["graph"]["name"] == onnx.load(bundle.graph_path).graph.name
    assert manifest["graph"]["constants"]["int8"] > 5_000_000
    assert said["against"]["sha256"] == tiny.files["fusion.onnx"]["sha256"]
    assert said["psnr_db"] == manifest["parity"]["psnr_db"] == round(done.damage.psnr_db, 2)
    assert said["held_pairs"] == [s.name for s in done.samples.held]
    assert not set(said["held_pairs"]) & set(said["fit_pairs"])
    assert (said["linears"], said["groups"], said["kept_float32"]) == (60, 20, [])
    assert not list(done.bundle.path.parent.glob(".*"))  # measurements are gone once the bundle stands


def test_openvino_gives_the_same_picture(done, pairs):
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'tcmoa[openvino]'")
    sample = read_samples(pairs, (SIDE, SIDE), most=4, least=4, seed=0).held[0]
    inputs = graph_inputs(done.bundle, sample)
    frames = []
    for name in ("onnxruntime", "openvino"):
        backend = load_backend(done.bundle, name)
        frames.append(rgb_of(done.bundle, backend.infer(inputs)["fused"]))
        backend.close()
    # A value on the edge between two steps may go either way.
    assert psnr(*frames) > 50


def test_the_same_again_is_the_same_graph(micro, pairs, tmp_path):
    once, again = (calibrate_low_precision(micro, pairs, tmp_path / name, budget=Budget()) for name in "ab")
    assert once.bundle.files == again.bundle.files
    other = calibrate_low_precision(micro, pairs, tmp_path / "c", budget=Budget(), seed=1)
    assert {s.name for s in other.samples.held} != {s.name for s in once.samples.held}


def test_fp8_is_simulated_and_keeps_the_picture(tiny, pairs, tmp_path):
    result = calibrate_low_precision(
        tiny, pairs, tmp_path / "fp8", number_format="fp8", budget=Budget(min_psnr=40), **FAST
    )
    assert result.bundle.precision == "fp8"
    assert 40 < result.damage.psnr_db < 60
    assert result.bundle.manifest["graph"]["constants"]["fp8"] > 5_000_000
    sample = result.samples.held[0]
    with Fuser.load(result.bundle.path, "onnxruntime") as fuser:
        assert psnr(fuser(sample.x, sample.y), Fuser.load(tiny.path)(sample.x, sample.y)) > 38


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    return export_micro(tmp_path_factory.mktemp("whole") / "micro")


@pytest.fixture(scope="module")
def least(micro, pairs, tmp_path_factory):
    """What is left with all groups in int8, in dB."""
    out = tmp_path_factory.mktemp("whole") / "all"
    return calibrate_low_precision(micro, pairs, out, budget=Budget(), **FAST).damage.psnr_db


@pytest.fixture(scope="module")
def rationed(micro, least, pairs, tmp_path_factory):
    """A budget between all groups and one: some stay in float32."""
    out, budget = tmp_path_factory.mktemp("ration") / "int8", Budget(min_psnr=least + 3)
    return calibrate_low_precision(micro, pairs, out, budget=budget, sensitivity=True, **FAST)


def test_what_suffers_most_stays_in_float32_until_the_budget_holds(rationed, least):
    groups = rationed.groups
    assert 0 < len(rationed.kept) < groups
    assert rationed.damage.psnr_db >= least + 3
    by_damage = sorted(rationed.sensitivity, key=lambda g: -rationed.sensitivity[g].mean_square)
    assert rationed.kept == by_damage[: len(rationed.kept)]
    measured = {step.quantised_groups: step for step in rationed.curve}
    assert measured[groups - len(rationed.kept) + 1].damage.psnr_db < least + 3
    graph = onnx.load(rationed.bundle.graph_path).graph
    quantised = {n.name.split("/q")[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    scopes = {"/".join(name.split("/")[:2]) for name in quantised}
    assert scopes == set(rationed.sensitivity) - set(rationed.kept)
    assert rationed.bundle.manifest["quantisation"]["kept_float32"] == rationed.kept


def test_the_trade_off_is_drawn(rationed, least):
    steps, budget = rationed.curve, Budget(min_psnr=least + 3)
    assert len(steps) >= 8
    assert [s.share for s in steps] == sorted((s.share for s in steps), reverse=True)
    assert steps[0].share == 1
    chosen = rationed.groups - len(rationed.kept)
    image = draw_curve(steps, budget, chosen, "micro vif, int8")
    assert image.shape == (420, 680, 3)
    line = (image == (200, 90, 20)).all(axis=2)
    bound = (image == (40, 40, 200)).all(axis=2)
    assert line.sum() > 300
    assert np.argmax(bound.sum(axis=1)) in range(40, 360)
    assert bound.sum() > 400
    other = draw_curve(steps, budget, rationed.groups, "micro vif, int8")
    assert (other != image).any()  # the mark went elsewhere


def test_a_drop_of_qabf_is_a_budget_too():
    lost = Damage(1.0, 2.0, 0.004, 3, 0.5, 0.1)
    assert Budget(max_qabf_drop=0.005).holds(lost)
    assert not Budget(max_qabf_drop=0.003).holds(lost)
    assert not Budget(min_psnr=60, max_qabf_drop=0.005).holds(lost)
    assert Budget(40, 0.005).line() == "at least 40 dB and Qabf at most 0.005 lower"


@pytest.mark.parametrize(
    ("error", "held", "ranges"), [(0.6, 2, "max"), (0.4, 2, "percentile"), (0.4, 3, "max")]
)
def test_what_clips_must_halve_the_error_on_enough_pairs(
    micro, pairs, tmp_path, monkeypatch, error, held, ranges
):
    errors = {"max": 1.0, "percentile": error, "entropy": 5.0, "mse": 3.0}
    monkeypatch.setattr(calibrate, "LEAST_TO_CLIP", held)
    monkeypatch.setattr(
        calibrate._Run, "measure", lambda *a: Damage(errors[a[2]], errors[a[2]], 0.0, 1, 0.1, 0.0)
    )
    result = calibrate_low_precision(micro, pairs, tmp_path / "int8", budget=Budget(), smoothing=0.5)
    assert result.ranges == ranges
    assert result.bundle.manifest["quantisation"]["ranges"] == ranges


def test_a_budget_that_cannot_be_held_says_the_best_and_writes_nothing(micro, pairs, least, tmp_path):
    with pytest.raises(InputError) as caught:
        calibrate_low_precision(micro, pairs, tmp_path / "int8", budget=Budget(min_psnr=120), **FAST)
    text = str(caught.value)
    assert f"the budget (at least 120 dB) cannot be held: all groups in int8 give {least:.2f} dB" in text
    assert "the least sensitive one alone" in text
    assert "nothing was written" in text
    assert not (tmp_path / "int8").exists()


def test_an_interrupted_run_goes_on_where_it_was(micro, pairs, least, tmp_path, monkeypatch):
    ticks = []

    def stop(done, of):
        ticks.append((done, of))
        if done == 4 + 6:  # pairs that were observed, and graphs that were measured
            raise KeyboardInterrupt

    options = {"budget": Budget(min_psnr=least + 3), **FAST}
    with pytest.raises(KeyboardInterrupt):
        calibrate_low_precision(micro, pairs, tmp_path / "int8", progress=stop, **options)
    assert not (tmp_path / "int8").exists()
    assert all(done <= of for done, of in ticks)
    (memo,) = tmp_path.glob(".int8.calibration")
    known = len(json.loads(memo.read_bytes())["measured"])
    assert known >= 5
    measured = []
    real = calibrate.Judge._measure
    monkeypatch.setattr(calibrate.Judge, "_measure", lambda self, m: measured.append(1) or real(self, m))
    resumed = calibrate_low_precision(micro, pairs, tmp_path / "int8", **options)
    assert not memo.exists()
    count = len(measured)
    measured.clear()
    whole = calibrate_low_precision(micro, pairs, tmp_path / "other", **options)
    assert len(measured) == count + known
    assert resumed.bundle.files == whole.bundle.files


def test_measurements_of_something_else_or_damaged_are_not_used(tmp_path):
    lost = Damage(1.0, 2.0, 0.004, 3, 0.5, 0.1)
    Memo(tmp_path / "memo", "key").put("a", lost)
    assert Memo(tmp_path / "memo", "key").get("a") == lost
    assert Memo(tmp_path / "memo", "other").get("a") is None
    for text in (b"", b"[]", b'{"key": "key"}', b'{"key": "key", "measured": {"a": 3}}', b"\xff"):
        (tmp_path / "memo").write_bytes(text)
        assert Memo(tmp_path / "memo", "key").get("a") is None


def test_pairs_that_cannot_be_used_are_left_out_and_named(micro, folder, tmp_path):
    mixed = tmp_path / "mixed"
    write_pairs(mixed, 5)
    (mixed / "broken_x.png").write_bytes(b"no picture")
    write_image(mixed / "broken_y.png", read_frame(folder / "00_y.png"))
    for side in "xy":
        write_image(mixed / f"flat_{side}.png", np.full((SIDE, SIDE, 3), 7, np.uint8))
    write_image(mixed / "odd_x.png", np.zeros((50, 60, 3), np.uint8))
    write_image(mixed / "odd_y.png", read_frame(folder / "00_y.png"))
    said = []
    result = calibrate_low_precision(
        micro, find_pairs(mixed), tmp_path / "int8", budget=Budget(), say=said.append, **FAST
    )
    assert len(result.samples.fit) + len(result.samples.held) == 5
    assert sorted(line.split(":")[0] for line in result.samples.skipped) == ["broken", "flat", "odd"]
    assert any("left out flat: x is one flat colour, which tells nothing" in line for line in said)
    assert any("left out odd: x is 60x50 and y 112x112, expected one size" in line for line in said)


def test_too_few_pairs(tiny, pairs, tmp_path):
    with pytest.raises(InputError, match="3 of 3 pairs can be used, at least 4 are needed"):
        calibrate_low_precision(tiny, pairs[:3], tmp_path / "int8")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"number_format": "int4"}, "format is 'int4': expected one of int8, fp8"),
        ({"smoothing": 1.0}, "smoothing is 1: expected a number from 0"),
        ({"smoothing": -0.1}, "smoothing is -0.1"),
        ({"ranges": "best"}, "ranges are 'best': expected auto or one of max, percentile, entropy, mse"),
    ],
)
def test_wrong_options(tiny, pairs, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        calibrate_low_precision(tiny, pairs, tmp_path / "int8", **options)
    assert not list(tmp_path.iterdir())


def test_bundles_that_are_not_float32(done, pairs, tmp_path):
    with pytest.raises(InputError, match="is int8 already; calibrate the float32 bundle that it came from"):
        calibrate_low_precision(done.bundle, pairs, tmp_path / "int8")
    half = export_micro(tmp_path / "half", precision="fp16")
    with pytest.raises(
        InputError, match="is fp16, expected a float32 bundle: export it with --precision fp32"
    ):
        calibrate_low_precision(half, pairs, tmp_path / "int8")


def test_a_bundle_beyond_what_one_graph_file_holds(micro, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(calibrate, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="GB, and graphs beyond 1e-06 GB cannot be quantised here"):
        calibrate_low_precision(micro, pairs, tmp_path / "int8")


def test_a_target_that_is_taken(tiny, pairs, done, tmp_path):
    with pytest.raises(InputError, match="holds a bundle already; add --overwrite"):
        calibrate_low_precision(tiny, pairs, done.bundle.path)


@pytest.mark.parametrize(
    "options", [{"channel_order": "bgr"}, {"gray": ("y",)}, {"batch": 2, "with_prompt": True}]
)
def test_bundles_of_other_kinds(pairs, least, tmp_path, options):
    bundle = export_micro(tmp_path / "other", **options)
    result = calibrate_low_precision(bundle, pairs[:4], tmp_path / "int8", budget=Budget(), **FAST)
    assert result.damage.psnr_db > least - 6
    assert result.bundle.contract == bundle.contract
