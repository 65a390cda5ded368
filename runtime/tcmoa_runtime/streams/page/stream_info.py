"""What the page shows of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from tcmoa_runtime.location import redact
from tcmoa_runtime.streams.control import ControlState, StreamControl
from tcmoa_runtime.streams.stats import StatsSnapshot

if TYPE_CHECKING:
    from tcmoa_runtime.streams.stream import Stream


class StreamDescription(TypedDict):
    """What does not change while a stream runs, as JSON."""

    x: str
    y: str
    task: str
    roles: dict[str, str]
    backend: str
    live: bool
    width: int
    height: int
    sample_aspect_ratio: float
    prompt_count: int
    token_px: int | None
    has_prompt: bool


class BrowserStats(StatsSnapshot):
    """Statistics and the control state, as JSON."""

    control: ControlState


class StreamInfo:
    """A stream's control, description and statistics."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def control(self) -> StreamControl:
        """Control of the stream's prompt."""
        return self._stream.control

    def stats(self) -> StatsSnapshot:
        """Return the statistics so far, as JSON."""
        return self._stream.stats.snapshot()

    def browser_stats(self) -> BrowserStats:
        """Return the statistics so far and the control state, as JSON."""
        return {**self.stats(), "control": self.control.state()}

    def describe(self) -> StreamDescription:
        """Return what does not change while the stream runs."""
        bundle, stream_format = self._stream.fuser.bundle, self._stream.format
        return {
            "x": redact(self._stream.sources["x"].name),
            "y": redact(self._stream.sources["y"].name),
            "task": bundle.task,
            "roles": bundle.roles,
            "backend": self._stream.fuser.backend.name,
            "live": stream_format.live,
            "width": stream_format.width,
            "height": stream_format.height,
            "sample_aspect_ratio": float(stream_format.sample_aspect_ratio),
            "token_px": bundle.map_token,
            "has_prompt": bundle.has_prompt,
            "prompt_count": bundle.contract.prompts if bundle.contract.with_prompt else 0,
        }
