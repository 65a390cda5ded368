"""Progress on stderr: bars and a status line on a terminal, plain lines in logs and pipes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tcmoa_runtime.typing import OnMessage

console = Console(stderr=True, highlight=False, emoji=False)


def _print_message(title: str) -> OnMessage:
    return lambda text: console.print(f"{title}: {text}", markup=False)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar over `total` steps; yields a function that advances it by a number of steps."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)


@contextmanager
def status_line(title: str) -> Iterator[OnMessage]:
    """Show a spinner; yields a function that changes its text. In a log each text is a line."""
    if not console.is_terminal:
        yield _print_message(title)
        return
    with console.status(title) as status:
        yield lambda text: status.update(f"{title}: {text}")


@contextmanager
def phase_bar(title: str) -> Iterator[tuple[OnMessage, Callable[[str, int, int], None]]]:
    """Show a bar for work in named phases.

    Yields:
        A function that takes a message, and one that takes the name of a phase, its finished steps and their total.
    """
    if not console.is_terminal:
        yield _print_message(title), lambda _name, _done, _total: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def on_message(text: str) -> None:
            bar.update(task, description=f"{title}: {text}", completed=0, total=None)

        def on_progress(name: str, done: int, total: int) -> None:
            bar.update(task, description=f"{title}: {name.lower()}", completed=done, total=total)

        yield on_message, on_progress


@contextmanager
def counted_bar(title: str) -> Iterator[tuple[OnMessage, Callable[[int, int], None]]]:
    """Show a bar with the remaining time below lines that stay; its total may grow.

    Yields:
        A function that prints a line, and one that takes the number of finished steps and their total.
    """
    if not console.is_terminal:
        yield _print_message(title), lambda _done, _total: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield (
            lambda text: bar.console.print(f"{title}: {text}", markup=False),
            lambda done, total: bar.update(task, completed=done, total=total),
        )


def print_json(value: Mapping[str, object]) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(value, allow_nan=False))
