"""Progress on stderr: bars and a status line where a person watches, nothing in logs and pipes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False, emoji=False)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over `total` steps; the function given advances it by some."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda steps: bar.advance(task, steps)


@contextmanager
def status_line(what: str) -> Iterator[Callable[[str], None]]:
    """A spinner with a text that changes; in a log each text is a line of its own."""
    if not console.is_terminal:
        yield lambda text: console.print(f"{what}: {text}", markup=False)
        return
    with console.status(what) as status:
        yield lambda text: status.update(f"{what}: {text}")


@contextmanager
def phase_bar(what: str) -> Iterator[tuple[Callable[[str], None], Callable[[str, int, int], None]]]:
    """A bar for work in named phases: functions for a text, and for a phase's finished steps and how many it has."""
    if not console.is_terminal:
        yield lambda text: console.print(f"{what}: {text}", markup=False), lambda _name, _done, _of: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def say(text: str) -> None:
            bar.update(task, description=f"{what}: {text}", completed=0, total=None)

        def progress(name: str, done: int, of: int) -> None:
            bar.update(task, description=f"{what}: {name.lower()}", completed=done, total=of)

        yield say, progress


@contextmanager
def counted_bar(what: str) -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """A bar with the time that is left, whose number of steps may grow: functions for a line, and for the steps that
    are done and how many there are. Lines stay.
    """
    if not console.is_terminal:
        yield lambda text: console.print(f"{what}: {text}", markup=False), lambda _done, _of: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield (
            lambda text: bar.console.print(f"{what}: {text}", markup=False),
            lambda done, of: bar.update(task, completed=done, total=of),
        )


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    print(json.dumps(value, allow_nan=False))
