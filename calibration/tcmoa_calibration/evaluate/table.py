"""An evaluation as tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tcmoa_calibration.evaluate.comparison import COMPARISON_COLUMNS, comparison_notes, comparison_rows
from tcmoa_calibration.evaluate.confidence import DESCRIPTION, Interval
from tcmoa_calibration.evaluate.results import FLICKER_COLUMNS, Evaluation, format_flicker, format_interval
from tcmoa_calibration.metrics import METRICS

_FIRST_COLUMN_WIDTH: Final = 25
_MIN_COLUMN_WIDTH: Final = 24
_MAX_COLUMN_WIDTH: Final = 40


def print_tables(evaluation: Evaluation, console: Console) -> None:
    """Print the mean of every metric by method, the best one marked `*`, and the differences to the first method.

    A table has as many methods as fit the width of the console.
    """
    indices = range(len(evaluation.methods))
    for group in _groups_that_fit(evaluation, indices, console.width):
        table = _make_table(evaluation, group, "mean")
        for metric in evaluation.metrics:
            means, best = evaluation.means[metric], evaluation.is_best(metric)
            decimals = evaluation.decimals(metric)
            cells = (_cell(means[i], decimals, "*" if best[i] else "") for i in group)
            table.add_row(_metric_title(metric), *cells)
        console.print(table)
    if evaluation.ranking is not None:
        console.print(_comparison_table(evaluation))
    if evaluation.flicker:
        console.print(_flicker_table(evaluation))
    for group in _groups_that_fit(evaluation, indices[1:], console.width):
        table = _make_table(evaluation, group, "difference to the first")
        for metric in evaluation.metrics:
            differences, decimals = evaluation.differences[metric], evaluation.decimals(metric)
            chosen = [differences[i - 1] for i in group]
            cells = (_cell(d, decimals, _mark(metric, d), sign=True) for d in chosen)
            table.add_row(_metric_title(metric), *cells)
        console.print(table)
    for line in _notes(evaluation):
        console.print(Text(line), soft_wrap=True)


def _flicker_table(evaluation: Evaluation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("flicker", no_wrap=True)
    for name in FLICKER_COLUMNS:
        table.add_column(name, justify="right")
    for label, flicker in evaluation.flicker.items():
        table.add_row(Text(_printable(label)), *format_flicker(flicker))
    return table


def _comparison_table(evaluation: Evaluation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("side by side", overflow="fold")
    for name in COMPARISON_COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for label, cells in comparison_rows(evaluation):
        table.add_row(Text(_printable(label)), *cells)
    return table


def _notes(evaluation: Evaluation) -> Iterator[str]:
    is_comparison = len(evaluation.methods) > 1
    counts = sorted({mean.n for means in evaluation.means.values() for mean in means})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    best = "; * best mean" if is_comparison else ""
    yield f"profile {evaluation.profile}; ± {DESCRIPTION}; n {n} of {len(evaluation.pairs)} pairs{best}"
    if is_comparison:
        first = _printable(evaluation.methods[0].label)
        yield (
            f"differences to {first} on the same pairs: + better, - worse, = not significant; one in twenty is "
            f"significant by chance"
        )
    yield from map(_printable, comparison_notes(evaluation))
    if evaluation.flicker:
        yield (
            "flicker of still pixels in gray levels, lower is better; excess and pumping are changes beyond both "
            "sources"
        )
        yield from {flicker.missing for flicker in evaluation.flicker.values() if flicker.missing}
    if evaluation.has_unequal_pairs:
        yield "methods were measured on different pairs: compare them by the differences"
    if evaluation.stretched:
        yield f"{len(evaluation.stretched)} pairs have 16-bit sources, which were stretched to 8 bits"
    for method in evaluation.methods:
        if method.resized:
            yield (
                f"{_printable(method.label)}: {len(method.resized)} of {len(method.images)} pairs were resized to "
                f"the bundle's frame and back"
            )
    for metric in evaluation.metrics:
        reasons = [
            skipped[metric]
            for method in evaluation.methods
            for skipped in method.skipped.values()
            if metric in skipped
        ]
        if reasons:
            yield f"{metric}: {len(reasons)} values missing: {reasons[0]}"


def _make_table(evaluation: Evaluation, group: Sequence[int], title: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, no_wrap=True)
    for i in group:
        table.add_column(Text(_printable(evaluation.methods[i].label)), justify="right", overflow="fold")
    return table


def _groups_that_fit(evaluation: Evaluation, indices: Sequence[int], width: int) -> Iterator[Sequence[int]]:
    """Group methods whose columns fit the width, at least one in each group."""
    group: list[int] = []
    for i in indices:
        if group and _FIRST_COLUMN_WIDTH + sum(_column_width(evaluation, j) for j in (*group, i)) > width:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _column_width(evaluation: Evaluation, index: int) -> int:
    return max(_MIN_COLUMN_WIDTH, min(_MAX_COLUMN_WIDTH, len(evaluation.methods[index].label) + 2))


def _metric_title(metric: str) -> str:
    return f"{metric} {'↑' if METRICS[metric].higher_is_better else '↓'}"


def _cell(interval: Interval, decimals: int, mark: str, *, sign: bool = False) -> Text:
    text = format_interval(interval, decimals, sign=sign)
    return Text(f"{text} {mark or ' '}", style="bold" if mark in ("*", "+") else "")


def _mark(metric: str, difference: Interval) -> str:
    if difference.mean is None or not difference.excludes_zero:
        return "="
    return "+" if (difference.mean > 0) == METRICS[metric].higher_is_better else "-"


def _printable(text: str) -> str:
    """Replace characters with which a label could control the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
