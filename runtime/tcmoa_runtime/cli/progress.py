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


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    print(json.dumps(value, allow_nan=False))
