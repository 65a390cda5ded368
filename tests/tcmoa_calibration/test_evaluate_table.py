"""The tables of a terminal: everybody in them once, marks that say what the figures say, names without tricks."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from evaluation_pieces import scene, write, write_fused, write_pairs
from tcmoa_calibration.evaluate import Contestant, Evaluation, Interval, evaluate_pairs, parse_baselines
from tcmoa_calibration.evaluate.results import decimals, shown
from tcmoa_calibration.evaluate.table import print_tables

METRICS = ("Qabf", "MSE", "VIF")


def printed(evaluation: Evaluation, width: int) -> list[str]:
    text = io.StringIO()
    print_tables(evaluation, Console(file=text, width=width, force_terminal=False))
    return text.getvalue().splitlines()


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    """All baselines and one folder on three pairs, one of them too small for VIF."""
    pairs = write_pairs(tmp_path / "pairs", "abc")
    fused = write_fused(tmp_path / "fused", "abc")
    for which, image in zip("xy", scene(1, (30, 80)), strict=True):
        write(pairs / f"b_{which}.png", image)
    write(fused / "b.png", scene(1, (30, 80))[0])
    contestants = [Contestant.folder(fused, "mine"), *parse_baselines("all")]
    return evaluate_pairs(pairs, contestants=contestants, metrics=METRICS, jobs=1)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_everybody_is_in_a_table_once_whatever_the_width(width: int, evaluation: Evaluation) -> None:
    lines = printed(evaluation, width)
    heads = [line.split() for line in lines if line.startswith(("mean ", "difference "))]
    labels = [entry.label for entry in evaluation.contestants]
    assert [word for words in heads if words[0] == "mean" for word in words[1:]] == labels
    assert [word for words in heads if words[0] == "difference" for word in words[4:]] == labels[1:]
    rows = [line for line in lines if line.startswith(METRICS) and "left out" not in line]
    assert len(rows) == len(heads) * len(METRICS)
    assert all(len(line) <= width for line in rows)


def test_marks_say_what_the_figures_say(evaluation: Evaluation) -> None:
    lines = printed(evaluation, 200)
    for name, arrow in zip(METRICS, "↑↓↑", strict=True):
        means, differences = (line for line in lines if line.startswith(f"{name} {arrow}"))
        best = evaluation.best(name).index(True)
        assert shown(evaluation.means[name][best], evaluation.places(name)) + " *" in means
        marks = [word for word in differences.split() if word in "+-="]
        for mark, apart in zip(marks, evaluation.differences[name], strict=True):
            better = (apart.mean or 0) > 0 if arrow == "↑" else (apart.mean or 0) < 0
            assert mark == ("=" if not apart.excludes_zero else "+" if better else "-")
    assert any("n 2 to 3 of 3 pairs" in line for line in lines)
    assert "VIF: 6 figures left out: needs 41 pixels a side, the image has 30" in lines


def test_a_name_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", "a")
    mine = Contestant.folder(write_fused(tmp_path / "fused", "a"), "\x1b[31m[red]mine")
    text = "\n".join(printed(evaluate_pairs(pairs, contestants=[mine], metrics="MI", jobs=1), 100))
    assert "?[31m[red]mine" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("value", "places"),
    [(0.0, 4), (0.51234, 4), (-0.9, 4), (9.659, 3), (12.345, 2), (123.4, 1), (98765.4, 0)],
)
def test_four_digits_are_shown(value: float, places: int) -> None:
    assert decimals([value, None]) == places


def test_what_is_not_known_is_not_shown() -> None:
    assert shown(Interval(None, None, 0), 4) == "-"
    assert shown(Interval(0.5, None, 1), 4) == "0.5000"
    assert shown(Interval(0.5, 0.01, 2), 2, sign=True) == "+0.50 ±0.01"
