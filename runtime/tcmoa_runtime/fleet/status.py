"""The state of a fleet as JSON, for the command line, the page and programs."""

from __future__ import annotations

from typing import TypedDict

from tcmoa_runtime.fleet.report import NodeInfo, PairState, SupervisorInfo
from tcmoa_runtime.fleet.supervisor import FleetStatus, PairStatus
from tcmoa_runtime.streams.stats import StatsSnapshot


class PairJson(TypedDict):
    """A pair of a fleet, as JSON.

    Attributes:
        name: Name of the pair.
        state: State of its stream, see `report.PairState`.
        state_s: Seconds in this state.
        message: What it waits for, or is doing; None while it runs.
        error: Why it failed last, in one line; None if it did not, or runs again.
        retry_s: Seconds until it is started again, in state waiting.
        node: Where it runs, or ran last; None before it runs.
        pid: Number of its process.
        page: URL of its live page, with the token if one is required.
        x: Source x, without password.
        y: Source y.
        outs: Outputs as they are written now, without passwords.
        live: Whether a source is live.
        size: Width and height of the frames in pixels.
        rate: Frames per second over the last five seconds.
        age_ms: Age of the older input of the newest frame when it was emitted; None for files.
        frame_s: Seconds since the newest frame.
        frames: Frames since the stream was started last.
        dropped: Frames dropped since then.
        start_count: How often its process has started the stream.
        process_s: Age of the process in seconds.
    """

    name: str
    state: PairState
    state_s: float
    message: str | None
    error: str | None
    retry_s: float | None
    node: NodeInfo | None
    pid: int | None
    page: str | None
    x: str | None
    y: str | None
    outs: list[str]
    live: bool | None
    size: list[int] | None
    rate: float | None
    age_ms: float | None
    frame_s: float | None
    frames: int
    dropped: int
    start_count: int
    process_s: float | None


class PairDetailsJson(PairJson):
    """A pair of a fleet with all statistics, as JSON; they are those of `tcmoa stream`."""

    stats: StatsSnapshot | None


class FleetJson(TypedDict):
    """A fleet, as JSON.

    Attributes:
        fleet: Name of the fleet.
        supervisor: Who watches it; None if no one does.
        file_error: Why the file that is there now was refused, in one line; None if it was not.
        age_s: Seconds since this was so: more than a few while Ray does not answer.
        counts: Number of pairs in each state that occurs.
        pairs: The pairs.
    """

    fleet: str
    supervisor: SupervisorInfo | None
    file_error: str | None
    age_s: float
    counts: dict[PairState, int]
    pairs: list[PairJson]


def describe_fleet(status: FleetStatus) -> FleetJson:
    """Return a fleet as JSON."""
    return {
        "fleet": status.fleet,
        "supervisor": status.supervisor,
        "file_error": status.file_error,
        "age_s": round(status.age_s, 3),
        "counts": status.counts(),
        "pairs": [describe_pair(pair) for pair in status.pairs],
    }


def describe_pair(pair: PairStatus) -> PairJson:
    """Return a pair as JSON."""
    report = pair.report
    stats = None if report is None else report["stats"]
    is_shown = pair.state in ("running", "stalled")
    return {
        "name": pair.name,
        "state": pair.state,
        "state_s": round(pair.state_s, 3),
        "message": pair.message,
        "error": None if report is None else report["error"],
        "retry_s": report["retry_s"] if report is not None and pair.state == "waiting" else None,
        "node": None if report is None else report["node"],
        "pid": None if report is None else report["pid"],
        "page": report["page"] if report is not None and is_shown else None,
        "x": None if report is None else report["x"],
        "y": None if report is None else report["y"],
        "outs": [] if report is None else report["outs"],
        "live": None if report is None else report["live"],
        "size": None if report is None else report["size"],
        "rate": stats["rate_now"] if stats is not None and is_shown else None,
        "age_ms": report["age_ms"] if report is not None and is_shown else None,
        "frame_s": None if report is None else report["frame_s"],
        "frames": 0 if stats is None else stats["frames"],
        "dropped": 0 if stats is None else sum(stats["dropped"].values()),
        "start_count": 0 if report is None else report["start_count"],
        "process_s": None if report is None else report["process_s"],
    }


def describe_details(pair: PairStatus) -> PairDetailsJson:
    """Return a pair with all statistics as JSON."""
    return {**describe_pair(pair), "stats": None if pair.report is None else pair.report["stats"]}
