"""What made the images of a folder: a file beside them, so that a second run fuses only what is missing.

`.tcmoa-fuse.json` holds the settings that decide the pixels, and for each image the name, size and time of its two
sources. An image without sources in it was begun, but is not known to be complete.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fusion_settings import Settings, describe_differences
from tcmoa_runtime.images import write_bytes
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.regular_file import read_regular_file
from tcmoa_runtime.typing import JsonValue

FILE_NAME: Final = ".tcmoa-fuse.json"
FORMAT_VERSION: Final = 1
MAX_BYTES: Final = 256 << 20

_SAVE_SECONDS: Final = 2.0
_MAX_SHOWN: Final = 3


class FolderRecord:
    """The record of an output folder."""

    def __init__(self, path: Path, settings: Settings, images: dict[str, JsonValue]) -> None:
        """Take the entries of images by file name; most callers use `open`."""
        self._path, self._settings, self._images = path, settings, images
        self._saved_at, self._save_seconds = time.monotonic(), 0.0

    @classmethod
    def open(cls, folder: Path, settings: Settings, targets: Mapping[str, Path], *, overwrite: bool) -> Self:
        """Read the record of a folder, or begin one.

        Args:
            folder: The folder of the results.
            settings: See `settings_of`.
            targets: Paths of the results.
            overwrite: Start again, whatever the folder holds.

        Raises:
            InputError: The folder holds images of other settings, or others with the names of results.
        """
        path = folder / FILE_NAME
        known = {} if overwrite else _read(path)
        images: dict[str, JsonValue] = {}
        if known:
            images = _images_of(path, known)
            _check_settings(folder, known, settings, images)
        foreign = [
            target.name for target in targets.values() if target.exists() and target.name not in images
        ]
        if foreign and not overwrite:
            rest = f" and {len(foreign) - _MAX_SHOWN} more" if len(foreign) > _MAX_SHOWN else ""
            raise InputError(
                f"holds {', '.join(foreign[:_MAX_SHOWN])}{rest}, which no run of this command wrote; "
                "expected a folder without images of these names",
                subject=folder,
                remedy="Choose another {out}, or replace them with {overwrite}",
                settings={"out": ..., "overwrite": True},
            )
        return cls(path, settings, images)

    def is_complete(self, pair: PairPaths, target: Path) -> bool:
        """Whether the result of a pair exists and was made of the sources as they are now."""
        entry = self._images.get(target.name)
        return entry is not None and target.is_file() and entry == _describe_sources(pair)

    def begin(self, targets: Mapping[str, Path], pending: Mapping[str, PairPaths]) -> None:
        """Record that the results of some pairs will be written."""
        for name in pending:
            self._images[targets[name].name] = None
        self.save()

    def add(self, pair: PairPaths, target: Path) -> None:
        """Record a complete result; the file is written every few seconds."""
        self._images[target.name] = _describe_sources(pair)
        if time.monotonic() - self._saved_at > max(_SAVE_SECONDS, 10 * self._save_seconds):
            self.save()

    def save(self) -> None:
        """Write the record; raises InputError if it cannot be written."""
        start = time.monotonic()
        record = {"format": FORMAT_VERSION, "settings": dict(self._settings), "images": self._images}
        write_bytes(self._path, json.dumps(record, indent=1, allow_nan=False).encode())
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - start

    def close(self) -> None:
        """Write the record, or remove it if the folder holds none of its images."""
        if any((self._path.parent / name).exists() for name in self._images):
            self.save()
        else:
            self._path.unlink(missing_ok=True)


def _describe_sources(pair: PairPaths) -> JsonValue:
    """Return name, bytes and time of both sources; None if one is missing."""
    try:
        return [[path.name, status.st_size, status.st_mtime_ns] for path, status in _stats(pair)]
    except OSError:
        return None


def _stats(pair: PairPaths) -> list[tuple[Path, os.stat_result]]:
    return [(path, path.stat()) for path in (pair.x, pair.y)]


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a record; empty if there is none."""
    try:
        record = json.loads(read_regular_file(path, max_bytes=MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", subject=path) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT_VERSION:
        raise _damaged(path)
    return record


def _images_of(path: Path, record: Mapping[str, Any]) -> dict[str, JsonValue]:
    images = record.get("images")
    if not isinstance(images, dict) or not isinstance(record.get("settings"), dict):
        raise _damaged(path)
    return images


def _check_settings(
    folder: Path, record: Mapping[str, Any], settings: Settings, images: Mapping[str, JsonValue]
) -> None:
    made, count = record["settings"], sum((folder / name).exists() for name in images)
    if not count:
        return
    differences = describe_differences(made, settings)
    if differences:
        images_text = "1 image" if count == 1 else f"{count} images"
        raise InputError(
            f"holds {images_text} made with {' and '.join(differences)}; expected images of one bundle and prompt",
            subject=folder,
            remedy="Choose another {out}, or make them again with {overwrite}",
            settings={"out": ..., "overwrite": True},
        )


def _damaged(path: Path) -> InputError:
    return InputError(
        "damaged; expected the record of a run of this command",
        subject=path,
        remedy="Fuse the whole folder again with {overwrite}",
        settings={"overwrite": True},
    )
