"""Values equal those of the metrics themselves; unusual pairs end in a value or in a reason."""

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
from tcmoa_calibration.evaluate import EvaluateOptions, Evaluation, Method, evaluate_pairs, worker_pool
from tcmoa_calibration.evaluate.measure import MeasureSettings, PairJob
from tcmoa_runtime import stalls
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import read_image, stretch_to_uint8
from tcmoa_runtime.options.evaluate import BASELINE_NAMES
from tcmoa_runtime.pairs import find_pairs
from tcmoa_runtime.typing import OnSteps, ignore_steps

FEW = ("Qabf", "SSIM", "MI")
AVERAGE = Method.baseline("average")
ONE_METRIC = EvaluateOptions(baselines=(), metrics=("EN",), jobs=1)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs", "abc")


@pytest.fixture
def fused(tmp_path: Path) -> Path:
    return write_fused(tmp_path / "fused", "abc")


def run(pairs: Path, *methods: Method, on_progress: OnSteps = ignore_steps, **options: Any) -> Evaluation:
    chosen = EvaluateOptions(**{"baselines": (), "metrics": FEW, "jobs": 1, **options})
    return evaluate_pairs(pairs, methods or [AVERAGE], chosen, on_progress=on_progress)


@pytest.mark.parametrize("profile", ["correct", "as-published"])
def test_values_equal_those_of_the_metrics(pairs: Path, fused: Path, profile: metrics.Profile) -> None:
    baselines = ("average", "mertens")
    evaluation = run(pairs, Method.folder(fused), baselines=baselines, profile=profile, metrics=None)
    for number, name in enumerate("abc"):
        x, y = scene(number)
        images = (read_image(fused / f"{name}.png"), *(BASELINES[b].fuse(x, y) for b in baselines))
        for method, image in zip(evaluation.methods, images, strict=True):
            assert method.images[name] == metrics.evaluate(x, y, image, profile)
    report: Any = evaluation.to_json()
    assert (report["profile"], report["pairs"]) == (profile, ["a", "b", "c"])
    for label, entry in report["methods"].items():
        for metric, mean in entry["mean"].items():
            values = [entry["images"][name][metric] for name in "abc"]
            assert mean == pytest.approx(np.mean(values), rel=1e-12), (label, metric)
    first = report["methods"]["fused"]
    assert (report["images"], report["mean"]) == (first["images"], first["mean"])


def test_differences_are_paired_with_the_first_method(pairs: Path, fused: Path) -> None:
    report: Any = run(pairs, Method.folder(fused), AVERAGE).to_json()["methods"]
    assert report["fused"]["versus_first"] is None
    average, first = report["average"]["images"], report["fused"]["images"]
    differences = [average[name]["Qabf"] - first[name]["Qabf"] for name in "abc"]
    versus = report["average"]["versus_first"]["Qabf"]
    assert versus["mean"] == pytest.approx(np.mean(differences))
    assert versus["confidence"] == pytest.approx(4.303 * np.std(differences, ddof=1) / np.sqrt(3), rel=1e-3)
    assert versus["n"] == 3
    assert versus["significant"] == (abs(versus["mean"]) > versus["confidence"])


def test_two_processes_give_the_result_of_one(pairs: Path, fused: Path) -> None:
    methods = (Method.folder(fused), AVERAGE)
    steps: list[tuple[int, int]] = []
    alone = run(pairs, *methods)
    together = run(pairs, *methods, jobs=2, on_progress=lambda done, total: steps.append((done, total)))
    assert together.to_json() == alone.to_json()
    assert steps == [(0, 6), (2, 6), (4, 6), (6, 6)]


def test_the_best_mean_is_the_lowest_if_lower_is_better(pairs: Path, fused: Path) -> None:
    evaluation = run(pairs, Method.folder(fused), AVERAGE, metrics=("MSE", "PSNR"))
    assert evaluation.is_best("MSE") == evaluation.is_best("PSNR")
    assert sorted(evaluation.is_best("MSE")) == [False, True]
    assert run(pairs, AVERAGE).is_best("SSIM") == [False]


def test_names_that_end_in_fused_are_found(pairs: Path, tmp_path: Path) -> None:
    plain = run(pairs, Method.folder(write_fused(tmp_path / "plain", "abc"), "f"))
    ended = run(pairs, Method.folder(write_fused(tmp_path / "ended", "abc", "_fused"), "f"))
    beside = run(write_fused(pairs, "abc", "_fused"), Method.folder(pairs, "f"))
    assert plain.methods[0].images == ended.methods[0].images == beside.methods[0].images


def test_the_table_has_one_row_for_each_value(pairs: Path, fused: Path) -> None:
    (fused / "b.png").unlink()
    evaluation = run(pairs, Method.folder(fused), AVERAGE)
    rows = list(csv.DictReader(io.StringIO(evaluation.to_csv())))
    assert list(rows[0]) == ["method", "image", "metric", "value", "reason"]
    assert len(rows) == 5 * len(FEW)
    for row in rows:
        method = next(m for m in evaluation.methods if m.label == row["method"])
        assert float(row["value"]) == method.images[row["image"]][row["metric"]]


def failure(evaluation: Evaluation) -> tuple[str, str | None, str]:
    (found,) = evaluation.failures
    assert not found.is_internal
    assert "\n" not in str(found.error)
    return found.name, found.method, str(found.error)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_unreadable_source_is_reported_and_the_rest_measured(pairs: Path, fused: Path, jobs: int) -> None:
    (pairs / "b_y.png").write_bytes((pairs / "b_y.png").read_bytes()[:200])
    evaluation = run(pairs, Method.folder(fused), AVERAGE, jobs=jobs)
    name, method, error = failure(evaluation)
    assert (name, method) == ("b", None)
    assert "b_y.png: not a readable image" in error
    assert all(list(m.images) == ["a", "c"] for m in evaluation.methods)


def test_sources_of_two_sizes_are_reported(pairs: Path) -> None:
    write(pairs / "b_y.png", scene(1, (64, 70))[1])
    _, method, error = failure(run(pairs))
    assert method is None
    assert "80x64" in error
    assert "70x64" in error


def test_a_fused_image_of_another_size_is_reported(pairs: Path, fused: Path) -> None:
    write(fused / "c.png", scene(1, (32, 40))[0])
    name, method, error = failure(run(pairs, Method.folder(fused, "mine"), AVERAGE))
    assert (name, method) == ("c", "mine")
    assert "c.png: 40x32; expected 80x64, as its sources" in error


def test_a_missing_fused_image_is_reported(pairs: Path, fused: Path) -> None:
    (fused / "a.png").unlink()
    evaluation = run(pairs, Method.folder(fused), AVERAGE)
    assert failure(evaluation)[:2] == ("a", "fused")
    assert "expected a.EXT or a_fused.EXT" in failure(evaluation)[2]
    assert evaluation.has_unequal_pairs
    report: Any = evaluation.to_json()
    assert report["methods"]["average"]["versus_first"]["MI"]["n"] == 2


def test_two_fused_images_of_one_pair_are_reported(pairs: Path, fused: Path) -> None:
    write(fused / "a_fused.png", scene(0)[0])
    assert "a.png and a_fused.png" in failure(run(pairs, Method.folder(fused)))[2]


def test_float_images_are_refused_in_one_line(pairs: Path, fused: Path) -> None:
    image = np.full((64, 80), 0.5, np.float32)
    image[3, 4] = np.nan
    (fused / "a.png").unlink()
    write(fused / "a.tiff", image)
    assert "a.tiff: holds float32" in failure(run(pairs, Method.folder(fused)))[2]


def test_a_metric_that_needs_larger_images_has_a_reason_instead_of_a_value(pairs: Path) -> None:
    for which, image in zip("xy", scene(1, (30, 80)), strict=True):
        write(pairs / f"b_{which}.png", image)
    evaluation = run(pairs, metrics=("VIF", "SSIM"))
    (average,) = evaluation.methods
    assert average.images["b"]["VIF"] is None
    assert average.images["b"]["SSIM"] is not None
    assert average.skipped == {"b": {"VIF": "30 px on the shorter side; expected at least 41 px"}}
    assert (average.mean("VIF").n, average.mean("SSIM").n) == (2, 3)
    text = json.dumps(evaluation.to_json(), allow_nan=False)
    assert json.loads(text)["methods"]["average"]["images"]["b"]["VIF"] is None
    assert "average,b,VIF,,30 px on the shorter side" in evaluation.to_csv().replace('"', "")


@pytest.mark.parametrize("kind", ["constant", "identical", "gray fused", "alpha"])
def test_unusual_images_have_finite_values(kind: str, pairs: Path, fused: Path) -> None:
    x, _ = scene(1)
    flat = np.full((64, 80, 3), 77, np.uint8)
    if kind == "constant":
        for path in (pairs / "b_x.png", pairs / "b_y.png", fused / "b.png"):
            write(path, flat)
    elif kind == "identical":
        for path in (pairs / "b_x.png", pairs / "b_y.png", fused / "b.png"):
            write(path, x)
    elif kind == "gray fused":
        write(fused / "b.png", x[..., 0])
    else:
        encoded = cv2.imencode(".png", np.dstack([x[..., ::-1], flat[..., 0]]))[1]
        (fused / "b.png").write_bytes(encoded.tobytes())
    evaluation = run(pairs, Method.folder(fused), AVERAGE, metrics=None)
    assert not evaluation.failures
    for method in evaluation.methods:
        assert all(value is not None and np.isfinite(value) for value in method.images["b"].values())


def test_16_bit_sources_are_stretched_and_16_bit_fused_images_are_not(pairs: Path, fused: Path) -> None:
    x, y = scene(1)
    deep = y.astype(np.uint16) * 31 + 500
    result = read_image(fused / "b.png")
    write(pairs / "b_y.png", deep)
    write(fused / "b.png", result.astype(np.uint16) * 257)
    evaluation = run(pairs, Method.folder(fused))
    assert evaluation.stretched == ("b",)
    assert evaluation.to_json()["stretched"] == ["b"]
    expected = metrics.evaluate(x, stretch_to_uint8(deep), result, names=FEW)
    assert evaluation.methods[0].images["b"] == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metrics": ("Qabf", "Qxyz")}, "metrics: 'Qxyz'; expected one of SD, "),
        ({"metrics": ()}, "metrics: no metrics; expected some of SD, "),
        ({"profile": "wrong"}, "profile: 'wrong'; expected one of correct, "),
        ({"jobs": 0}, "jobs: 0; expected at least 1"),
        ({"baselines": ("mean",)}, "baselines: 'mean'; expected one of average, maximum"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        EvaluateOptions(**options)


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ([], "no methods to evaluate"),
        ([AVERAGE, AVERAGE, Method.weights("tiny", "vif", "average")], "expected different labels"),
        ([Method.folder("nowhere")], "nowhere: no such folder"),
        ([Method.bundle("nowhere")], "nowhere: no such bundle"),
        ([Method.weights("nowhere.pth", "vif")], "nowhere.pth: no such weights"),
    ],
)
def test_methods_that_cannot_be_evaluated_are_refused(methods: list[Method], words: str, pairs: Path) -> None:
    with pytest.raises(InputError, match=words):
        evaluate_pairs(pairs, methods, EvaluateOptions(baselines=()))


def test_a_folder_of_other_images_is_refused(pairs: Path, tmp_path: Path) -> None:
    write_fused(tmp_path / "other", ["night", "day"])
    with pytest.raises(
        InputError, match=r"other: no image has the name of a pair.*it holds day\.png, night\.png"
    ):
        run(pairs, Method.folder(tmp_path / "other"))
    with pytest.raises(InputError, match="no pairs"):
        evaluate_pairs([])


def test_methods_have_a_label_or_are_named_after_their_source() -> None:
    assert Method.folder("out/fused/").label == "fused"
    assert Method.weights("runs/best.pth", "mef").label == "best"
    assert [Method.baseline(name).label for name in BASELINE_NAMES] == list(BASELINES)
    wrong: Any = "mean"
    with pytest.raises(InputError, match="baseline: 'mean'; expected one of average, maximum"):
        Method.baseline(wrong)
    no_task: Any = None
    with pytest.raises(InputError, match="task: None; expected one of vif, mef, mff"):
        Method.weights("tiny", no_task)
    wrong = "gpu"
    with pytest.raises(InputError, match="backend: 'gpu'; expected one of auto, onnxruntime"):
        Method.bundle("b", backend=wrong)


# ---------------------------------------------------------------- processes


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Record the processes that are started."""
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        process = real(command, **options)
        started.append(process)
        return process

    monkeypatch.setattr(worker_pool.subprocess, "Popen", start)
    return started


def jobs_of(pairs: Path) -> tuple[MeasureSettings, list[PairJob]]:
    settings = MeasureSettings("correct", FEW, (AVERAGE,))
    return settings, [PairJob(pair, "", "", {0: ""}) for pair in find_pairs(pairs)]


def test_processes_end_with_their_work(pairs: Path, spawned: list[subprocess.Popen[bytes]]) -> None:
    run(pairs, jobs=2)
    assert len(spawned) == 2
    assert all(process.returncode == 0 for process in spawned)


def test_processes_end_when_the_generator_is_closed(
    pairs: Path, spawned: list[subprocess.Popen[bytes]]
) -> None:
    finished = worker_pool.measure_all(*jobs_of(pairs), num_processes=2)
    next(finished)
    finished.close()
    assert len(spawned) == 2
    assert all(process.poll() is not None for process in spawned)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import os, sys; sys.stdin.buffer.read(1); os.kill(os.getpid(), 9)", "out of memory"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
            "used no processor time for 2.0 s, so it was ended; expected a reply. Run the same command again",
        ),
    ],
    ids=["killed", "stopped"],
)
def test_a_process_that_dies_or_stops_loses_one_pair(
    code: str,
    problem: str,
    pairs: Path,
    monkeypatch: pytest.MonkeyPatch,
    spawned: list[subprocess.Popen[bytes]],
) -> None:
    start, count = worker_pool.subprocess.Popen, 0

    def first_one_ends(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        nonlocal count
        count += 1
        return start([command[0], "-c", code] if count == 1 else command, **options)

    monkeypatch.setattr(worker_pool.subprocess, "Popen", first_one_ends)
    monkeypatch.setattr(stalls, "MAX_IDLE_S", 2.0)
    monkeypatch.setattr(stalls, "_POLL_S", 0.05)
    evaluation = run(pairs, jobs=2)
    (found,) = evaluation.failures
    assert found.is_internal
    assert problem in str(found.error)
    assert len(evaluation.methods[0].images) == 2


def test_a_method_that_cannot_be_loaded_in_a_process_is_one_error(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"weights\.pth"):
        run(pairs, Method.weights(tmp_path / "weights.pth", "vif"), jobs=2)


def test_processes_do_not_import_from_the_current_folder(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('wrong module')")
    monkeypatch.chdir(tmp_path)
    assert not run(pairs, jobs=2).failures


@pytest.mark.slow
def test_real_pairs_rank_the_baselines_as_expected(val_pairs: Path) -> None:
    """A pyramid keeps more edges than averaging, and averaging is more similar to both sources, significantly."""
    options = EvaluateOptions(baselines=("average", "laplacian"), metrics=("Qabf", "SSIM", "VIF"))
    evaluation = evaluate_pairs(val_pairs / "vif", options=options)
    assert (evaluation.failures, evaluation.num_measured) == ((), 40)
    ((more_edges,), (less_alike,)) = (evaluation.differences[metric] for metric in ("Qabf", "SSIM"))
    assert more_edges.excludes_zero
    assert less_alike.excludes_zero
    assert more_edges.mean is not None
    assert less_alike.mean is not None
    assert more_edges.mean > 0.1
    assert less_alike.mean < -0.01


def test_a_run_that_cannot_start_leaves_no_folder(tmp_path):
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    broken = Method.weights(tmp_path / "damaged.safetensors", "vif")
    with pytest.raises(InputError, match="damaged"):
        evaluate_pairs(pairs, [broken], ONE_METRIC, out=tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_a_run_that_cannot_start_keeps_the_results_of_earlier_runs(tmp_path):
    pairs, out = write_pairs(tmp_path / "pairs", ["a", "b"]), tmp_path / "out"
    evaluate_pairs(pairs, [AVERAGE], ONE_METRIC, out=out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    broken = Method.weights(tmp_path / "damaged.safetensors", "vif")
    with pytest.raises(InputError, match="damaged"):
        evaluate_pairs(pairs, [broken], ONE_METRIC, out=out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
