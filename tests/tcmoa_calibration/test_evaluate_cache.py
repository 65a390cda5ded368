"""A second run computes what is missing or has changed, and nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evaluation_pieces import scene, write, write_fused, write_pairs
from tcmoa_calibration.evaluate import EvaluateOptions, Evaluation, Method, cache, evaluate_pairs
from tcmoa_calibration.evaluate.measure import Outcome, PairEvaluator, PairJob
from tcmoa_runtime.errors import InputError

AVERAGE, MAXIMUM = Method.baseline("average"), Method.baseline("maximum")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write pairs/ and fused/ of a, b and c."""
    write_pairs(tmp_path / "pairs", "abc")
    write_fused(tmp_path / "fused", "abc")
    return tmp_path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record what is measured: name of the pair and index of the method."""
    recorded: list[str] = []
    real = PairEvaluator.measure

    def measure(self: PairEvaluator, job: PairJob) -> tuple[Outcome, ...]:
        recorded.extend(f"{job.pair.name}{index}" for index in job.keys)
        return real(self, job)

    monkeypatch.setattr(PairEvaluator, "measure", measure)
    return recorded


def run(folder: Path, *methods: Method, out: Path | None = None, **options: Any) -> Evaluation:
    chosen = EvaluateOptions(**{"baselines": (), "metrics": ("Qabf", "MI"), "jobs": 1, **options})
    mine = Method.folder(folder / "fused")
    return evaluate_pairs(folder / "pairs", [mine, *methods], chosen, out=out or folder / "out")


def test_a_second_run_measures_nothing_and_gives_the_same_result(folder: Path, measured: list[str]) -> None:
    first = run(folder, AVERAGE)
    assert sorted(measured) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert (first.num_measured, first.num_reused) == (6, 0)
    kept = {p: p.read_bytes() for p in (folder / "out").iterdir() if p.is_file()}
    measured.clear()
    second = run(folder, AVERAGE)
    assert measured == []
    assert (second.num_measured, second.num_reused) == (0, 6)
    reports = [
        {k: v for k, v in e.to_json().items() if k not in ("measured", "reused")} for e in (first, second)
    ]
    assert reports[0] == reports[1]
    new = {p: p.read_bytes() for p in (folder / "out").iterdir() if p.is_file()}
    assert {p.name for p in kept if kept[p] != new[p]} == {"results.json"}  # measured, reused


def test_only_new_and_changed_files_are_measured(folder: Path, measured: list[str]) -> None:
    run(folder, AVERAGE)
    measured.clear()
    run(folder, AVERAGE, MAXIMUM)
    assert sorted(measured) == ["a2", "b2", "c2"]
    measured.clear()
    write(folder / "fused" / "b.png", scene(1)[0])
    run(folder, AVERAGE, MAXIMUM)
    assert measured == ["b0"]
    measured.clear()
    write(folder / "pairs" / "c_y.png", scene(7)[1])
    run(folder, AVERAGE, MAXIMUM)
    assert measured == ["c0", "c1", "c2"]
    measured.clear()
    shutil.copy(folder / "fused" / "b.png", folder / "fused" / "b_fused.png")
    (folder / "fused" / "b.png").unlink()
    for which in "xy":
        (folder / "pairs" / f"a_{which}.png").rename(folder / "pairs" / f"z_{which}.png")
    (folder / "fused" / "a.png").rename(folder / "fused" / "z.png")
    evaluation = run(folder, MAXIMUM)
    assert (measured, evaluation.pairs) == ([], ("b", "c", "z"))  # by content, not by name


@pytest.mark.parametrize("options", [{"metrics": ("Qabf",)}, {"profile": "as-published"}])
def test_other_metrics_and_another_profile_are_other_results(
    options: dict[str, Any], folder: Path, measured: list[str]
) -> None:
    run(folder)
    measured.clear()
    assert sorted(run(folder, **options).methods[0].images["a"]) == sorted(
        options.get("metrics", ["Qabf", "MI"])
    )
    assert len(measured) == 3
    measured.clear()
    run(folder, metrics=("MI", "Qabf"))  # the order does not matter
    assert measured == []


def test_changed_code_measures_again(
    folder: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder)
    measured.clear()
    monkeypatch.setattr(cache, "code_hash", lambda: "changed")
    run(folder)
    assert len(measured) == 3


def test_fresh_starts_over(folder: Path, measured: list[str]) -> None:
    run(folder)
    measured.clear()
    write(folder / "out" / "report_images" / "old.jpg", scene(0)[0])
    assert run(folder, fresh=True).num_measured == len(measured) == 3
    assert not (folder / "out" / "report_images" / "old.jpg").exists()
    assert len((folder / "out" / "cache.jsonl").read_bytes().splitlines()) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2],
        lambda line: b"\xff\xfe not JSON",
        lambda line: b"[1, 2]",
        lambda line: b"{}",
        lambda line: b"[" * 100_000,
        lambda line: line.replace(b'"MI": ', b'"MI": "x', 1),
        lambda line: json.dumps({**json.loads(line), "values": {"MI": "text", "Qabf": 1}}).encode(),
        lambda line: json.dumps({**json.loads(line), "values": {"MI": None, "Qabf": 1}}).encode(),
        lambda line: json.dumps({**json.loads(line), "extra": 1}).encode(),
        lambda line: line.replace(b'"file": "', b'"file": "../', 1),
    ],
)
def test_a_damaged_line_is_ignored(damage: Any, folder: Path, measured: list[str]) -> None:
    expected = run(folder).methods
    path = folder / "out" / "cache.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], damage(lines[1]), lines[2]]) + b"\n")
    measured.clear()
    assert run(folder).methods == expected
    assert len(measured) == 1


def test_an_incomplete_last_line_does_not_damage_the_next_one(folder: Path, measured: list[str]) -> None:
    run(folder)
    path = folder / "out" / "cache.jsonl"
    path.write_bytes(path.read_bytes()[:-50])
    for expected in (1, 0):
        measured.clear()
        run(folder)
        assert len(measured) == expected


def test_a_missing_picture_is_drawn_again(folder: Path, measured: list[str]) -> None:
    evaluation = run(folder)
    picture = folder / "out" / "report_images" / evaluation.methods[0].pictures["b"]["difference"].file
    picture.unlink()
    measured.clear()
    run(folder)
    assert measured == ["b0"]
    assert picture.is_file()


def test_an_interrupted_run_continues(
    folder: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PairEvaluator.measure

    def interrupted(self: PairEvaluator, job: PairJob) -> tuple[Outcome, ...]:
        if len(measured) >= 4:
            raise KeyboardInterrupt
        return real(self, job)

    with monkeypatch.context() as patch:
        patch.setattr(PairEvaluator, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(folder, AVERAGE)
    assert len(measured) == 4
    before = set(measured)
    measured.clear()
    assert run(folder, AVERAGE).num_reused == 4
    assert len(measured) == 2
    assert not before & set(measured)


def test_failures_are_measured_again(folder: Path) -> None:
    good = (folder / "fused" / "b.png").read_bytes()
    (folder / "fused" / "b.png").write_bytes(good[:100])
    assert len(run(folder).failures) == 1
    (folder / "fused" / "b.png").write_bytes(good)
    evaluation = run(folder)
    assert (evaluation.failures, evaluation.num_measured, evaluation.num_reused) == ((), 1, 2)


@pytest.mark.parametrize("name", ["results.json", "results.csv", "report.html", "report_images"])
def test_other_files_of_the_same_names_stay(name: str, folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / name).write_text("mine")
    with pytest.raises(InputError, match=f"holds a {name} that is not of an evaluation"):
        run(folder)
    assert (folder / "out" / name).read_text() == "mine"


def test_a_folder_that_cannot_be_used_is_refused(folder: Path) -> None:
    (folder / "file").write_text("mine")
    with pytest.raises(InputError, match="a file; expected a folder"):
        run(folder, out=folder / "file")
    with pytest.raises(InputError, match="cannot be used"):
        run(folder, out=folder / "file" / "below")
