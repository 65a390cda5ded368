"""The pairs of a unit one by one, each with functions that read its sources."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from tcmoa_runtime.bulk.file_systems import open_storage
from tcmoa_runtime.bulk.parquet_rows import read_rows
from tcmoa_runtime.bulk.storage import Storage
from tcmoa_runtime.bulk.tar_samples import Sample, read_samples
from tcmoa_runtime.bulk.units import PairFailure, PairSlice, RowGroup, Unit
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import decode_image
from tcmoa_runtime.location import redact, scheme_of

_SPECIAL: Final = re.compile(r"[?%@#]|//")
"""What makes the path of a URI another text than what follows its scheme."""


@dataclass(frozen=True)
class PairJob:
    """A pair to fuse.

    Attributes:
        name: Its name.
        x: What errors call its first source.
        y: What errors call its second source.
        read_x: Reads the first source; raises InputError.
        read_y: Reads the second source; raises InputError.
    """

    name: str
    x: str
    y: str
    read_x: Callable[[], NDArray[Any]]
    read_y: Callable[[], NDArray[Any]]


class JobReader:
    """Reads units: slices of image files, rows of Parquet files, and samples of tar files."""

    def __init__(self, sources: tuple[Storage, Storage], columns: tuple[str, ...]) -> None:
        """Take the file systems of x and y, and the columns as of `BulkOptions`."""
        self._source, self._source_y = sources
        self._columns = columns
        self._cells: dict[str, Storage] = {}

    def read(self, unit: Unit) -> Iterator[PairJob | PairFailure]:
        """Yield the pairs of a unit in their order; failures of those with the name of another one, and of the unit."""
        if isinstance(unit, PairSlice):
            for name, x, y in zip(unit.names, unit.xs, unit.ys, strict=True):
                yield self._file_job(name, x, y)
            return
        subject = self._source.spell(unit.path)
        try:
            if isinstance(unit, RowGroup):
                yield from self._rows(unit, subject)
            else:
                with self._source.open_stream(unit.path) as file:
                    names = self._columns[:2]
                    for sample in read_samples(file, subject, names, unit.start, unit.stop):
                        yield _sample_job(sample, unit.name_of(sample.key), names, subject)
        except InputError as error:
            yield PairFailure(unit.part, subject, "", error)

    def _file_job(self, name: str, x: str, y: str) -> PairJob:
        of_x, of_y = self._source, self._source_y
        return PairJob(
            name, of_x.spell(x), of_y.spell(y), lambda: of_x.read_image(x), lambda: of_y.read_image(y)
        )

    def _rows(self, unit: RowGroup, subject: str) -> Iterator[PairJob | PairFailure]:
        columns = self._columns
        stem = Path(unit.path).stem
        for row, found in read_rows(self._source, unit, columns):
            number = unit.first_row + row
            given = found.get(columns[2]) if len(columns) == 3 else None
            name = f"{stem}-{number:08}" if given is None else str(given)
            cells = [found[column] for column in columns[:2]]
            x, y = (
                self._spell_cell(cell, unit.path)
                if isinstance(cell, str)
                else f"{subject}, row {number}, {column}"
                for cell, column in zip(cells, columns, strict=False)
            )
            read_x, read_y = (
                self._cell_reader(cell, shown, unit.path) for cell, shown in zip(cells, (x, y), strict=True)
            )
            if row in unit.repeated:
                yield PairFailure(name, x, y, repeated_name(name))
            else:
                yield PairJob(name, x, y, read_x, read_y)

    def _spell_cell(self, cell: str, table: str) -> str:
        if scheme_of(cell):
            return redact(cell)
        return self._source.spell(_beside(table, cell))

    def _cell_reader(self, cell: object, shown: str, table: str) -> Callable[[], NDArray[Any]]:
        """Return a function that reads the image of a cell: bytes, or a path relative to the table, or a URI."""

        def read() -> NDArray[Any]:
            if isinstance(cell, str):
                if not scheme_of(cell):
                    return self._source.read_image(_beside(table, cell))
                storage, path = self._open_cell(cell)
                return storage.read_image(path)
            if not isinstance(cell, bytes):
                arrived = "nothing" if cell is None else f"type {type(cell).__name__}"
                raise InputError(
                    f"{arrived}; expected the bytes of an image file, or its path", subject=shown
                )
            return decode_image(cell, shown)

        return read

    def _open_cell(self, uri: str) -> tuple[Storage, str]:
        """Return the file system and the path of a URI; to open one asks its server, e.g. S3 for a bucket's region."""
        root, plain = "/".join(uri.split("/", 3)[:3]), uri.partition("://")[2]
        if root in self._cells and not _SPECIAL.search(plain):
            return self._cells[root], plain
        storage, path = open_storage(uri)
        if path == plain:
            self._cells[root] = storage
        return storage, path


def repeated_name(name: str) -> InputError:
    """Return the error of a pair that has the name of one before it."""
    return InputError("the name of another pair too; expected a name for each", subject=name)


def _beside(table: str, path: str) -> str:
    """Return a path that is relative to the folder of a table."""
    if path.startswith("/"):
        return path
    folder = table.rpartition("/")[0]
    return f"{folder}/{path}" if folder else path


def _sample_job(sample: Sample, name: str, names: Sequence[str], subject: str) -> PairJob:
    def reader(source: str) -> Callable[[], NDArray[Any]]:
        def read() -> NDArray[Any]:
            if source not in sample.sources:
                raise InputError(
                    f"no file {sample.key}.{source}.EXT; expected one of each source",
                    subject=f"{subject}: {sample.key}",
                )
            return decode_image(sample.sources[source], f"{subject}: {sample.files[source]}")

        return read

    x, y = (f"{subject}: {sample.files[source]}" if source in sample.files else "" for source in names)
    return PairJob(name, x, y, reader(names[0]), reader(names[1]))
