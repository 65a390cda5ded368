"""A log with one line of JSON for each fused frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TextIO

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.location import printable
from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, SourceFrame, StreamFormat
from tcmoa_runtime.typing import JsonObject


class FrameLog:
    """A sink that writes one line for each frame; each line is flushed, so `tail -f` follows the stream.

    Keys: `index`, `time` (seconds), `pts`, `status`, `reused`, `x` and `y` (`index`, `pts` and `age_ms` of the
    source's frame, or null), `latency_ms`. An existing file is replaced.
    """

    lossless = True

    def __init__(self, path: Path) -> None:
        """Check the path.

        Raises:
            InputError: The path is a folder, or its folder does not exist.
        """
        if not path.parent.is_dir():
            raise InputError(
                f"the folder {path.parent} does not exist", subject=path, remedy="Create the folder first."
            )
        if path.is_dir():
            raise InputError("a folder; expected a file name", subject=path)
        self.name, self._path = printable(str(path)), path
        self.paths = (path,)
        self._file: TextIO | None = None

    def open(self, stream_format: StreamFormat) -> None:
        """Create the file."""
        try:
            self._file = self._path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise SinkError(f"cannot be written: {error.strerror}", subject=self._path) from error

    def write(self, frame: FusedFrame) -> None:
        """Write the line of a frame."""
        if self._file is None:
            raise SinkError("is not open", subject=self._path)
        line = {
            "index": frame.index,
            "time": round(frame.time, 6),
            "pts": frame.pts,
            "status": frame.status,
            "reused": frame.reused,
            "x": _describe_input(frame.x, frame.age_x),
            "y": _describe_input(frame.y, frame.age_y),
            "latency_ms": round(frame.latency * 1000, 3),
        }
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise SinkError(f"writing failed: {error.strerror}", subject=self._path) from error

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:
                raise SinkError(f"cannot be completed: {error.strerror}", subject=self._path) from error


def _describe_input(frame: SourceFrame | None, age: float | None) -> JsonObject | None:
    if frame is None:
        return None
    return {"index": frame.index, "pts": frame.pts, "age_ms": None if age is None else round(age * 1000, 3)}
