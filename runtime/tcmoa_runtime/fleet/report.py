"""What a stream of a fleet reports about itself, as JSON."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, TypedDict

from tcmoa_runtime.streams.stats import StatsSnapshot

PairState: TypeAlias = Literal[
    "running", "stalled", "starting", "waiting", "pending", "lost", "stopping", "ended", "failed"
]
"""State of the stream of a pair.

running: it emits frames. stalled: it is open, but no frame has come for some seconds. starting: it opens its sources.
waiting: it has failed and is started again after a pause. pending: no node has room for it yet. lost: its process does
not answer; Ray restarts it, on another node if its own is gone. stopping: it completes its files. ended: its files have
ended. failed: it has failed and is not to be restarted.
"""

STATES: Final[tuple[PairState, ...]] = (
    "failed", "lost", "waiting", "stalled", "pending", "starting", "stopping", "running", "ended",
)  # fmt: skip
"""All states, the ones that need attention first."""


class NodeInfo(TypedDict):
    """The node that a stream runs on.

    Attributes:
        id: Ray's number of the node.
        ip: Its address.
        host: Its name.
    """

    id: str
    ip: str
    host: str


class SupervisorInfo(TypedDict):
    """The process that watches a fleet.

    Attributes:
        id: Number of this run; that of an earlier one is less.
        host: Name of its machine.
        pid: Number of its process.
    """

    id: str
    host: str
    pid: int


class PairReport(TypedDict):
    """What the process of a stream says.

    Attributes:
        name: Name of the pair.
        digest: `Pair.digest` of what is run, with the hash of the bundle.
        state: State of the stream.
        state_s: Seconds in this state.
        message: What it is doing, e.g. `opening rtsp://camera/live`; None while it runs.
        error: Why it failed last, in one line, None if it did not; kept until the next frame.
        retry_s: Seconds until it is started again, in state waiting.
        start_count: How often the stream was started in this process.
        process_s: Age of the process in seconds.
        pid: Number of the process.
        node: Where it runs.
        page: URL of its live page, with the token if one is required; None while there is none.
        x: Source x, without password.
        y: Source y.
        outs: Outputs as they are written now, without passwords.
        live: Whether a source is live; None until it is known.
        size: Width and height of the frames in pixels; None until they are known.
        frame_s: Seconds since the newest frame.
        age_ms: Age of the older input of the newest frame when it was emitted, for live sources.
        stats: Statistics of the stream; None before its first start.
        supervisor: Who else watches the fleet, None if that is only who asks.
        is_fleet_stopping: Whether the whole fleet is being stopped.
    """

    name: str
    digest: str
    state: PairState
    state_s: float
    message: str | None
    error: str | None
    retry_s: float | None
    start_count: int
    process_s: float
    pid: int
    node: NodeInfo
    page: str | None
    x: str
    y: str
    outs: list[str]
    live: bool | None
    size: list[int] | None
    frame_s: float | None
    age_ms: float | None
    stats: StatsSnapshot | None
    supervisor: SupervisorInfo | None
    is_fleet_stopping: bool
