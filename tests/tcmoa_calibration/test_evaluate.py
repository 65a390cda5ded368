"""Figures are those of the metrics themselves; and what is odd about pairs ends in a value or in a reason."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from evaluation_pieces import scene, write, write_fused, write_pairs
from tcmoa_calibration import metrics
from tcmoa_calibration.baselines import BASELINES
from tcmoa_calibration.evaluate import (
    Contestant,
    Evaluation,
    evaluate_pairs,
    parse_baselines,
    split_label,
    workers,
)
from tcmoa_calibration.evaluate.measure import Plan, Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import read_image, stretch_to_uint8
from tcmoa_runtime.pairs import find_pairs

FEW = ("Qabf", "SSIM", "MI")
AVERAGE = Contestant.baseline("average")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs", "abc")


@pytest.fixture
def fused(tmp_path: Path) -> Path:
    return write_fused(tmp_path / "fused", "abc")


def run(pairs: Path, *contestants: Contestant, jobs: int = 1, **options: Any) -> Evaluation:
    options.setdefault("metrics", FEW)
    return evaluate_pairs(pairs, contestants=contestants or [AVERAGE], jobs=jobs, **options)


@pytest.mark.parametrize("profile", ["correct", "as-published"])
def test_figures_are_those_of_the_metrics(pairs: Path, fused: Path, profile: metrics.Profile) -> None:
    mine, average, mertens = (Contestant.folder(fused), *parse_baselines("average,mertens"))
    evaluation = run(pairs, mine, average, mertens, profile=profile, metrics=None)
    for number, name in enumerate("abc"):
        x, y = scene(number)
        images = (
            read_image(fused / f"{name}.png"),
            *(BASELINES[b].fuse(x, y) for b in ("average", "mertens")),
        )
        for entry, image in zip(evaluation.contestants, images, strict=True):
            assert entry.images[name] == metrics.evaluate(x, y, image, profile)
    told = evaluation.to_json()
    assert (told["profile"], told["pairs"]) == (profile, ["a", "b", "c"])
    for label, entry in told["contestants"].items():
        for metric, mean in entry["mean"].items():
            values = [entry["images"][name][metric] for name in "abc"]
            assert mean == pytest.approx(np.mean(values), rel=1e-12), (label, metric)
    assert (told["images"], told["mean"]) == tuple(
        told["contestants"]["fused"][key] for key in ("images", "mean")
    )


def test_differences_are_paired_with_the_first(pairs: Path, fused: Path) -> None:
    told = run(pairs, Contestant.folder(fused), AVERAGE).to_json()["contestants"]
    assert told["fused"]["versus_first"] is None
    apart = [told["average"]["images"][n]["Qabf"] - told["fused"]["images"][n]["Qabf"] for n in "abc"]
    against = told["average"]["versus_first"]["Qabf"]
    assert against["mean"] == pytest.approx(np.mean(apart))
    assert against["confidence"] == pytest.approx(4.303 * np.std(apart, ddof=1) / np.sqrt(3), rel=1e-3)
    assert against["n"] == 3
    assert against["real"] == (abs(against["mean"]) > against["confidence"])


def test_two_processes_find_what_one_does(pairs: Path, fused: Path) -> None:
    contestants = (Contestant.folder(fused), AVERAGE)
    seen: list[tuple[int, int]] = []
    alone = run(pairs, *contestants)
    together = run(pairs, *contestants, jobs=2, progress=lambda done, of: seen.append((done, of)))
    assert together.to_json() == alone.to_json()
    assert seen == [(0, 6), (2, 6), (4, 6), (6, 6)]


def test_the_best_mean_is_the_lowest_where_lower_is_better(pairs: Path, fused: Path) -> None:
    evaluation = run(pairs, Contestant.folder(fused), AVERAGE, metrics=["MSE", "PSNR"])
    assert evaluation.best("MSE") == evaluation.best("PSNR")
    assert sorted(evaluation.best("MSE")) == [False, True]
    assert run(pairs, AVERAGE).best("SSIM") == [False]


def test_names_with_fused_at_their_end_are_found(pairs: Path, tmp_path: Path) -> None:
    plain = run(pairs, Contestant.folder(write_fused(tmp_path / "plain", "abc"), "f"))
    ended = run(pairs, Contestant.folder(write_fused(tmp_path / "ended", "abc", "_fused"), "f"))
    beside = run(write_fused(pairs, "abc", "_fused"), Contestant.folder(pairs, "f"))
    assert plain.contestants[0].images == ended.contestants[0].images == beside.contestants[0].images


def test_a_table_has_one_row_per_figure(pairs: Path, fused: Path) -> None:
    (fused / "b.png").unlink()
    evaluation = run(pairs, Contestant.folder(fused), AVERAGE)
    rows = list(csv.DictReader(io.StringIO(evaluation.to_csv())))
    assert list(rows[0]) == ["contestant", "image", "metric", "value", "reason"]
    assert len(rows) == 5 * len(FEW)
    for row in rows:
        entry = next(e for e in evaluation.contestants if e.label == row["contestant"])
        assert float(row["value"]) == entry.images[row["image"]][row["metric"]]


def failure(evaluation: Evaluation) -> tuple[str, str | None, str]:
    (found,) = evaluation.failures
    assert not found.fault
    assert "\n" not in found.error
    return found.name, found.contestant, found.error


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_unreadable_source_is_told_and_the_rest_measured(pairs: Path, fused: Path, jobs: int) -> None:
    (pairs / "b_y.png").write_bytes((pairs / "b_y.png").read_bytes()[:200])
    evaluation = run(pairs, Contestant.folder(fused), AVERAGE, jobs=jobs)
    name, contestant, error = failure(evaluation)
    assert (name, contestant) == ("b", None)
    assert "b_y.png: not a readable image" in error
    assert all(list(entry.images) == ["a", "c"] for entry in evaluation.contestants)


def test_sources_of_two_sizes_do_not_fit(pairs: Path) -> None:
    write(pairs / "b_y.png", scene(1, (64, 70))[1])
    _, contestant, error = failure(run(pairs))
    assert contestant is None
    assert "80x64" in error
    assert "70x64" in error


def test_a_fused_image_of_another_size_is_told(pairs: Path, fused: Path) -> None:
    write(fused / "c.png", scene(1, (32, 40))[0])
    name, contestant, error = failure(run(pairs, Contestant.folder(fused, "mine"), AVERAGE))
    assert (name, contestant) == ("c", "mine")
    assert "is 40x32 and its sources 80x64" in error


def test_a_missing_fused_image_is_told(pairs: Path, fused: Path) -> None:
    (fused / "a.png").unlink()
    evaluation = run(pairs, Contestant.folder(fused), AVERAGE)
    assert failure(evaluation)[:2] == ("a", "fused")
    assert "expected a.EXT or a_fused.EXT" in failure(evaluation)[2]
    assert evaluation.uneven
    assert evaluation.to_json()["contestants"]["average"]["versus_first"]["MI"]["n"] == 2


def test_two_fused_images_of_one_pair_are_told(pairs: Path, fused: Path) -> None:
    write(fused / "a_fused.png", scene(0)[0])
    assert "a.png and a_fused.png" in failure(run(pairs, Contestant.folder(fused)))[2]


def test_float_images_are_refused_in_one_line(pairs: Path, fused: Path) -> None:
    image = np.full((64, 80), 0.5, np.float32)
    image[3, 4] = np.nan
    (fused / "a.png").unlink()
    write(fused / "a.tiff", image)
    assert (
        "a.tiff: holds float32 numbers, expected 8 or 16 bits"
        in failure(run(pairs, Contestant.folder(fused)))[2]
    )


def test_a_metric_that_needs_larger_images_is_left_out_with_its_reason(pairs: Path) -> None:
    for which, image in zip("xy", scene(1, (30, 80)), strict=True):
        write(pairs / f"b_{which}.png", image)
    evaluation = run(pairs, metrics=["VIF", "SSIM"])
    (average,) = evaluation.contestants
    assert average.images["b"]["VIF"] is None
    assert average.images["b"]["SSIM"] is not None
    assert average.skipped == {"b": {"VIF": "needs 41 pixels a side, the image has 30"}}
    assert (average.mean("VIF").n, average.mean("SSIM").n) == (2, 3)
    text = json.dumps(evaluation.to_json(), allow_nan=False)
    assert json.loads(text)["contestants"]["average"]["images"]["b"]["VIF"] is None
    assert "average,b,VIF,,needs 41 pixels" in evaluation.to_csv().replace('"', "")


@pytest.mark.parametrize("kind", ["constant", "identical", "grey fused", "alpha"])
def test_odd_images_have_finite_figures(kind: str, pairs: Path, fused: Path) -> None:
    x, _ = scene(1)
    flat = np.full((64, 80, 3), 77, np.uint8)
    if kind == "constant":
        for path in (pairs / "b_x.png", pairs / "b_y.png", fused / "b.png"):
            write(path, flat)
    elif kind == "identical":
        for path in (pairs / "b_x.png", pairs / "b_y.png", fused / "b.png"):
            write(path, x)
    elif kind == "grey fused":
        write(fused / "b.png", x[..., 0])
    else:
        encoded = cv2.imencode(".png", np.dstack([x[..., ::-1], flat[..., 0]]))[1]
        (fused / "b.png").write_bytes(encoded.tobytes())
    evaluation = run(pairs, Contestant.folder(fused), AVERAGE, metrics=None)
    assert not evaluation.failures
    for entry in evaluation.contestants:
        assert all(value is not None and np.isfinite(value) for value in entry.images["b"].values())


def test_16_bit_sources_are_stretched_as_the_fuser_does_and_16_bit_results_are_not(
    pairs: Path, fused: Path
) -> None:
    x, y = scene(1)
    deep = y.astype(np.uint16) * 31 + 500
    result = read_image(fused / "b.png")
    write(pairs / "b_y.png", deep)
    write(fused / "b.png", result.astype(np.uint16) * 257)
    evaluation = run(pairs, Contestant.folder(fused))
    assert evaluation.stretched == ["b"]
    assert evaluation.to_json()["stretched"] == ["b"]
    expected = metrics.evaluate(x, stretch_to_uint8(deep), result, names=FEW)
    assert evaluation.contestants[0].images["b"] == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metrics": ["Qabf", "Qxyz"]}, "'Qxyz' is not known"),
        ({"metrics": []}, "no metrics"),
        ({"profile": "wrong"}, "profile 'wrong'"),
        ({"jobs": 0}, "jobs is 0"),
        ({"contestants": []}, "nobody to evaluate"),
        ({"contestants": [AVERAGE, AVERAGE, Contestant.weights("tiny", "vif", "average")]}, "LABEL=PATH"),
        ({"contestants": [Contestant.folder("nowhere")]}, "nowhere: no such folder"),
        ({"contestants": [Contestant.bundle("nowhere")]}, "nowhere: no such bundle"),
        ({"contestants": [Contestant.weights("nowhere.pth", "vif")]}, "nowhere.pth: no such weights"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], words: str, pairs: Path) -> None:
    with pytest.raises(InputError, match=words):
        evaluate_pairs(pairs, **options)


def test_a_folder_of_other_images_is_told(pairs: Path, tmp_path: Path) -> None:
    write_fused(tmp_path / "other", ["night", "day"])
    with pytest.raises(
        InputError, match=r"other: no image has the name of a pair.*it holds day\.png, night\.png"
    ):
        run(pairs, Contestant.folder(tmp_path / "other"))
    with pytest.raises(InputError, match="no pairs"):
        evaluate_pairs([])


def test_contestants_are_named_or_named_after_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    assert split_label(str(tmp_path / "a=b")) == (None, str(tmp_path / "a=b"))
    assert split_label("ours=out/fused") == ("ours", "out/fused")
    for text in ("=x", "x="):
        with pytest.raises(InputError, match="LABEL=PATH"):
            split_label(text)
    assert Contestant.folder("out/fused/").label == "fused"
    assert Contestant.weights("runs/best.pth", "mef").label == "best"
    assert [entry.label for entry in parse_baselines("all")] == list(BASELINES)
    assert parse_baselines("none") == []
    for wrong in ("", "mean"):
        with pytest.raises(InputError, match="average, maximum"):
            parse_baselines(wrong)
    with pytest.raises(InputError, match="no task was given"):
        Contestant.weights("tiny", None)
    with pytest.raises(InputError, match="backend 'gpu'"):
        Contestant.bundle("b", backend="gpu")


# ---------------------------------------------------------------- processes


@pytest.fixture
def hired(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[str]]:
    """The processes that were started; `replace` is the code that they run instead of ours."""
    started: list[subprocess.Popen[str]] = []
    real = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
        process = real(command, **options)
        started.append(process)
        return process

    monkeypatch.setattr(workers.subprocess, "Popen", start)
    return started


def tasks_of(pairs: Path) -> tuple[Plan, list[Task]]:
    plan = Plan("correct", FEW, (AVERAGE,))
    return plan, [Task(p.name, str(p.x), str(p.y), "", "", {0: ""}) for p in find_pairs(pairs)]


def test_processes_end_with_their_work(pairs: Path, hired: list[subprocess.Popen[str]]) -> None:
    run(pairs, jobs=2)
    assert len(hired) == 2
    assert all(process.returncode == 0 for process in hired)


def test_processes_end_when_nobody_wants_more(pairs: Path, hired: list[subprocess.Popen[str]]) -> None:
    arriving = workers.measure_all(*tasks_of(pairs), jobs=2)
    next(arriving)
    arriving.close()
    assert len(hired) == 2
    assert all(process.poll() is not None for process in hired)


def test_a_process_that_dies_takes_one_pair_with_it(
    pairs: Path, monkeypatch: pytest.MonkeyPatch, hired: list[subprocess.Popen[str]]
) -> None:
    start, count = workers.subprocess.Popen, 0

    def first_one_dies(command: list[str], **options: Any) -> subprocess.Popen[str]:
        nonlocal count
        count += 1
        code = "import os, signal, sys; sys.stdin.readline(); sys.stdin.readline(); os.kill(os.getpid(), 9)"
        return start([command[0], "-c", code] if count == 1 else command, **options)

    monkeypatch.setattr(workers.subprocess, "Popen", first_one_dies)
    evaluation = run(pairs, jobs=2)
    (found,) = evaluation.failures
    assert found.fault
    assert "out of memory" in found.error
    assert len(evaluation.contestants[0].images) == 2


def test_what_cannot_be_loaded_in_a_process_is_one_error(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"weights\.pth"):
        run(pairs, Contestant.weights(tmp_path / "weights.pth", "vif"), jobs=2)


def test_a_folder_where_one_stands_is_not_searched_for_modules(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('wrong module')")
    monkeypatch.chdir(tmp_path)
    assert not run(pairs, jobs=2).failures


@pytest.mark.slow
def test_real_pairs_rank_the_baselines_as_known(val_pairs: Path) -> None:
    """A pyramid keeps more edges than averaging, and averaging is the most like both sources: each time for sure."""
    evaluation = evaluate_pairs(
        val_pairs / "vif", contestants=parse_baselines("average,laplacian"), metrics=["Qabf", "SSIM", "VIF"]
    )
    assert (evaluation.failures, evaluation.measured) == ([], 40)
    ((more_edges,), (less_alike,)) = (evaluation.differences[metric] for metric in ("Qabf", "SSIM"))
    assert more_edges.excludes_zero
    assert less_alike.excludes_zero
    assert more_edges.mean is not None
    assert less_alike.mean is not None
    assert more_edges.mean > 0.1
    assert less_alike.mean < -0.01


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path):
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    broken = Contestant.weights(tmp_path / "damaged.safetensors", "vif")
    with pytest.raises(InputError, match="damaged"):
        evaluate_pairs(pairs, contestants=[broken], metrics=["EN"], out=tmp_path / "new" / "out", jobs=1)
    assert not (tmp_path / "new").exists()


def test_a_run_that_cannot_begin_takes_nothing_of_earlier_runs(tmp_path):
    pairs, out = write_pairs(tmp_path / "pairs", ["a", "b"]), tmp_path / "out"
    evaluate_pairs(pairs, contestants=[Contestant.baseline("average")], metrics=["EN"], out=out, jobs=1)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    broken = Contestant.weights(tmp_path / "damaged.safetensors", "vif")
    with pytest.raises(InputError, match="damaged"):
        evaluate_pairs(pairs, contestants=[broken], metrics=["EN"], out=out, jobs=1)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
