"""Where fused images go: a file each, or into Parquet and tar files that are named after their unit."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tcmoa_runtime.bulk.storage import Storage
from tcmoa_runtime.bulk.tar_samples import list_files, read_files, write_files
from tcmoa_runtime.bulk.units import PIECE_MARK, Unit
from tcmoa_runtime.errors import InputError, first_line
from tcmoa_runtime.options.bulk import Container
from tcmoa_runtime.options.fuse import ImageFormat
from tcmoa_runtime.pair_table import MAX_NAME_BYTES

if TYPE_CHECKING:
    import pyarrow

MAX_PATH_BYTES: Final = 1000
"""Longest name with its folders: object stores take 1024 bytes, with those of the output."""
NAME_COLUMN: Final = "name"
FUSED_COLUMN: Final = "fused"
_TIMES_KEY: Final = b"tcmoa.times_ns"
"""Metadata of a Parquet file of results: times of those that are older than it, by name, as JSON."""
_PART_SUFFIXES: Final[dict[Container, str]] = {"files": "", "parquet": ".parquet", "webdataset": ".tar"}


class StoredImage(NamedTuple):
    """A result in a file with many.

    Attributes:
        data: The encoded image.
        modified_ns: When it was written first, in nanoseconds since 1970; None if that is when its file was.
    """

    data: bytes
    modified_ns: int | None = None


@dataclass(frozen=True)
class ResultFolder:
    """A folder of results.

    Attributes:
        storage: Its file system.
        path: Its path there.
        container: How results are stored.
        image_format: File format of the images.
    """

    storage: Storage
    path: str
    container: Container
    image_format: ImageFormat

    @property
    def part_suffix(self) -> str:
        """Suffix of files that hold many results; empty if each is a file."""
        return _PART_SUFFIXES[self.container]

    def image_path(self, name: str) -> str:
        """Return the path of the image of a pair."""
        return f"{self.path}/{name}.{self.image_format}"

    def part_path(self, part: str) -> str:
        """Return the path of the file with the results of a unit."""
        return f"{self.path}/{part}{self.part_suffix}"

    def read_part(self, part: str) -> dict[str, StoredImage]:
        """Return the results of a unit by the names of their pairs; none if its file is not there."""
        path = self.part_path(part)
        file = self.storage.find(path)
        return {} if file is None else self.read_results(path, file.modified_ns)

    @cached_property
    def _pieces(self) -> list[str]:
        """Names of the files with results of pieces, as they were at the first look."""
        entries = self.storage.list_entries(Path(self.path))
        return [name for name, is_folder in entries if not is_folder and PIECE_MARK in name]

    def parts_of(self, unit: Unit) -> list[tuple[str, int | None]]:
        """Return path and time of the files with results of a unit and its pieces, also of earlier runs."""
        whole = unit.whole or unit.part
        names = dict.fromkeys(f"{part}{self.part_suffix}" for part in (whole, unit.part))
        names |= dict.fromkeys(name for name in self._pieces if name.startswith(f"{whole}{PIECE_MARK}"))
        paths = [f"{self.path}/{name}" for name in names]
        found = [(path, self.storage.find(path)) for path in paths]
        return [(path, file.modified_ns) for path, file in found if file is not None]

    def read_results(self, path: str, modified_ns: int | None) -> dict[str, StoredImage]:
        """Return the results in a Parquet or tar file by the names of their pairs, each with its time.

        Args:
            path: The file.
            modified_ns: When it was changed last: the time of each result that has none of its own.

        Raises:
            InputError: It is no such file.
        """
        if self.container == "webdataset":
            with self.storage.open_stream(path) as file:
                files = read_files(file, self.storage.spell(path))
            return {
                self._name_of(name): StoredImage(data, modified_ns if time_ns is None else time_ns)
                for name, (data, time_ns) in files.items()
            }
        table = _read_table(self.storage, path, [NAME_COLUMN, FUSED_COLUMN])
        times = _times_in(table)
        return {
            name: StoredImage(data, times.get(name, modified_ns))
            for name, data in zip(
                table[NAME_COLUMN].to_pylist(), table[FUSED_COLUMN].to_pylist(), strict=True
            )
        }

    def read_times(self, path: str, modified_ns: int | None) -> dict[str, int | None]:
        """Return the times of the results in a Parquet or tar file by the names of their pairs; as `read_results`."""
        if self.container == "webdataset":
            with self.storage.open(path) as file:
                files = list_files(file, self.storage.spell(path))
            return {
                self._name_of(name): modified_ns if time_ns is None else time_ns
                for name, time_ns in files.items()
            }
        table = _read_table(self.storage, path, [NAME_COLUMN])
        times = _times_in(table)
        return {name: times.get(name, modified_ns) for name in table[NAME_COLUMN].to_pylist()}

    def _name_of(self, file_name: str) -> str:
        return file_name.removesuffix(f".{self.image_format}")

    def write_part(self, part: str, results: Mapping[str, StoredImage]) -> None:
        """Write the results of a unit, whole or not at all."""
        self.write_results(self.part_path(part), results)

    def write_results(self, path: str, results: Mapping[str, StoredImage]) -> None:
        """Write a Parquet or tar file of results, whole or not at all."""
        if self.container == "webdataset":
            data = write_files({f"{name}.{self.image_format}": image for name, image in results.items()})
        else:
            data = _write_table(results)
        self.storage.write(path, data)


def check_name(name: str, container: Container = "files") -> str:
    """Return the name of a pair; raises InputError unless it is a path of a file below the output folder."""
    parts = name.split("/")
    if "\\" in name or "\0" in name or any(part in ("", ".", "..") or part.startswith(".") for part in parts):
        raise InputError(f"{name!r}; expected the name of a file, without an extension", subject="name")
    for text, most in (*((part, MAX_NAME_BYTES) for part in parts), (name, MAX_PATH_BYTES)):
        if len(text.encode("utf-8", "surrogateescape")) > most:
            raise InputError(
                f"a name of {len(name)} characters; expected at most {most} bytes", subject="name"
            )
    if container == "parquet" and any("\ud800" <= character <= "\udfff" for character in name):
        raise InputError(f"{name!r}; expected a name in UTF-8, as in every Parquet file", subject="name")
    return name


def _read_table(storage: Storage, path: str, columns: list[str]) -> pyarrow.Table:
    import pyarrow
    from pyarrow.parquet import read_table

    try:
        with storage.open(path) as file:
            return read_table(file, columns=columns)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"not a Parquet file of results: {first_line(error, 200)}", subject=storage.spell(path)
        ) from error


def _times_in(table: pyarrow.Table) -> dict[str, int]:
    """Return the times of the results in a table that have one of their own."""
    try:
        times = json.loads((table.schema.metadata or {}).get(_TIMES_KEY, b"{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(times, dict):
        return {}
    return {name: time for name, time in times.items() if isinstance(time, int) and 0 <= time < 1 << 63}


def _write_table(results: Mapping[str, StoredImage]) -> bytes:
    import pyarrow
    from pyarrow.parquet import write_table

    columns = {
        NAME_COLUMN: pyarrow.array(list(results), pyarrow.string()),
        FUSED_COLUMN: pyarrow.array([image.data for image in results.values()], pyarrow.large_binary()),
    }
    times = {name: image.modified_ns for name, image in results.items() if image.modified_ns is not None}
    metadata = {_TIMES_KEY: json.dumps(times).encode()} if times else None
    target = io.BytesIO()
    write_table(
        pyarrow.table(columns, metadata=metadata), target, compression="none"
    )  # images are compressed
    return target.getvalue()
