"""Places, times and memory of the methods of an evaluation as the rows of a table."""

from __future__ import annotations

from typing import Final

from tcmoa_calibration.evaluate.results import Evaluation
from tcmoa_calibration.evaluate.speed import BundleSpeed
from tcmoa_runtime.errors import TcmoaError

COMPARISON_COLUMNS: Final = ("place", "score", "frame", "time", "memory", "graph", "backend")
"""Columns of the table, after the name of the method."""


def comparison_rows(evaluation: Evaluation) -> list[tuple[str, list[str]]]:
    """Return a row for each method: its name and the cells of COMPARISON_COLUMNS, the best place first.

    A cell without a value is `-`; the name of a published method of a board ends in `(published)`.
    """
    speeds = {speed.label: speed for speed in evaluation.speeds}
    rows: list[tuple[str, list[str]]] = []
    ranking = evaluation.ranking
    for rank in () if ranking is None else ranking.ranks:
        place = [str(rank.place), f"{rank.score:.2f}"]
        if rank.is_published:
            rows.append((f"{rank.label} (published)", [*place, *_speed_cells(None)]))
        else:
            rows.append((rank.label, [*place, *_speed_cells(speeds.get(rank.label))]))
    for label in () if ranking is None else ranking.unranked:
        rows.append((label, ["-", "-", *_speed_cells(speeds.get(label))]))
    return rows


def _speed_cells(speed: BundleSpeed | None) -> list[str]:
    if speed is None:
        return ["-"] * 5
    if isinstance(speed.speed, TcmoaError):
        return [speed.facts.size, "not run", "-", speed.work, speed.backend]
    times = f"{speed.speed.p50_ms:.1f} ms"
    return [speed.facts.size, times, f"{speed.speed.peak_mb:.0f} MB", speed.work, speed.backend]


def comparison_notes(evaluation: Evaluation) -> list[str]:
    """Return what the columns of `comparison_rows` mean, and what limits the comparison."""
    ranking = evaluation.ranking
    if ranking is None:
        return []
    notes = [
        f"score: mean of the ranks among {len(ranking.ranks)} methods by {len(ranking.metrics)} metrics on "
        f"{ranking.num_pairs} pairs, 1 is best"
    ]
    if evaluation.speeds:
        notes.append(
            "time: median of a frame of the bundle's own size, on all cores; memory: peak of the process"
        )
    if len({speed.facts.size for speed in evaluation.speeds}) > 1:
        notes.append("the bundles have frames of different sizes: their times cannot be compared directly")
    if len({speed.facts.task for speed in evaluation.speeds}) > 1:
        tasks = ", ".join(f"{speed.label} {speed.facts.task}" for speed in evaluation.speeds)
        notes.append(f"the bundles are for different tasks: {tasks}")
    for speed in evaluation.speeds:
        if isinstance(speed.speed, TcmoaError):
            notes.append(f"{speed.label}: time not measured: {speed.speed}")
        elif not speed.speed.is_steady:
            notes.append(
                f"{speed.label}: times of the rounds differ by a factor of {speed.speed.spread:.2f}, the machine was "
                f"busy"
            )
    return notes
