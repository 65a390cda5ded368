"""The search for alpha and beta: what it finds, what it refuses, and what it writes."""

import math
import os
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation_pieces import write
from micro_model import scrambled
from tcmoa import Sizes
from tcmoa_calibration import metrics
from tcmoa_calibration.metrics.planes import Triple
from tcmoa_calibration.prompt import calibrate_prompt, parse_objective, search_prompt
from tcmoa_calibration.prompt import search as search_module
from tcmoa_calibration.prompt.report import Prompt
from tcmoa_calibration.prompt.surface import BEST_COLOR, DEFAULT_COLOR, Surface, draw_surface
from tcmoa_calibration.sample_pairs import read_split
from tcmoa_export import export_bundle
from tcmoa_export.photographs import PHOTOGRAPHS, make_pair
from tcmoa_runtime import Bundle, Fuser
from tcmoa_runtime.alignment import Alignment
from tcmoa_runtime.bundle_write import derive_bundle
from tcmoa_runtime.cli import run
from tcmoa_runtime.contract import FUSED, PROMPT_SCALE, PROMPT_SHIFT, X
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import read_image
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.options.prompt_search import PromptSearchOptions
from tcmoa_runtime.pairs import find_pairs
from tcmoa_runtime.typing import ignore_steps

SIDE = 112


def export_micro(out, **options):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return export_bundle(
            scrambled(Sizes(64, 4, 2, 64, 4, 2)), ExportOptions(task="vif", size=(SIDE, SIDE), **options), out
        )
    finally:
        torch.set_num_threads(threads)


def search_with(bundle, pairs, *, on_progress=ignore_steps, **options):
    options = {"fit": "resize", **options}
    return search_prompt(bundle, pairs, PromptSearchOptions(**options), on_progress=on_progress)


def calibrate_with(bundle, pairs, out, *, surface=None, **options):
    options = {"fit": "resize", **options}
    return calibrate_prompt(bundle, pairs, out, PromptSearchOptions(**options), surface=surface)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Tests must not change it."""
    return export_micro(tmp_path_factory.mktemp("bundle") / "vif")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Six pairs made from photographs, larger than the bundle's frame."""
    folder = tmp_path_factory.mktemp("pairs")
    for task, name in product(("vif", "mff"), PHOTOGRAPHS):
        made = make_pair(task, name, (120, 140))
        write(folder / f"{task}_{name}_x.png", made.x)
        write(folder / f"{task}_{name}_y.png", made.y)
    return find_pairs(folder)


class Contrast:
    """A backend whose `fused` is x at a contrast that depends on the prompt, and that records its inputs."""

    name = "contrast"

    def __init__(self, contrast):
        self.contrast, self.inputs, self.closed = contrast, [], False

    def infer(self, inputs):
        fused = np.empty_like(inputs[X])
        for row, frame in enumerate(inputs[X]):
            scale, shift = inputs[PROMPT_SCALE][row], inputs[PROMPT_SHIFT][row]
            assert np.ptp(scale) == np.ptp(shift) == 0
            self.inputs.append((round(float(scale[0, 0]), 5), round(float(shift[0, 0]), 5), frame.tobytes()))
            gain = self.contrast(float(scale[0, 0]), float(shift[0, 0]), frame)
            mean = frame.mean()
            fused[row] = np.clip(np.round(mean + (frame - mean) * gain), 0, 255)
        return {FUSED: fused}

    def close(self):
        self.closed = True


def peak(scale, shift):
    """A contrast that is highest at that prompt, and steep enough to survive rounding to gray levels."""
    return lambda a, b, _: math.exp(-20 * ((a - scale) ** 2 + (b - shift) ** 2))


@pytest.fixture
def fake(monkeypatch):
    """Run a search on a simulated contrast."""

    def use(contrast):
        backend = Contrast(contrast)
        monkeypatch.setattr(search_module, "load_backend", lambda *_, **__: backend)
        return backend

    return use


@pytest.mark.parametrize(("scale", "shift"), [(1.2, 0.3), (0.55, -0.41), (1.0, 0.0)])
def test_a_known_optimum_is_found(scale, shift, fake, bundle, pairs):
    backend = fake(peak(scale, shift))
    found = search_with(bundle, pairs, objective="SD", rounds=4)
    assert found.best == pytest.approx((scale, shift), abs=0.02)
    assert found.is_better is ((scale, shift) != (1, 0))
    assert found.at_border == ()
    assert backend.closed


def test_an_objective_that_rises_with_beta_leads_to_the_end_of_the_range_and_reports_it(fake, bundle, pairs):
    fake(lambda _, b, __: 0.6 + b / 2)
    found = search_with(bundle, pairs, objective="SD", shift_range=(-0.25, 0.5))
    assert found.best == (1.0, 0.5)  # alpha changes nothing, so the bundle's default is kept
    assert found.at_border == ("shift_range",)
    assert found.is_better


def test_less_is_better_for_some_metrics(fake, bundle, pairs):
    fake(peak(0.75, 0.25))
    assert search_with(bundle, pairs, objective="SD-0.1*RMSE", rounds=0).best == (0.75, 0.25)
    fake(lambda a, b, frame: 1 - peak(0.75, 0.25)(a, b, frame) / 2)
    assert search_with(bundle, pairs, objective="-SD", rounds=0).best == (0.75, 0.25)


def test_nothing_is_fused_twice_and_progress_ends_at_its_total(fake, bundle, pairs):
    backend, seen = fake(peak(0.5, 0.5)), []
    found = search_with(bundle, pairs, objective="SD", on_progress=lambda *steps: seen.append(steps))
    assert len(set(backend.inputs)) == len(backend.inputs)
    assert len(backend.inputs) == len(found.means) * len(found.pairs.fit) + 2 * len(found.pairs.held_out)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]
    assert {total for _, total in seen} == {(25 + 16) * 4 + 2 * 2}


def test_search_and_validation_share_no_pair(fake, bundle, pairs):
    backend = fake(peak(1.25, 0.25))
    found = search_with(bundle, pairs, objective="SD", rounds=0)
    fit, held = ({sample.name for sample in s} for s in (found.pairs.fit, found.pairs.held_out))
    assert len(fit) == 4
    assert len(held) == 2
    assert not fit & held
    tried = {}
    for scale, shift, frame in backend.inputs:
        tried.setdefault(frame, []).append((scale, shift))
    assert sorted(map(len, tried.values())) == [2, 2, 25, 25, 25, 25]
    for sample in found.pairs.held_out:
        assert tried[sample.x.tobytes()] == [(1, 0), (1.25, 0.25)]


def with_default(bundle, tmp_path, scale, shift):
    return derive_bundle(bundle, tmp_path / "own", {"prompt_default": {"scale": scale, "shift": shift}})


def test_the_bundles_default_is_a_candidate_also_outside_of_the_ranges(fake, bundle, pairs, tmp_path):
    own = with_default(bundle, tmp_path, 2.125, -0.7)
    fake(peak(2.125, -0.7))
    found = search_with(own, pairs, objective="SD")
    assert found.best == found.default == next(iter(found.means)) == (2.125, -0.7)
    assert not found.is_better
    assert found.gain.mean == 0
    inside = list(found.means)[1:]
    assert all(0.5 <= a <= 1.5 and -0.5 <= b <= 0.5 for a, b in inside)
    words = "the default prompt, alpha 2.125, beta -0.7, is the best of"
    with pytest.raises(InputError, match=words):
        calibrate_with(own, pairs, tmp_path / "new", objective="SD")
    assert not (tmp_path / "new").exists()


def test_among_equal_prompts_the_default_is_kept(fake, bundle, pairs):
    fake(lambda *_: 0.5)
    assert search_with(bundle, pairs, objective="SD").best == (1, 0)


def test_a_prompt_that_fails_on_held_out_pairs_is_refused(fake, bundle, pairs, tmp_path):
    held = {
        s.x.tobytes() for s in read_split(pairs, (SIDE, SIDE), max_pairs=24, min_pairs=4, seed=0).held_out
    }

    def contrast(a, b, frame):
        rises = peak(1.5, 0.5)(a, b, frame)
        return 1 - rises / 2 if frame.tobytes() in held else rises

    fake(contrast)
    picture = tmp_path / "surface.png"
    with pytest.raises(InputError) as error:
        calibrate_with(bundle, pairs, tmp_path / "new", objective="SD", surface=picture)
    line = str(error.value)
    for words in (
        "the default prompt, alpha 1, beta 0, is not improved by the best of",
        "alpha 1.5, beta 0.5",
        "on 4 pairs of the search",
        "on 2 held-out pairs",
        "No bundle was written",
        f"{picture} shows the search",
    ):
        assert words in line
    found = search_with(bundle, pairs, objective="SD")
    assert f"differs by {found.gain.mean:+.3g} ± {found.gain.half_width:.2g}" in line
    assert found.gain.mean < 0
    assert found.means[found.best] > found.means[found.default]
    assert sorted(tmp_path.iterdir()) == [picture]


def test_the_gain_is_paired(fake, bundle, pairs):
    fake(peak(1.25, 0.25))
    found = search_with(bundle, pairs, objective="SD", rounds=0)
    differences = np.subtract(found.held_out_best, found.held_out_default)
    assert found.gain.mean == pytest.approx(differences.mean())
    assert found.gain.half_width == pytest.approx(12.706 * differences.std(ddof=1) / 2**0.5, rel=1e-4)
    record = found.to_json()["held_out"]
    assert record["after"] - record["before"] == pytest.approx(record["difference"])


def test_the_same_seed_gives_the_same_and_another_one_other_pairs(bundle, pairs):
    def search(seed):
        found = search_with(bundle, pairs, grid=3, rounds=1, seed=seed, threads=1)
        return found.to_json() | {"means": found.means}

    first = search(3)
    assert search(3) == first
    assert search(4)["fit"]["pairs"] != first["fit"]["pairs"]


def by_fuser(bundle, sample, prompt, objective):
    with Fuser.load(bundle.path, "onnxruntime", threads=1) as fuser:
        x, y = (s[..., ::-1] if bundle.channel_order == "bgr" else s for s in (sample.x, sample.y))
        fused = fuser(x, y, scale=prompt[0], shift=prompt[1])
    fused = fused[..., ::-1] if bundle.channel_order == "bgr" else fused
    values = metrics.evaluate(sample.x, sample.y, fused, names=objective)
    return sum(weight * values[name] for name, weight in objective.items())


@pytest.mark.parametrize(
    "options",
    [{}, {"channel_order": "bgr", "gray": ("y",)}, {"batch": 2}],
    ids=["plain", "bgr and gray", "batch"],
)
def test_means_are_those_of_the_fuser_and_the_metrics(options, bundle, pairs, tmp_path):
    own = export_micro(tmp_path / "own", **options) if options else bundle
    search = search_with(own, pairs[:4], objective="Qabf+0.5*SSIM", grid=2, rounds=0, threads=1)
    weights = {"Qabf": 1, "SSIM": 0.5}
    fit, held = search.pairs.fit, search.pairs.held_out
    for prompt, mean in search.means.items():
        expected = np.mean([by_fuser(own, sample, prompt, weights) for sample in fit])
        assert mean == pytest.approx(expected, abs=1e-9)
    assert search.best == max(search.means, key=search.means.get)
    assert search.held_out_best == pytest.approx([by_fuser(own, s, search.best, weights) for s in held])
    assert search.held_out_default == pytest.approx([by_fuser(own, s, search.default, weights) for s in held])


@pytest.mark.parametrize("source", ["x", "y"])
def test_a_bundle_that_aligns_its_sources_is_searched_and_measured_on_aligned_ones(
    source, bundle, pairs, tmp_path
):
    rows = ((1.0, 0.0, 6.0), (0.0, 1.0, -4.0), (0.0, 0.0, 1.0))
    alignment = Alignment(source, rows, "translation", 0.1, 0.2, 0.3, 4, 0)
    own = derive_bundle(bundle, tmp_path / "own", {"alignment": alignment.to_json()})
    search = search_with(own, pairs[:4], grid=2, rounds=0, threads=1)
    raw = {
        sample.name: sample
        for sample in read_split(pairs[:4], (SIDE, SIDE), max_pairs=4, min_pairs=4, seed=0).fit
    }
    with Fuser.load(own.path, "onnxruntime", threads=1) as fuser:
        for prompt, mean in search.means.items():
            values = [
                metrics.qabf(
                    fuser.aligned(sample.x, "x"),
                    fuser.aligned(sample.y, "y"),
                    fuser(sample.x, sample.y, scale=prompt.scale, shift=prompt.shift),
                )
                for sample in raw.values()
            ]
            assert mean == pytest.approx(np.mean(values))


def test_the_new_bundle_fuses_with_the_best_prompt(fake, bundle, pairs, tmp_path, capsys):
    fake(peak(1.5, 0.25))
    result = calibrate_with(bundle, pairs, tmp_path / "new", objective=" SD + .5 * AG ", seed=7)
    assert result.search.best == (1.5, 0.25)
    opened = Bundle.open(tmp_path / "new")
    opened.check()
    assert opened.manifest == result.bundle.manifest
    assert opened.default_prompt == (1.5, 0.25)
    record = opened.manifest["prompt_calibration"]
    assert record == result.search.to_json()
    assert (record["version"], record["objective"], record["seed"]) == (1, "SD+.5*AG", 7)
    assert record["before"] == {"scale": 1.0, "shift": 0.0}
    assert set(record["fit"]["pairs"]) | set(record["held_out"]["pairs"]) == {pair.name for pair in pairs}
    assert record["held_out"]["difference"] > 0
    changed = {k for k in opened.manifest if opened.manifest[k] != bundle.manifest.get(k)}
    assert changed == {"prompt_default", "prompt_calibration", "manifest_sha256"}
    x, y = read_image(pairs[0].x)[:SIDE, :SIDE], read_image(pairs[0].y)[:SIDE, :SIDE]
    with Fuser.load(opened.path) as new, Fuser.load(bundle.path) as old:
        assert np.array_equal(new(x, y), old(x, y, scale=1.5, shift=0.25))
        assert not np.array_equal(new(x, y), old(x, y))
    assert run(["inspect", str(opened.path)]) == 0
    assert "alpha 1.5, beta 0.25" in capsys.readouterr().out
    # A second search starts from the first one's prompt and replaces its record.
    fake(peak(0.5, 0.0))
    second = calibrate_with(opened, pairs, tmp_path / "new", objective="SD", overwrite=True)
    assert Bundle.open(tmp_path / "new").default_prompt == (0.5, 0)
    assert second.bundle.manifest["prompt_calibration"]["before"] == {"scale": 1.5, "shift": 0.25}


def test_with_a_range_of_one_value_only_the_other_is_searched(fake, bundle, pairs):
    backend = fake(peak(0.5, 0.3))
    found = search_with(bundle, pairs, objective="SD", scale_range=(1, 1), rounds=3)
    assert {scale for scale, _, _ in backend.inputs} == {1.0}
    assert found.best.shift == pytest.approx(0.3, abs=0.25 / 2**3)
    assert found.at_border == ()


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Qabf", {"Qabf": 1}),
        ("Qabf+0.5*SSIM", {"Qabf": 1, "SSIM": 0.5}),
        (" - 2*EN + MEF-SSIM - MS-SSIM ", {"EN": -2, "MEF-SSIM": 1, "MS-SSIM": -1}),
        ("Qcv", {"Qcv": -1}),
        ("Qabf+1e-3*Qcv", {"Qabf": 1, "Qcv": -0.001}),
        ("Qabf-.001*Qcv", {"Qabf": 1, "Qcv": -0.001}),
        ("VIFF+VIF", {"VIFF": 1, "VIF": 1}),
        ("SD-SSIM", {"SD": 1, "SSIM": -1}),
    ],
)
def test_objectives(text, terms):
    parsed = parse_objective(text)
    assert {name: weight for weight, name in parsed.terms} == terms
    assert parse_objective(parsed.text) == parsed


def test_an_objective_is_the_weighted_sum_of_its_metrics(pairs):
    x, y = (read_image(path) for path in (pairs[0].x, pairs[0].y))
    values = metrics.evaluate(x, y, x, names=["Qabf", "Qcv", "EN"])
    expected = 2 * values["Qabf"] - values["Qcv"] - 0.5 * values["EN"]
    assert parse_objective("2*Qabf+Qcv-0.5*EN").compute(Triple(x, y, x)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["expected a metric, or a sum"]),
        ("  ", ["expected a metric, or a sum"]),
        ("Qxyz", ["unknown metric 'Qxyz'", "expected some of SD"]),
        ("qabf", ["unknown metric 'qabf'", "did you mean Qabf?"]),
        ("Qabf+0.5*Qxyz", ["unknown metric 'Qxyz'"]),
        ("Qabf SSIM", ["a sum such as", "'Qabf SSIM' on"]),
        ("Qabf+", ["a sum such as", "'+'"]),
        ("Qabf++SSIM", ["a sum such as", "'++SSIM'"]),
        ("Qabf*0.5", ["a sum such as"]),
        ("0.5", ["a sum such as"]),
        ("0.5 SSIM", ["a sum such as"]),
        ("2**SSIM", ["a sum such as"]),
        ("nan*SSIM", ["unknown metric"]),
        ("(Qabf)", ["a sum such as"]),
        ("Qabf,SSIM", ["a sum such as"]),
        ("0*SSIM", ["weight 0 for SSIM", "above 0"]),
        ("1e7*SSIM", ["weight 1e7 for SSIM"]),
        ("1e999*SSIM", ["weight 1e999 for SSIM"]),
        ("Qabf-2*Qabf", ["names Qabf twice"]),
    ],
)
def test_malformed_objectives(text, words):
    with pytest.raises(InputError) as error:
        parse_objective(text)
    for word in (repr(text), *words):
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "Qxyz"}, ["Qxyz"]),
        ({"scale_range": (1.5, 0.5)}, ["scale_range: 1.5:0.5 is reversed", "lower end first"]),
        ({"shift_range": (-0.5, 16.5)}, ["shift_range: -0.5:16.5", "-16:16"]),
        ({"shift_range": (-17, 0)}, ["shift_range: -17:0"]),
        ({"scale_range": (math.nan, 1)}, ["scale_range: nan:1"]),
        ({"scale_range": (1, math.inf)}, ["scale_range: 1:inf"]),
        ({"scale_range": (1, 1), "shift_range": (0, 0)}, ["only", "alpha 1, beta 0", "Widen"]),
        ({"grid": 1}, ["grid: 1; expected 2 to 33"]),
        ({"grid": 34}, ["grid: 34"]),
        ({"rounds": -1}, ["rounds: -1; expected 0 to 8"]),
        ({"max_pairs": 3}, ["max_pairs: 3; expected 4 or more"]),
        ({"seed": -1}, ["seed: -1; expected 0 or more"]),
        ({"backend": "magic"}, ["magic"]),
        ({"surface": "surface.txt"}, ["surface.txt", ".png"]),
        ({"surface": "nowhere/surface.png"}, ["nowhere does not exist"]),
    ],
)
def test_wrong_options_are_refused_before_anything_is_fused_or_written(
    options, words, bundle, pairs, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        calibrate_with(bundle, pairs, "new", **options)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_is_refused_before_the_search(fake, bundle, pairs, tmp_path, monkeypatch):
    backend = fake(peak(1.5, 0.5))
    shutil.copytree(bundle.path, tmp_path / "taken")
    (tmp_path / "file").write_text("")
    for name, words in (("taken", "overwrite=True"), ("file", "a file")):
        with pytest.raises(InputError, match=words):
            calibrate_with(bundle, pairs, tmp_path / name, objective="SD")
    with pytest.raises(InputError, match=r"file is a file; expected a folder"):
        calibrate_with(bundle, pairs, tmp_path / "file" / "new", objective="SD")
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)  # root may write everywhere
    for options in ({}, {"surface": tmp_path / "surface.png"}):
        with pytest.raises(InputError, match=r"read-only\. Choose another folder"):
            calibrate_with(bundle, pairs, tmp_path / "deep" / "new", objective="SD", **options)
    assert backend.inputs == []


def test_frames_too_small_for_a_metric_are_refused_early(pairs, tmp_path):
    small = Bundle.open(export_small(tmp_path / "small"))
    with pytest.raises(
        InputError,
        match=r"MEF-SSIM cannot be computed for 64x40; .* at least 44 pixels a side\. Choose another",
    ):
        search_with(small, pairs, objective="Qabf+MEF-SSIM")


def export_small(out: Path) -> Path:
    export_bundle(scrambled(Sizes(64, 4, 2, 64, 4, 2)), ExportOptions(task="vif", size=(40, 64)), out)
    return out


def test_too_few_and_unreadable_pairs(bundle, pairs, tmp_path):
    with pytest.raises(InputError, match=r"^pairs: 3 of 3 are usable; expected at least 4"):
        search_with(bundle, pairs[:3])
    for pair in pairs:
        shutil.copy(pair.x, tmp_path)
        shutil.copy(pair.y, tmp_path)
    for broken in find_pairs(tmp_path)[:2]:
        broken.x.write_bytes(b"no image")
    found = search_with(bundle, find_pairs(tmp_path), grid=2, rounds=0, threads=1)
    assert len(found.pairs.fit) + len(found.pairs.held_out) == 4
    assert len(found.pairs.skipped) == 2
    assert all("not a readable image" in line for line in found.pairs.skipped)
    find_pairs(tmp_path)[2].y.write_bytes(b"")
    with pytest.raises(InputError, match="3 of 6 are usable") as error:
        search_with(bundle, find_pairs(tmp_path))
    assert "Skipped: " in str(error.value)


def marked(image, color):
    """Middle (column, row) of what has exactly this color."""
    rows, columns = np.nonzero((image == color).all(axis=2))
    return (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2


def made_surface(best, default=(1.0, 0.0), alphas=(0.5, 1.0, 1.5), betas=(-0.5, 0.0, 0.5)):
    means = {(a, b): a + b for a in alphas for b in betas} | {default: 0.0, best: 3.0}
    return Surface(means, alphas, betas, best, default, "Qabf", "note")


@pytest.mark.parametrize("best", [(1.25, 0.375), (0.5, -0.5), (1.0, 0.0)])
def test_the_marks_lie_where_the_points_are(best):
    image = draw_surface(made_surface(best))
    assert image.shape == (700, 920, 3)
    # The plot: 640x500 pixels from (110, 96) on, beta upwards.
    for color, (alpha, beta) in ((BEST_COLOR, best), (DEFAULT_COLOR, (1.0, 0.0))):
        expected = 110 + (alpha - 0.5) * 639, 96 + (0.5 - beta) * 499
        if color == DEFAULT_COLOR or best != (1.0, 0.0):
            assert marked(image, color) == pytest.approx(expected, abs=2)


def test_high_is_bright_and_lies_at_the_right_place():
    luma = draw_surface(made_surface((1.25, 0.375))).astype(int).sum(axis=2)
    top_right, bottom_left = luma[200:240, 650:690].mean(), luma[520:560, 150:190].mean()
    top_left, bottom_right = luma[200:240, 150:190].mean(), luma[520:560, 650:690].mean()
    assert bottom_left < top_left
    assert bottom_left < bottom_right
    assert top_right > top_left


@pytest.mark.parametrize(
    "surface",
    [
        made_surface((1.25, 0.25), default=(2.5, -3.0)),
        made_surface((1.0, 0.25), alphas=(1.0,)),
        made_surface((1.25, 0.0), betas=(0.0,)),
        Surface({(1.0, 0.0): 0.5, (1.0, 0.5): 0.5}, [1.0], [0.0, 0.5], (1.0, 0.0), (1.0, 0.0), "flat", ""),
    ],
    ids=["default outside", "one alpha", "one beta", "flat"],
)
def test_odd_surfaces_are_drawn_whole(surface):
    image = draw_surface(surface)
    columns, rows = (
        marked(image, DEFAULT_COLOR) if surface.best != surface.default else marked(image, BEST_COLOR)
    )
    assert 100 <= columns <= 760
    assert 86 <= rows <= 606


def test_the_picture_of_a_search_is_a_readable_png(fake, bundle, pairs, tmp_path):
    fake(peak(1.25, 0.25))
    calibrate_with(bundle, pairs, tmp_path / "new", objective="SD", surface=tmp_path / "surface.png")
    assert (tmp_path / "surface.png").read_bytes().startswith(b"\x89PNG")
    image = read_image(tmp_path / "surface.png")
    assert marked(image, BEST_COLOR) == pytest.approx((110 + 0.75 * 639, 96 + 0.25 * 499), abs=2)


@pytest.mark.slow
def test_real_pairs_of_another_task_gain(val_pairs, tmp_path):
    """The tiny model's router for infrared, on pairs of two focal planes."""
    from tcmoa import load_weights

    tiny = export_bundle(
        load_weights("tiny"), ExportOptions(task="vif", size=(SIDE, SIDE)), tmp_path / "tiny"
    )
    found = search_with(tiny, find_pairs(val_pairs / "mff"), max_pairs=9, grid=3, rounds=1)
    assert found.means[found.best] >= found.means[Prompt(1.0, 0.0)]
    assert found.is_better == (
        found.best != (1, 0) and np.mean(found.held_out_best) > np.mean(found.held_out_default)
    )
