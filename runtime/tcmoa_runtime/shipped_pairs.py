"""Small image pairs that the package ships: for the demo, and for checks that are given no pairs.

They are made from freely licensed photographs, see `ready/pairs/LICENSES.txt`; the infrared images are synthetic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tcmoa_runtime.contract import Task
from tcmoa_runtime.pairs import PairPaths, find_pairs

PAIRS_FOLDER: Final = Path(__file__).parent / "ready" / "pairs"
"""One folder for each task, with `NAME_x.jpg` and `NAME_y.jpg`."""


def shipped_pairs(task: Task) -> list[PairPaths]:
    """Return the shipped pairs of a task, sorted by name: at least two, of different sizes."""
    return find_pairs(PAIRS_FOLDER / task)
