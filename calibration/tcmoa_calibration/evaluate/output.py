"""The folder of an evaluation: results, report and cache."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from tcmoa_calibration.evaluate.cache import FILE_NAME, MeasurementCache
from tcmoa_calibration.evaluate.report import format_report
from tcmoa_calibration.evaluate.results import Evaluation
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import write_bytes

RESULTS_JSON: Final = "results.json"
RESULTS_CSV: Final = "results.csv"
REPORT: Final = "report.html"
PICTURES: Final = "report_images"
"""Folder of the report's pictures, beside it."""


class OutputFolder:
    """A folder that is known as an evaluation's by its cache file.

    Attributes:
        cache: The measurements in the folder.
    """

    def __init__(self, path: Path, created: tuple[Path, ...]) -> None:
        """Take a folder that `open` made; `created` are the folders that it created, the innermost first."""
        self._path, self._created = path, created
        self.cache = MeasurementCache(path / FILE_NAME, path / PICTURES)

    @classmethod
    def open(cls, path: Path, *, fresh: bool) -> Self:
        """Create the folder, or open an existing one of an evaluation.

        Args:
            path: The folder.
            fresh: Discard the results of earlier runs.

        Raises:
            InputError: The path is a file, a folder with files of the same names that are not of an evaluation, or not
                writable.
        """
        if path.exists() and not path.is_dir():
            raise InputError("a file; expected a folder for the results", subject=path)
        cache, pictures = path / FILE_NAME, path / PICTURES
        if not cache.exists():
            for name in (RESULTS_JSON, RESULTS_CSV, REPORT, PICTURES):
                if (path / name).exists():
                    raise InputError(
                        f"holds a {name} that is not of an evaluation; expected a new folder or one of an evaluation",
                        subject=path,
                        remedy="Choose another folder",
                    )
        created = tuple(folder for folder in (path, *path.parents) if not folder.exists())
        try:
            path.mkdir(parents=True, exist_ok=True)
            if fresh:
                cache.unlink(missing_ok=True)
            cache.touch()  # before the other files: it marks the folder as an evaluation's
            pictures.mkdir(exist_ok=True)
            if fresh:
                for picture in pictures.glob("*.jpg"):
                    picture.unlink()
        except OSError as error:
            raise InputError(f"cannot be used for results: {error.strerror}", subject=path) from error
        return cls(path, created)

    def write(self, evaluation: Evaluation) -> None:
        """Write results.json, results.csv and report.html, each completely or not at all."""
        text = json.dumps(evaluation.to_json(), indent=1, allow_nan=False)
        write_bytes(self._path / RESULTS_JSON, text.encode())
        # A file name need not be valid text; invalid characters become "?".
        write_bytes(self._path / RESULTS_CSV, evaluation.to_csv().encode("utf-8", "replace"))
        write_bytes(self._path / REPORT, format_report(evaluation, PICTURES).encode("utf-8", "replace"))

    def remove_if_empty(self) -> None:
        """Remove what `open` created if nothing was measured: it would look like an evaluation."""
        with suppress(OSError):  # folders that hold other files stay
            if (self._path / FILE_NAME).stat().st_size == 0:
                (self._path / PICTURES).rmdir()
                (self._path / FILE_NAME).unlink()
                for folder in self._created:
                    folder.rmdir()
