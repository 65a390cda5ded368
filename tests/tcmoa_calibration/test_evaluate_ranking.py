"""Ranks of methods among each other and on a board, against a direct computation, and boards that are refused."""

import json
from pathlib import Path

import pytest

from evaluation_pieces import write_fused, write_pairs
from tcmoa_calibration.evaluate import EvaluateOptions, Method, evaluate_pairs
from tcmoa_calibration.evaluate.board import board_pairs, read_board
from tcmoa_calibration.evaluate.ranking import rank_methods
from tcmoa_runtime.errors import InputError

A = {"a": {"Qabf": 0.5, "Qcv": 90.0}, "b": {"Qabf": 0.7, "Qcv": 10.0}}
B = {"a": {"Qabf": 0.9, "Qcv": 80.0}, "b": {"Qabf": 0.1, "Qcv": 60.0}}
C = {"a": {"Qabf": 0.6, "Qcv": 20.0}, "b": {"Qabf": 0.6, "Qcv": 30.0}}


def write_board(folder: Path, **changes: object) -> Path:
    """Write a board with the pairs a and b and the methods A and B."""
    write_pairs(folder / "pairs", "ab")
    content: dict[str, object] = {
        "profile": "correct",
        "metrics": {"Qabf": "Qabf", "CV": "Qcv"},
        "lower_is_better": ["CV"],
        "methods": {
            name: {pair: {"Qabf": v["Qabf"], "CV": v["Qcv"]} for pair, v in values.items()}
            for name, values in {"A": A, "B": B}.items()
        },
    }
    (folder / "peers.json").write_text(json.dumps({**content, **changes}))
    return folder


def test_the_score_is_the_mean_of_the_ranks_by_the_means_over_pairs() -> None:
    # Means: Qabf 0.6, 0.5, 0.6 (higher is better; two share the first rank), Qcv 50, 70, 25 (lower is better).
    ranking = rank_methods({"a": A, "b": B, "c": C}, ("Qabf", "Qcv"))
    assert [(r.label, r.place, r.score, dict(r.ranks)) for r in ranking.ranks] == [
        ("c", 1, 1.0, {"Qabf": 1, "Qcv": 1}),
        ("a", 2, 1.5, {"Qabf": 1, "Qcv": 2}),
        ("b", 3, 3.0, {"Qabf": 3, "Qcv": 3}),
    ]
    assert (ranking.num_pairs, ranking.unranked) == (2, ())


def test_means_are_over_pairs_that_every_method_has() -> None:
    partial = {"a": {"Qabf": 0.55, "Qcv": None}}
    ranking = rank_methods({"a": A, "partial": partial, "none": {}}, ("Qabf", "Qcv"))
    assert [(r.label, r.place) for r in ranking.ranks] == [
        ("partial", 1),
        ("a", 2),
    ]  # 0.55 against 0.5 on `a`
    assert (ranking.metrics, ranking.num_pairs, ranking.unranked) == (("Qabf",), 1, ("none",))
    nothing = rank_methods({"a": {"a": {"Qabf": None}}}, ("Qabf",))
    assert (nothing.ranks, nothing.unranked) == ((), ("a",))


def test_a_board_ranks_a_method_among_published_ones_of_the_same_name(tmp_path: Path) -> None:
    board = read_board(write_board(tmp_path))
    assert [pair.name for pair in board_pairs(tmp_path)] == ["a", "b"]
    ranking = rank_methods({"A": {**C, "extra": C["a"]}}, ("Qabf", "Qcv"), board)
    assert [(r.label, r.is_published, r.place) for r in ranking.ranks] == [
        ("A", False, 1),
        ("A", True, 2),
        ("B", True, 3),
    ]
    own = ranking.of("A")
    assert own is not None
    assert (own.place, ranking.num_pairs) == (1, 2)
    assert ranking.to_json()["published"] == {
        "A": {"place": 2, "score": 1.5, "ranks": {"Qabf": 1, "Qcv": 2}},
        "B": {"place": 3, "score": 3.0, "ranks": {"Qabf": 3, "Qcv": 3}},
    }


def test_a_board_names_metrics_and_profile(tmp_path: Path) -> None:
    folder = write_board(tmp_path / "board")
    fused = write_fused(tmp_path / "mine", "ab")
    options = EvaluateOptions(baselines=(), board=folder, jobs=1)
    evaluation = evaluate_pairs(folder / "pairs", [Method.folder(fused)], options, out=tmp_path / "out")
    assert evaluation.metrics == ("Qabf", "Qcv")
    ranking = evaluation.ranking
    assert ranking is not None
    assert {rank.label for rank in ranking.ranks} == {"mine", "A", "B"}
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert '<section id="comparison">' in page
    assert page.count("(published)") == 2
    assert evaluation.to_json()["ranking"] == ranking.to_json()


def test_options_that_contradict_a_board_are_refused(tmp_path: Path) -> None:
    folder = write_board(tmp_path / "board", profile="mefb")
    with pytest.raises(InputError) as caught:
        evaluate_pairs(folder / "pairs", options=EvaluateOptions(board=folder, profile="vifb"))
    assert str(caught.value) == f"profile: vifb; expected mefb, with which {folder} was computed"
    with pytest.raises(InputError) as caught:
        evaluate_pairs(folder / "pairs", options=EvaluateOptions(board=folder, metrics=("Qabf",)))
    assert str(caught.value) == (
        f"metrics: without Qcv; expected all metrics of {folder}. Leave them out to compute those of the board."
    )
    other = write_pairs(tmp_path / "other", "bc")
    with pytest.raises(InputError) as caught:
        evaluate_pairs(other, options=EvaluateOptions(board=folder))
    assert str(caught.value) == (
        f"{folder}: its pairs a are not among the pairs to evaluate; expected all 2. Leave the pairs out to take those "
        f"of {folder / 'pairs'}."
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"profile": "own"}, "unknown profile 'own'"),
        ({"metrics": {"Qabf": "Qzz"}}, "unknown metric 'Qzz'"),
        ({"metrics": {}}, "no metrics, methods or pairs"),
        ({"methods": {}}, "no metrics, methods or pairs"),
        (
            {"methods": {"A": {"a": {"Qabf": 1, "CV": 2}}, "B": {"b": {"Qabf": 1, "CV": 2}}}},
            "different pairs",
        ),
        ({"methods": {"A": {"a": {"Qabf": 1, "CV": "2"}}}}, "'2' is not a number"),
        ({"methods": {"A": {"a": {"Qabf": 1}}}}, "KeyError: 'CV'"),
        ({"methods": ["A"]}, "AttributeError"),
        ({"lower_is_better": ["other"]}, "KeyError: 'other'"),
    ],
)
def test_a_malformed_board_is_refused(changes: dict[str, object], problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_board(write_board(tmp_path, **changes))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'peers.json'}: not a board (")
    assert problem in message
    assert message.endswith(
        "expected profile, metrics, lower_is_better and methods with a number for each pair and metric"
    )


def test_a_folder_without_a_readable_board_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_board(tmp_path)
    assert str(caught.value) == f"{tmp_path}: no peers.json; expected the folder of a board"
    (tmp_path / "peers.json").write_text("{")
    with pytest.raises(InputError, match=r"peers\.json: not readable \(.*; expected a JSON object"):
        read_board(tmp_path)
