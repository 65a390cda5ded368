"""Results kept between runs: one JSON line each in `cache.jsonl`, found by what they depend on.

The key of a result is a hash over both sources' bytes, all that decides the fused image, profile, metrics, and the
code that measures. What was renamed is still known, what was changed is measured again, and a line that was cut off
or damaged is as one that is not there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

import tcmoa_calibration
import tcmoa_runtime.images
from tcmoa_calibration.evaluate.measure import Measured, Plan
from tcmoa_runtime import __version__
from tcmoa_runtime.errors import InputError

CACHE: Final = "cache.jsonl"
FORMAT: Final = 1

_MEASURING: Final = (
    "metrics/*.py",
    "baselines.py",
    "luma.py",
    "evaluate/measure.py",
    "evaluate/entrants.py",
    "evaluate/pictures.py",
)


@cache
def code_hash() -> str:
    """SHA-256 over the version and the files that decide figures and pictures."""
    digest = hashlib.sha256(__version__.encode())
    folder = Path(tcmoa_calibration.__file__).parent
    files = [path for pattern in _MEASURING for path in sorted(folder.glob(pattern))]
    for path in (*files, Path(tcmoa_runtime.images.__file__)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def result_key(plan: Plan, contestant: Mapping[str, Any], x_hash: str, y_hash: str) -> str:
    """Hexadecimal SHA-256 over all that a result depends on; `contestant` as its fingerprint tells."""
    depends = {
        "format": FORMAT,
        "code": code_hash(),
        "profile": plan.profile,
        "metrics": sorted(plan.metrics),
        "x": x_hash,
        "y": y_hash,
        "contestant": dict(contestant),
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


class Cache:
    """The results in a folder; `pictures` is where their pictures have to be."""

    def __init__(self, folder: Path, pictures: Path) -> None:
        self.path, self.pictures = folder / CACHE, pictures
        self._known: dict[str, Measured] = {}
        self._complete = True
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from error
        self._complete = text.endswith(b"\n") or not text
        for line in text.splitlines():
            entry = _read_line(line)
            if entry is not None:
                self._known[entry[0]] = entry[1]

    def get(self, key: str, plan: Plan, contestant: int) -> Measured | None:
        """The result of that key, where it and its pictures are there; values in the order of the plan."""
        known = self._known.get(key)
        if known is None or known.values.keys() != set(plan.metrics):
            return None
        for picture in known.pictures.values():
            if not all((self.pictures / picture[which]).is_file() for which in ("file", "small")):
                return None
        values = {name: known.values[name] for name in plan.metrics}
        return Measured(**{**vars(known), "values": values, "contestant": contestant})

    def add(self, key: str, measured: Measured) -> None:
        """Append a result at once, so that an interrupted run keeps it; InputError where the disk is full."""
        line = json.dumps({"key": key, **asdict(measured)}, allow_nan=False).encode() + b"\n"
        if not self._complete:  # a run that was killed left half a line
            line, self._complete = b"\n" + line, True
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(handle, line)
            finally:
                os.close(handle)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from error


def _read_line(line: bytes) -> tuple[str, Measured] | None:
    """Key and result of a line; None where it is none of ours."""
    try:
        entry = json.loads(line)
        key = entry.pop("key")
        measured = Measured(**entry)
        values, skipped = measured.values, measured.skipped
        sound = isinstance(key, str) and measured.error is None
        sound &= all(v is None or type(v) in (int, float) for v in values.values())
        sound &= all(name in skipped for name, value in values.items() if value is None)
        for picture in measured.pictures.values():
            names = (picture["file"], picture["small"])
            sound &= all(isinstance(name, str) and Path(name).name == name for name in names)
            sound &= all(type(picture[side]) is int for side in ("width", "height"))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None
    return (key, measured) if sound else None
