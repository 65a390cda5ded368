"""Tables in a terminal: every method once, marks that agree with the values, labels without control characters."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from evaluation_pieces import scene, write, write_fused, write_pairs
from tcmoa_calibration.evaluate import EvaluateOptions, Evaluation, Interval, Method, evaluate_pairs
from tcmoa_calibration.evaluate.results import format_interval, num_decimals
from tcmoa_calibration.evaluate.table import print_tables
from tcmoa_runtime.options.evaluate import BASELINE_NAMES

METRICS = ("Qabf", "MSE", "VIF")


def printed(evaluation: Evaluation, width: int) -> list[str]:
    text = io.StringIO()
    print_tables(evaluation, Console(file=text, width=width, force_terminal=False))
    return text.getvalue().splitlines()


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    """Return all baselines and one folder on three pairs, one of them too small for VIF."""
    pairs = write_pairs(tmp_path / "pairs", "abc")
    fused = write_fused(tmp_path / "fused", "abc")
    for which, image in zip("xy", scene(1, (30, 80)), strict=True):
        write(pairs / f"b_{which}.png", image)
    write(fused / "b.png", scene(1, (30, 80))[0])
    options = EvaluateOptions(baselines=BASELINE_NAMES, metrics=METRICS, jobs=1)
    return evaluate_pairs(pairs, [Method.folder(fused, "mine")], options)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_every_method_is_in_one_table_for_every_width(width: int, evaluation: Evaluation) -> None:
    lines = printed(evaluation, width)
    heads = [line.split() for line in lines if line.startswith(("mean ", "difference "))]
    labels = [method.label for method in evaluation.methods]
    assert [word for words in heads if words[0] == "mean" for word in words[1:]] == labels
    assert [word for words in heads if words[0] == "difference" for word in words[4:]] == labels[1:]
    rows = [line for line in lines if line.startswith(METRICS) and "missing" not in line]
    assert len(rows) == len(heads) * len(METRICS)
    assert all(len(line) <= width for line in rows)


def test_marks_agree_with_the_values(evaluation: Evaluation) -> None:
    lines = printed(evaluation, 300)
    for name, arrow in zip(METRICS, "↑↓↑", strict=True):
        means, differences = (line for line in lines if line.startswith(f"{name} {arrow}"))
        best = evaluation.is_best(name).index(True)
        assert format_interval(evaluation.means[name][best], evaluation.decimals(name)) + " *" in means
        marks = [word for word in differences.split() if word in "+-="]
        for mark, difference in zip(marks, evaluation.differences[name], strict=True):
            better = (difference.mean or 0) > 0 if arrow == "↑" else (difference.mean or 0) < 0
            assert mark == ("=" if not difference.excludes_zero else "+" if better else "-")
    assert any("n 2 to 3 of 3 pairs" in line for line in lines)
    assert "VIF: 9 values missing: 30 px on the shorter side; expected at least 41 px" in lines


def test_a_label_cannot_control_the_terminal(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", "a")
    mine = Method.folder(write_fused(tmp_path / "fused", "a"), "\x1b[31m[red]mine")
    options = EvaluateOptions(baselines=(), metrics=("MI",), jobs=1)
    text = "\n".join(printed(evaluate_pairs(pairs, [mine], options), 100))
    assert "?[31m[red]mine" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("value", "decimals"),
    [(0.0, 4), (0.51234, 4), (-0.9, 4), (9.659, 3), (12.345, 2), (123.4, 1), (98765.4, 0)],
)
def test_four_digits_are_shown(value: float, decimals: int) -> None:
    assert num_decimals([value, None]) == decimals


def test_missing_parts_of_an_interval_are_not_shown() -> None:
    assert format_interval(Interval(None, None, 0), 4) == "-"
    assert format_interval(Interval(0.5, None, 1), 4) == "0.5000"
    assert format_interval(Interval(0.5, 0.01, 2), 2, sign=True) == "+0.50 ±0.01"
