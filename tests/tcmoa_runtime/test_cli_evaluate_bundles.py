"""`tcmoa evaluate` of several bundles: places, time, memory and operators beside the metrics. No time is asserted."""

import json
import shutil
from pathlib import Path

import pytest

from evaluation_pieces import write_pairs
from tcmoa_runtime.bench import measure

FEW = ("--metrics", "Qabf,MI", "--jobs", 1)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs", "ab")


def test_several_bundles_are_compared_in_one_report(tcmoa, pairs, exported, tmp_path):
    bundles = ("--bundle", f"mine={exported('plain')}", "--bundle", exported("narrow"))
    command = (
        "evaluate",
        "--pairs",
        pairs,
        *FEW,
        *bundles,
        "--baselines",
        "average",
        "--out",
        tmp_path / "out",
    )
    done = tcmoa(*command)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("side by side"))
    assert lines[start].split()[3:] == ["place", "score", "frame", "time", "memory", "graph", "backend"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[start + 1 : start + 4]}
    assert rows.keys() == {"mine", "narrow", "average"}
    places = [int(row[0]) for row in rows.values()]
    assert places == sorted(places)
    assert places[0] == 1
    assert rows["average"][2:] == ["-"] * 5
    for label, size in {"mine": "130x100", "narrow": "40x7"}.items():
        frame, ms, ms_unit, memory, memory_unit, operators, graph_unit, backend = rows[label][2:]
        assert (frame, ms_unit, memory_unit, graph_unit, backend) == (
            size,
            "ms",
            "MB",
            "operators",
            "onnxruntime",
        )
        assert min(float(ms), int(memory), int(operators)) > 0
    assert "score: mean of the ranks among 3 methods by 2 metrics on 2 pairs, 1 is best" in lines
    assert "the bundles have frames of different sizes: their times cannot be compared directly" in lines
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert report["ranking"]["methods"].keys() == {"mine", "narrow", "average"}
    assert report["ranking"]["published"] == {}
    assert report["speed"].keys() == {"mine", "narrow"}
    assert report["speed"]["mine"]["frames"] == 5
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count('<section id="comparison">') == 1
    again = tcmoa(*command, "--no-speed", "--json").json
    assert "speed" not in again
    assert again["ranking"] == report["ranking"]
    assert (again["measured"], again["reused"]) == (0, 6)


def test_one_bundle_has_no_comparison(tcmoa, pairs, exported):
    done = tcmoa("evaluate", "--pairs", pairs, *FEW, "--bundle", exported("narrow"), "--baselines", "average")
    assert done.code == 0
    assert "side by side" not in done.out
    assert "score:" not in done.out


def test_a_bundle_that_is_not_timed_is_still_compared(tcmoa, pairs, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(measure.sys, "executable", "/bin/false")
    copy = shutil.copytree(exported("narrow"), tmp_path / "copy")
    done = tcmoa(
        *("evaluate", "--pairs", pairs, *FEW, "--bundle", exported("narrow"), "--bundle", copy),
        *("--baselines", "none"),
    )
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines() if line.startswith(("narrow ", "copy "))]
    assert [row[1:6] for row in rows] == [
        ["1", "1.00", "40x7", "not", "run"]
    ] * 2  # equal bundles share a place
    assert "copy: time not measured: onnxruntime: its process ended (exit status 1" in done.out


def test_a_damaged_bundle_is_refused_before_the_work_starts(tcmoa, pairs, exported, broken, tmp_path):
    (broken / "fusion.onnx").write_bytes(b"damaged")
    out = tmp_path / "out"
    done = tcmoa(
        "evaluate", "--pairs", pairs, *FEW, "--bundle", exported("narrow"), "--bundle", broken, "--out", out
    )
    done.assert_error(2, f"{broken / 'fusion.onnx'}: 7 bytes, truncated or another file; expected")
    assert not out.exists()


def test_a_board_brings_its_pairs(tcmoa, tmp_path, exported):
    board = tmp_path / "board"
    write_pairs(board / "pairs", "ab")
    values = {pair: {"Qabf": 0.0} for pair in "ab"}
    content = {
        "profile": "correct",
        "metrics": {"Qabf": "Qabf"},
        "lower_is_better": [],
        "methods": {"P": values},
    }
    (board / "peers.json").write_text(json.dumps(content))
    arguments = ("--board", board, "--bundle", exported("narrow"), "--baselines", "none", "--jobs", 1)
    report = tcmoa("evaluate", *arguments, "--json").json
    assert report["pairs"] == ["a", "b"]
    assert report["ranking"]["methods"]["narrow"]["place"] == 1
    assert report["ranking"]["published"]["P"]["place"] == 2
    assert "speed" not in report
    done = tcmoa("evaluate", "--board", board, "--profile", "tang", "--bundle", exported("narrow"))
    assert (done.code, done.out) == (2, "")
    assert done.err == (f"tcmoa: error: --profile: tang; expected correct, with which {board} was computed\n")
    tcmoa("evaluate", "--board", tmp_path, "--bundle", exported("narrow")).assert_error(
        2, f"{tmp_path / 'pairs'}: no such folder of images"
    )
