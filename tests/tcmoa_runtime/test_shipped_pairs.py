"""Every task has shipped pairs that can be fused, and each photograph has a license."""

import pytest

from tcmoa_runtime.contract import TASKS
from tcmoa_runtime.pairs import read_frame_pair
from tcmoa_runtime.shipped_pairs import PAIRS_FOLDER, shipped_pairs

MAX_BYTES = 600_000


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_pairs_of_different_sizes_and_pixels(task):
    frames = [read_frame_pair(pair) for pair in shipped_pairs(task)]
    assert len({x.shape for x, _ in frames}) >= 2
    assert all((x != y).mean() > 0.1 for x, y in frames)


def test_each_photograph_has_a_license():
    text = (PAIRS_FOLDER / "LICENSES.txt").read_text()
    for pair in (pair for task in TASKS for pair in shipped_pairs(task)):
        entry = text.partition(f"\n{pair.name}  ")[2].partition("\n\n")[0]
        assert "CC0 1.0" in entry or "Public domain" in entry, pair.name


def test_the_pairs_are_small():
    assert sum(path.stat().st_size for path in PAIRS_FOLDER.rglob("*")) < MAX_BYTES
