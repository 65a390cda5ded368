"""A line of JSON for each output frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat


class FrameLog:
    """A sink that writes one line a frame to a file as they come (`tail -f` shows them); an old file is replaced.

    Keys: `index`, `time` (s), `pts`, `status`, `reused`, `x` and `y` (their `index`, `pts`, `age_ms`; null where
    there is none), `latency_ms`. Raises InputError where the folder is missing.
    """

    lossless = True

    def __init__(self, path: Path) -> None:
        if not path.parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
        if path.is_dir():
            raise InputError(f"{path}: is a folder, expected a file name")
        self.name, self._path = str(path), path
        self._file: TextIO | None = None

    def open(self, form: StreamFormat) -> None:
        """Begin the file."""
        try:
            self._file = self._path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise SinkError(f"{self._path}: cannot be written: {error.strerror}") from error

    def write(self, frame: FusedFrame) -> None:
        """Write the line of a frame."""
        if self._file is None:
            raise SinkError(f"{self._path}: is not open")
        line = {
            "index": frame.index,
            "time": round(frame.time, 6),
            "pts": frame.pts,
            "status": frame.status,
            "reused": frame.reused,
            "x": _input(frame.x, frame.age_x),
            "y": _input(frame.y, frame.age_y),
            "latency_ms": round(frame.latency * 1000, 3),
        }
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise SinkError(f"{self._path}: cannot be written any more: {error.strerror}") from error

    def close(self) -> None:
        """End the file."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:
                raise SinkError(f"{self._path}: cannot be finished: {error.strerror}") from error


def _input(frame: Any, age: float | None) -> dict[str, Any] | None:
    if frame is None:
        return None
    return {"index": frame.index, "pts": frame.pts, "age_ms": None if age is None else round(age * 1000, 3)}
