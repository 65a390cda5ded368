"""Whether a video file holds all frames that its container promises."""

from __future__ import annotations

import re
from typing import Any, Final

_TOLERANCE_FRAMES: Final = 2.5
"""Frames by which a file may be shorter than stated: containers round, and decoders may drop a frame at either end."""
_PLAYLISTS: Final = ("hls", "dash", "concat")
"""Formats whose durations are sums of rounded ones."""
_TAG: Final = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")


class Extent:
    """The end that a container states for its video, and how far its frames reach.

    The duration of the video stream counts, as audio may be longer. Matroska states it by a tag. That of the container
    counts if there is no other stream.
    """

    def __init__(self, container: Any, stream: Any, interval: float) -> None:
        """Read the headers; `interval` is that of frames, in seconds."""
        self._interval = interval
        self._end = 0.0
        self._start = float((stream.start_time or 0) * (stream.time_base or 0))
        self._stated = _stated_end(container, stream, self._start)

    def add(self, time: float, frame: Any) -> None:
        """Add a frame of PyAV and its time in seconds."""
        duration = float((frame.duration or 0) * (frame.time_base or 0))
        self._end = max(self._end, time + (duration or self._interval))

    def frames_promised(self, count: int) -> int:
        """Return how many frames were promised, if clearly more than the `count` that could be decoded; else 0."""
        missing = 0.0 if self._stated is None else (self._stated - self._end) / self._interval
        return count + round(missing) if missing > _TOLERANCE_FRAMES else 0

    def describe(self) -> str:
        """Describe how far the frames reach, e.g. `2.2 of 4.0 s`."""
        reached = self._end - self._start
        if self._stated is None:
            return f"{reached:.1f} s"
        return f"{reached:.1f} of {self._stated - self._start:.1f} s"


def _stated_end(container: Any, stream: Any, start: float) -> float | None:
    """Return the time in seconds at which the video is to end, None if the container does not state it exactly."""
    if container.format.name in _PLAYLISTS:
        return None
    if container.format.name == "avi":
        # It takes its duration from the bytes that are there, but states the number of frames, also of dropped ones.
        rate = stream.average_rate
        return start + float(stream.frames / rate) if stream.frames and rate else None
    if stream.duration:
        return start + float(stream.duration * stream.time_base)
    tag = _TAG.match(stream.metadata.get("DURATION", ""))
    if tag is not None:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    if container.duration and len(container.streams) == 1:
        return start + float(container.duration) / 1e6
    return None
