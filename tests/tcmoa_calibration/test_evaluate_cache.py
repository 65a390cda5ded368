"""A second run computes what is missing or has changed, and nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evaluation_pieces import scene, write, write_fused, write_pairs
from tcmoa_calibration.evaluate import Contestant, Evaluation, cache, evaluate_pairs
from tcmoa_calibration.evaluate.measure import Measured, Measurer, Task
from tcmoa_runtime.errors import InputError

AVERAGE, MAXIMUM = Contestant.baseline("average"), Contestant.baseline("maximum")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """pairs/ and fused/ of a, b and c."""
    write_pairs(tmp_path / "pairs", "abc")
    write_fused(tmp_path / "fused", "abc")
    return tmp_path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was computed: name and position of the contestant."""
    done: list[str] = []
    real = Measurer.measure

    def measure(self: Measurer, task: Task) -> list[Measured]:
        done.extend(f"{task.name}{i}" for i in task.keys)
        return real(self, task)

    monkeypatch.setattr(Measurer, "measure", measure)
    return done


def run(place: Path, *contestants: Contestant, **options: Any) -> Evaluation:
    options = {"metrics": ["Qabf", "MI"], "out": place / "out", "jobs": 1, **options}
    mine = Contestant.folder(place / "fused")
    return evaluate_pairs(place / "pairs", contestants=[mine, *contestants], **options)


def test_a_second_run_computes_nothing_and_finds_the_same(place: Path, measured: list[str]) -> None:
    first = run(place, AVERAGE)
    assert sorted(measured) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert (first.measured, first.reused) == (6, 0)
    kept = {p: p.read_bytes() for p in (place / "out").iterdir() if p.is_file()}
    measured.clear()
    second = run(place, AVERAGE)
    assert measured == []
    assert (second.measured, second.reused) == (0, 6)
    told = [
        {k: v for k, v in e.to_json().items() if k not in ("measured", "reused")} for e in (first, second)
    ]
    assert told[0] == told[1]
    again = {p: p.read_bytes() for p in (place / "out").iterdir() if p.is_file()}
    assert {p.name for p in kept if kept[p] != again[p]} == {"results.json"}  # measured, reused


def test_only_what_is_new_or_changed_is_computed(place: Path, measured: list[str]) -> None:
    run(place, AVERAGE)
    measured.clear()
    run(place, AVERAGE, MAXIMUM)
    assert sorted(measured) == ["a2", "b2", "c2"]
    measured.clear()
    write(place / "fused" / "b.png", scene(1)[0])
    run(place, AVERAGE, MAXIMUM)
    assert measured == ["b0"]
    measured.clear()
    write(place / "pairs" / "c_y.png", scene(7)[1])
    run(place, AVERAGE, MAXIMUM)
    assert measured == ["c0", "c1", "c2"]
    measured.clear()
    shutil.copy(place / "fused" / "b.png", place / "fused" / "b_fused.png")
    (place / "fused" / "b.png").unlink()
    for which in "xy":
        (place / "pairs" / f"a_{which}.png").rename(place / "pairs" / f"z_{which}.png")
    (place / "fused" / "a.png").rename(place / "fused" / "z.png")
    evaluation = run(place, MAXIMUM)
    assert (measured, evaluation.pairs) == ([], ["b", "c", "z"])  # by content, not by name


@pytest.mark.parametrize("options", [{"metrics": ["Qabf"]}, {"profile": "as-published"}])
def test_other_metrics_and_another_profile_are_other_results(
    options: dict[str, Any], place: Path, measured: list[str]
) -> None:
    run(place)
    measured.clear()
    assert sorted(run(place, **options).contestants[0].images["a"]) == sorted(
        options.get("metrics", ["Qabf", "MI"])
    )
    assert len(measured) == 3
    measured.clear()
    run(place, metrics=["MI", "Qabf"])  # another order is none
    assert measured == []


def test_changed_code_is_measured_again(
    place: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(place)
    measured.clear()
    monkeypatch.setattr(cache, "code_hash", lambda: "changed")
    run(place)
    assert len(measured) == 3


def test_fresh_starts_over(place: Path, measured: list[str]) -> None:
    run(place)
    measured.clear()
    write(place / "out" / "report_images" / "old.jpg", scene(0)[0])
    assert run(place, fresh=True).measured == len(measured) == 3
    assert not (place / "out" / "report_images" / "old.jpg").exists()
    assert len((place / "out" / "cache.jsonl").read_bytes().splitlines()) == 3


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
def test_a_damaged_line_is_as_one_that_is_not_there(damage: Any, place: Path, measured: list[str]) -> None:
    expected = run(place).contestants
    path = place / "out" / "cache.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], damage(lines[1]), lines[2]]) + b"\n")
    measured.clear()
    assert run(place).contestants == expected
    assert len(measured) == 1


def test_half_a_line_at_the_end_does_not_spoil_the_next_one(place: Path, measured: list[str]) -> None:
    run(place)
    path = place / "out" / "cache.jsonl"
    path.write_bytes(path.read_bytes()[:-50])
    for expected in (1, 0):
        measured.clear()
        run(place)
        assert len(measured) == expected


def test_a_picture_that_is_gone_is_drawn_again(place: Path, measured: list[str]) -> None:
    evaluation = run(place)
    picture = place / "out" / "report_images" / evaluation.contestants[0].pictures["b"]["difference"]["file"]
    picture.unlink()
    measured.clear()
    run(place)
    assert measured == ["b0"]
    assert picture.is_file()


def test_an_interrupted_run_goes_on_where_it_was(
    place: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Measurer.measure

    def interrupted(self: Measurer, task: Task) -> list[Measured]:
        if len(measured) >= 4:
            raise KeyboardInterrupt
        return real(self, task)

    with monkeypatch.context() as patch:
        patch.setattr(Measurer, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(place, AVERAGE)
    assert len(measured) == 4
    before = set(measured)
    measured.clear()
    assert run(place, AVERAGE).reused == 4
    assert len(measured) == 2
    assert not before & set(measured)


def test_failures_are_tried_again(place: Path) -> None:
    good = (place / "fused" / "b.png").read_bytes()
    (place / "fused" / "b.png").write_bytes(good[:100])
    assert len(run(place).failures) == 1
    (place / "fused" / "b.png").write_bytes(good)
    evaluation = run(place)
    assert (evaluation.failures, evaluation.measured, evaluation.reused) == ([], 1, 2)


@pytest.mark.parametrize("name", ["results.json", "results.csv", "report.html", "report_images"])
def test_files_of_somebody_else_stay(name: str, place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / name).write_text("mine")
    with pytest.raises(InputError, match=f"holds a {name} that is not of an evaluation"):
        run(place)
    assert (place / "out" / name).read_text() == "mine"


def test_a_folder_that_cannot_be_used_is_told(place: Path) -> None:
    (place / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        run(place, out=place / "file")
    with pytest.raises(InputError, match="cannot be used"):
        run(place, out=place / "file" / "below")
