"""What `tcmoa stream` tells of itself: a line while it runs, a line and JSON at the end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Final

from tcmoa_runtime.cli.progress import console, status_line
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.streams.stats import Stats
from tcmoa_runtime.streams.stream import Offset, Stream

_WATCHED_SECONDS: Final = 0.5
_LOGGED_SECONDS: Final = 10.0


@contextlib.contextmanager
def progress(stats: Stats) -> Iterator[None]:
    """A line of stats on stderr: twice a second where a person watches, each ten seconds in a log."""
    done = threading.Event()

    with status_line("stream") as say:

        def tell() -> None:
            every = _WATCHED_SECONDS if console.is_terminal else _LOGGED_SECONDS
            while not done.wait(every):
                say(_line(stats.snapshot()))

        thread = threading.Thread(target=tell, name="tcmoa-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(5)


def _ms(stats: dict[str, Any], key: str = "p50") -> str:
    return "-" if stats[key] is None else f"{stats[key]:.0f}"


def _line(snapshot: dict[str, Any]) -> str:
    """The stats of now on one line."""
    age, statuses = snapshot["input_age_ms"], snapshot["status"]
    other = ", ".join(f"{status} {count}" for status, count in sorted(statuses.items()) if status != "fused")
    dropped = sum(snapshot["dropped"].values())
    return (
        f"{snapshot['frames']} frames, {snapshot['rate_now'] or 0:.1f}/s, latency {_ms(snapshot['latency_ms'])} ms, "
        f"age x {_ms(age['x'])} y {_ms(age['y'])} ms, dropped {dropped}" + (f", {other}" if other else "")
    )


def summary(running: Stream, stats: Stats, fuser: Fuser, ended: str, offset: Offset) -> dict[str, Any]:
    """All that is known at the end, for `--json`; `ended` is end, stopped or error."""
    form = running.format
    return {
        "backend": fuser.backend.name,
        "live": running.live,
        "size": [form.height, form.width],
        "ended": ended,
        "offset": offset,
        "reuse": running.reuse,
        **stats.snapshot(),
        "outputs": [sink.name for sink in running.sinks],
        "notes": list(running.notes),
        "error": None if running.error is None else str(running.error),
    }


def told(result: dict[str, Any]) -> str:
    """The end of the story for people, on one line."""
    parts = [f"{result['frames']} frames in {result['seconds']:.1f} s ({result['rate'] or 0:.1f}/s)"]
    if result["reuse"] is not None:
        parts.append(f"{result['reused']} reused")
    parts.extend(f"{count} {status}" for status, count in result["status"].items() if status != "fused")
    parts.extend(f"{count} {cause}" for cause, count in result["dropped"].items())
    where = ", ".join(result["outputs"]) or "nowhere"
    return f"{where}: {', '.join(parts)}, latency p50 {_ms(result['latency_ms'])} ms ({result['backend']})"
