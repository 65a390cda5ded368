"""Progress on stderr: bars and a status line on a terminal, plain lines in logs and pipes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tcmoa_runtime.cli.printing import console, is_interactive, print_message, printable
from tcmoa_runtime.typing import OnMessage

LINE_SECONDS: Final = 5.0
"""Time between two lines of progress where there is no terminal."""


def _print_message(title: str) -> OnMessage:
    return lambda text: print_message(f"{title}: {text}")


class _ProgressLines:
    """Prints a line every few seconds, e.g. `bulk: 120 of 4100, 5.3 pairs/s, 12:30 left`."""

    def __init__(self, title: str, unit: str | None) -> None:
        self._title, self._unit = title, unit
        self._start = self._printed = time.monotonic()
        self._before: int | None = None if unit else 0

    def update(self, done: int, total: int) -> None:
        """Print a line if the last one is old enough, and steps are left; a rate counts from the first steps."""
        now = time.monotonic()
        if self._before is None and done:
            self._before, self._start = done, now
        if now - self._printed < LINE_SECONDS or done >= total:
            return
        self._printed = now
        counted, seconds = done - (self._before or 0), now - self._start
        rate = f", {counted / seconds:.1f} {self._unit}/s" if self._unit and counted and seconds else ""
        left = f", {_format_time(seconds * (total - done) / counted)} left" if counted else ""
        print_message(f"{self._title}: {done} of {total}{rate}{left}")


class _RateColumn(ProgressColumn):
    """Shows the rate of the steps, e.g. `5.3 pairs/s`."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Render the rate of a bar."""
        return Text("" if task.speed is None else f"{task.speed:.1f} {self._unit}/s")


def _format_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar over `total` steps; yields a function that advances it by a number of steps."""
    done = 0
    with counted_bar(title) as (_, on_progress):

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            on_progress(done, total)

        on_progress(0, total)
        yield advance


@contextmanager
def status_line(title: str) -> Iterator[OnMessage]:
    """Show a spinner; yields a function that changes its text. In a log each text is a line."""
    if not is_interactive():
        yield _print_message(title)
        return
    with console.status(title) as status:
        yield lambda text: status.update(escape(printable(f"{title}: {text}")))


@contextmanager
def phase_bar(title: str) -> Iterator[tuple[OnMessage, Callable[[str, int, int], None]]]:
    """Show a bar for work in named phases.

    Yields:
        A function that takes a message, and one that takes the name of a phase, its finished steps and their total.
    """
    if not is_interactive():
        yield _print_message(title), lambda _name, _done, _total: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def on_message(text: str) -> None:
            bar.update(task, description=printable(f"{title}: {text}"), completed=0, total=None)

        def on_progress(name: str, done: int, total: int) -> None:
            text = printable(f"{title}: {name.lower()}")
            bar.update(task, description=text, completed=done, total=total)

        yield on_message, on_progress


@contextmanager
def counted_bar(
    title: str, *, unit: str | None = None
) -> Iterator[tuple[OnMessage, Callable[[int, int], None]]]:
    """Show a bar with the remaining time below lines that stay; its total may grow. In a log, print some lines.

    Args:
        title: What is done.
        unit: What the steps are; shows their rate.

    Yields:
        A function that prints a line, and one that takes the number of finished steps and their total.
    """
    if not is_interactive():
        yield _print_message(title), _ProgressLines(title, unit).update
        return
    rate = (_RateColumn(unit),) if unit else ()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *rate,
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield (
            _print_message(title),
            lambda done, total: bar.update(task, completed=done, total=total),
        )
