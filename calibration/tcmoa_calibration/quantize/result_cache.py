"""Measurements that survive an interruption, in a file beside the bundle to be written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tcmoa_calibration.quantize.error import QuantizationError
from tcmoa_calibration.sample_pairs import SamplePair
from tcmoa_runtime.images import write_bytes
from tcmoa_runtime.typing import JsonValue


def cache_key(*parts: JsonValue) -> str:
    """Return the SHA-256 of everything that the measurements depend on."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def pixels_sha256(pairs: Sequence[SamplePair]) -> str:
    """Return the SHA-256 of the names and pixels of pairs."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(f"{pair.name} {pair.x.shape}".encode() + pair.x.tobytes() + pair.y.tobytes())
    return digest.hexdigest()


class ResultCache:
    """Measurements by name, in a file that is rewritten after each."""

    def __init__(self, path: Path, key: str) -> None:
        """Read the file; a missing or damaged one, and one of another key, is empty."""
        self._path, self._key = path, key
        self._results: dict[str, dict[str, int | float]] = {}
        try:
            stored = json.loads(path.read_bytes())
            if stored["key"] == key:
                self._results = dict(stored["results"])
        except (OSError, ValueError, TypeError, KeyError):
            pass

    def get(self, name: str) -> QuantizationError | None:
        """Return the measurement of that name, None where it is missing or damaged."""
        try:
            return QuantizationError(**self._results[name])  # type: ignore[arg-type]  # the file is our own
        except (KeyError, TypeError):
            return None

    def put(self, name: str, error: QuantizationError) -> None:
        """Add a measurement and write the file."""
        self._results[name] = asdict(error)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"key": self._key, "results": self._results})
        write_bytes(self._path, text.encode())

    def delete(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)
