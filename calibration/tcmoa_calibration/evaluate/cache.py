"""Measurements kept between runs: one JSON line each in `cache.jsonl`, found by what they depend on.

The key of a measurement is a hash over the bytes of both sources, everything that decides the fused image, the profile,
the metrics, and the code that measures. A renamed file keeps its measurement, a changed one is measured again, and a
damaged line is ignored.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Final

import tcmoa_calibration
from tcmoa_calibration.evaluate.measure import Measurement, MeasureSettings
from tcmoa_calibration.evaluate.pictures import Picture
from tcmoa_runtime import __version__, alignment, fit, host_fusion, images
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.typing import JsonObject

FILE_NAME: Final = "cache.jsonl"
FORMAT_VERSION: Final = 2

_MEASURING_CODE: Final = (
    "metrics/*.py",
    "baselines/*.py",
    "luma.py",
    "evaluate/measure.py",
    "evaluate/registration.py",
    "evaluate/runners.py",
    "evaluate/pictures.py",
)


@cache
def code_hash() -> str:
    """Compute the SHA-256 over the version and the files that decide metrics and pictures."""
    digest = hashlib.sha256(__version__.encode())
    folder = Path(tcmoa_calibration.__file__).parent
    paths = [path for pattern in _MEASURING_CODE for path in sorted(folder.glob(pattern))]
    paths += [Path(inspect.getfile(module)) for module in (alignment, images, fit, host_fusion)]
    for path in paths:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def measurement_key(settings: MeasureSettings, fingerprint: JsonObject, x_hash: str, y_hash: str) -> str:
    """Compute the hexadecimal SHA-256 over everything that a measurement depends on.

    Args:
        settings: Profile and metrics.
        fingerprint: What decides the fused image, see `Method.fingerprint`.
        x_hash: SHA-256 of the file of x.
        y_hash: SHA-256 of the file of y.
    """
    depends_on: JsonObject = {
        "format": FORMAT_VERSION,
        "code": code_hash(),
        "profile": settings.profile,
        "metrics": sorted(settings.metrics),
        "x": x_hash,
        "y": y_hash,
        "method": fingerprint,
    }
    if settings.registration is not None:
        depends_on["registration"] = settings.registration.key
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


class MeasurementCache:
    """The measurements of a results folder."""

    def __init__(self, path: Path, pictures: Path) -> None:
        """Read a cache.

        Args:
            path: The file; it need not exist.
            pictures: Folder of the pictures: a measurement whose pictures are gone is not used.

        Raises:
            InputError: The file cannot be read.
        """
        self._path, self._pictures = path, pictures
        self._measurements: dict[str, Measurement] = {}
        self._ends_with_newline = True
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", subject=path) from error
        self._ends_with_newline = text.endswith(b"\n") or not text
        for line in text.splitlines():
            entry = _parse_line(line)
            if entry is not None:
                self._measurements[entry[0]] = entry[1]

    def get(self, key: str, settings: MeasureSettings) -> Measurement | None:
        """Return a measurement, with its values in the order of the settings; None if it or a picture is missing."""
        known = self._measurements.get(key)
        if known is None or known.values.keys() != set(settings.metrics):
            return None
        for picture in known.pictures.values():
            if not all((self._pictures / name).is_file() for name in (picture.file, picture.small)):
                return None
        values: dict[str, float | None] = {name: known.values[name] for name in settings.metrics}
        return Measurement(values, known.skipped, known.resized, known.stretched, known.pictures)

    def add(self, key: str, measurement: Measurement) -> None:
        """Append a measurement at once, so that an interrupted run keeps it.

        Raises:
            InputError: The file cannot be written, e.g. because the disk is full.
        """
        line = json.dumps({"key": key, **asdict(measurement)}, allow_nan=False).encode() + b"\n"
        if not self._ends_with_newline:  # a killed run left an incomplete line
            line, self._ends_with_newline = b"\n" + line, True
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(handle, line)
            finally:
                os.close(handle)
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror}", subject=self._path) from error


def _parse_line(line: bytes) -> tuple[str, Measurement] | None:
    """Return the key and measurement of a line; None if it is damaged."""
    try:
        entry = json.loads(line)
        key = entry.pop("key")
        pictures = {kind: Picture(**picture) for kind, picture in entry.pop("pictures").items()}
        measurement = Measurement(pictures=pictures, **entry)
        values, skipped = measurement.values, measurement.skipped
        is_valid = isinstance(key, str)
        is_valid &= all(v is None or type(v) in (int, float) for v in values.values())
        is_valid &= all(name in skipped for name, value in values.items() if value is None)
        is_valid &= all(_is_valid_picture(picture) for picture in pictures.values())
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None
    return (key, measurement) if is_valid else None


def _is_valid_picture(picture: Picture) -> bool:
    """Check the types, and that the names do not leave the folder."""
    are_names = all(
        isinstance(name, str) and Path(name).name == name for name in (picture.file, picture.small)
    )
    return are_names and all(type(side) is int for side in (picture.width, picture.height))
