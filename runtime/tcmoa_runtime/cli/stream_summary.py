"""Statistics of `tcmoa stream`: a line while it runs, and a summary at the end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

from tcmoa_runtime.cli.options import spell_for_command_line
from tcmoa_runtime.cli.printing import is_interactive
from tcmoa_runtime.cli.progress import status_line
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.options.stream import Offset
from tcmoa_runtime.streams.stats import DurationSummary, StatsSnapshot
from tcmoa_runtime.streams.stream import Stream

Ended: TypeAlias = Literal["end", "stopped", "error"]
"""Why a stream ended: its sources ended, the user stopped it, or an error."""

_TERMINAL_SECONDS: Final = 0.5
_LOG_SECONDS: Final = 10.0


class StreamSummary(StatsSnapshot):
    """The JSON object of `tcmoa stream --json`: what was run, and its statistics."""

    backend: str
    live: bool
    size: list[int]
    ended: Ended
    offset: Offset
    reuse: float | None
    outputs: list[str]
    failed_outputs: dict[str, str]
    notes: list[str]
    error: str | None


@contextlib.contextmanager
def show_progress(stream: Stream) -> Iterator[None]:
    """Show a line of statistics on stderr: twice a second on a terminal, every ten seconds in a log."""
    done = threading.Event()
    interval = _TERMINAL_SECONDS if is_interactive() else _LOG_SECONDS

    with status_line("stream") as on_message:

        def update() -> None:
            while not done.wait(interval):
                on_message(_format_progress(stream.stats.snapshot()))

        thread = threading.Thread(target=update, name="tcmoa-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(5)


def summarize(stream: Stream, ended: Ended) -> StreamSummary:
    """Return the summary of a stream that has ended."""
    return {
        "backend": stream.fuser.backend.name,
        "live": stream.live,
        "size": [stream.format.height, stream.format.width],
        "ended": ended,
        "offset": stream.options.offset,
        "reuse": stream.options.reuse,
        **stream.stats.snapshot(),
        "outputs": [sink.name for sink in stream.sinks],
        "failed_outputs": {name: _render(error) for name, error in stream.failed_outputs.items()},
        "notes": list(stream.notes),
        "error": None if stream.error is None else _render(stream.error),
    }


def _render(error: Exception) -> str:
    return error.render(spell_for_command_line) if isinstance(error, TcmoaError) else str(error)


def format_summary(summary: StreamSummary) -> str:
    """Format a summary as one line."""
    parts = [f"{summary['frames']} frames in {summary['seconds']:.1f} s ({summary['rate'] or 0:.1f}/s)"]
    if summary["reuse"] is not None:
        parts.append(f"{summary['reused']} reused")
    parts.extend(f"{count} {status}" for status, count in summary["status"].items() if status != "fused")
    parts.extend(f"{count} {cause}" for cause, count in summary["dropped"].items())
    outputs = ", ".join(summary["outputs"]) or "no output"
    latency = f"latency p50 {_format_median(summary['latency_ms'])} ms"
    return f"{outputs}: {', '.join(parts)}, {latency} ({summary['backend']})"


def _format_progress(snapshot: StatsSnapshot) -> str:
    age, statuses = snapshot["input_age_ms"], snapshot["status"]
    unfused = [f"{status} {count}" for status, count in sorted(statuses.items()) if status != "fused"]
    parts = [
        f"{snapshot['frames']} frames",
        f"{snapshot['rate_now'] or 0:.1f}/s",
        f"latency {_format_median(snapshot['latency_ms'])} ms",
        f"age x {_format_median(age['x'])} y {_format_median(age['y'])} ms",
        f"dropped {sum(snapshot['dropped'].values())}",
    ]
    return ", ".join([*parts, *unfused])


def _format_median(summary: DurationSummary) -> str:
    median = summary["p50"]
    return "-" if median is None else f"{median:.0f}"
