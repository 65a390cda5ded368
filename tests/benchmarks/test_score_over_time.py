"""The plot of the score over the time of a frame."""

import json

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed; `make test` installs it")

import score_over_time
from tcmoa_runtime.contract import TASKS


def test_the_plot_is_drawn_from_the_data_of_the_repository(tmp_path, monkeypatch):
    out = tmp_path / "plot.png"
    monkeypatch.setattr("sys.argv", ["score_over_time.py", "--out", str(out)])
    assert score_over_time.main() == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_every_task_has_both_models_and_all_published_methods():
    path = score_over_time.ROOT / "benchmarks" / "results" / "score_over_time.json"
    tasks = json.loads(path.read_text())["tasks"]
    assert set(tasks) == set(TASKS)
    for board in tasks.values():
        assert set(board["ours"]) == {"tiny", "nano"}
        assert len(board["published"]) + len(board["untimed"]) == board["methods"]
