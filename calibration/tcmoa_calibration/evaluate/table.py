"""An evaluation in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tcmoa_calibration.evaluate.confidence import METHOD, Interval
from tcmoa_calibration.evaluate.results import FLICKER_FIGURES, Evaluation, flicker_cells, shown
from tcmoa_calibration.metrics import METRICS


def print_tables(evaluation: Evaluation, console: Console) -> None:
    """Means of every metric by contestant, the best marked `*`; below, differences to the first contestant.

    As many contestants beside each other as the console is wide.
    """
    everybody = range(len(evaluation.contestants))
    for places in _that_fit(evaluation, everybody, console.width):
        table = _table(evaluation, places, "mean")
        for metric in evaluation.metrics:
            means, best = evaluation.means[metric], evaluation.best(metric)
            digits = evaluation.places(metric)
            cells = (_cell(means[i], digits, "*" if best[i] else "") for i in places)
            table.add_row(_named(metric), *cells)
        console.print(table)
    if evaluation.flicker:
        console.print(_flicker_table(evaluation))
    first = _plain(evaluation.contestants[0].label)
    for places in _that_fit(evaluation, everybody[1:], console.width):
        table = _table(evaluation, places, "difference to the first")
        for metric in evaluation.metrics:
            apart, digits = evaluation.differences[metric], evaluation.places(metric)
            verdicts = ((apart[i - 1], _verdict(metric, apart[i - 1])) for i in places)
            table.add_row(_named(metric), *(_cell(a, digits, verdict, sign=True) for a, verdict in verdicts))
        console.print(table)
    for line in _notes(evaluation, first):
        console.print(Text(line), soft_wrap=True)


def _flicker_table(evaluation: Evaluation) -> Table:
    """Contestants by row: what still places do, in grey levels."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("flicker", no_wrap=True)
    for name in FLICKER_FIGURES:
        table.add_column(name, justify="right")
    for label, found in evaluation.flicker.items():
        table.add_row(Text(_plain(label)), *flicker_cells(found))
    return table


def _notes(evaluation: Evaluation, first: str) -> Iterator[str]:
    profile, many = evaluation.profile, len(evaluation.contestants) > 1
    counts = sorted({mean.n for means in evaluation.means.values() for mean in means})
    images = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    told = f"profile {profile}; ± {METHOD}; n {images} of {len(evaluation.pairs)} pairs"
    yield f"{told}; * best mean" if many else told
    if many:
        yield (
            f"differences to {first} on the same images: + better, - worse, = not told apart; one in twenty seems "
            f"real by chance"
        )
    if evaluation.flicker:
        yield "flicker in grey levels of still places, lower is better: excess and pumping are beyond both sources"
        yield from {found.missing for found in evaluation.flicker.values() if found.missing}
    if evaluation.uneven:
        yield "not all have figures for the same images: compare them by the differences"
    if evaluation.stretched:
        yield f"{len(evaluation.stretched)} pairs have 16-bit sources, stretched to 8 bits first"
    for entry in evaluation.contestants:
        if entry.resized:
            yield (
                f"{_plain(entry.label)}: {len(entry.resized)} of {len(entry.images)} pairs were resized to the "
                f"bundle's frame and back"
            )
    for metric in evaluation.metrics:
        reasons = [
            s[metric] for entry in evaluation.contestants for s in entry.skipped.values() if metric in s
        ]
        if reasons:
            yield f"{metric}: {len(reasons)} figures left out: {reasons[0]}"


def _table(evaluation: Evaluation, places: Sequence[int], what: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(what, no_wrap=True)
    for i in places:
        table.add_column(Text(_plain(evaluation.contestants[i].label)), justify="right", overflow="fold")
    return table


def _that_fit(evaluation: Evaluation, places: Sequence[int], width: int) -> Iterator[Sequence[int]]:
    """Groups of contestants whose columns fit the width, at least one each."""
    group: list[int] = []
    for i in places:
        if group and 25 + sum(_width(evaluation, j) for j in (*group, i)) > width:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _width(evaluation: Evaluation, place: int) -> int:
    """Characters that a contestant's column wants."""
    return max(24, min(40, len(evaluation.contestants[place].label) + 2))


def _named(metric: str) -> str:
    return f"{metric} {'↑' if METRICS[metric].higher_is_better else '↓'}"


def _cell(interval: Interval, digits: int, mark: str, *, sign: bool = False) -> Text:
    text = shown(interval, digits, sign=sign)
    return Text(f"{text} {mark or ' '}", style="bold" if mark in ("*", "+") else "")


def _verdict(metric: str, difference: Interval) -> str:
    if difference.mean is None or not difference.excludes_zero:
        return "="
    return "+" if (difference.mean > 0) == METRICS[metric].higher_is_better else "-"


def _plain(text: str) -> str:
    """What a label may do to a terminal, taken away."""
    return "".join(c if c.isprintable() else "?" for c in text)
