"""The results in an output folder, listed in columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.bulk.columns import ColumnsBuilder, decode_name, encode_name, time_numbers
from tcmoa_runtime.bulk.results import ResultFolder

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class ResultFiles:
    """Files with results.

    Attributes:
        folder: The folder that they are in or below.
        names: Their paths below it, large_binary.
        times: When each was changed last, int64, in nanoseconds since 1970; null if that is not known.
    """

    folder: str
    names: pyarrow.ChunkedArray
    times: pyarrow.ChunkedArray

    @classmethod
    def of(cls, out: ResultFolder, files: Iterable[tuple[str, int | None]]) -> ResultFiles:
        """Return files of a folder, given by path and time."""
        builder = ColumnsBuilder(1, 1)
        for path, modified_ns in files:
            builder.add(encode_name(path[len(out.path) + 1 :]), modified_ns)
        return cls(out.path, *builder.finish())

    def __len__(self) -> int:
        return len(self.names)

    def paths(self) -> Iterator[str]:
        """Yield their whole paths."""
        for name in self.names:
            yield f"{self.folder}/{decode_name(name.as_py())}"


def list_results(out: ResultFolder, *, follow_links: bool = True) -> ResultFiles:
    """List the results in a folder, also in folders below it, and in those that links lead to."""
    suffix = f".{out.image_format}" if out.container == "files" else out.part_suffix
    files = (
        (path, modified_ns)
        for path, modified_ns in walk_files(out, follow_links=follow_links)
        if path.endswith(suffix) and not path.rpartition("/")[2].startswith(".")
    )
    return ResultFiles.of(out, files)


def walk_files(out: ResultFolder, *, follow_links: bool = True) -> Iterator[tuple[str, int | None]]:
    """Yield path and time of each file in a folder and below it; no folder is entered twice, whatever links say."""
    pending = [out.path] if out.storage.is_folder(Path(out.path)) else []
    entered: set[tuple[int, int]] = set()
    while pending:
        folder = pending.pop()
        if not out.storage.is_remote:
            if folder != out.path and not follow_links and Path(folder).is_symlink():
                continue
            try:
                status = Path(folder).stat()
            except FileNotFoundError:  # it was removed since it was listed
                continue
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
        for file in out.storage.list_files(folder):
            if not file.is_folder:
                yield f"{folder}/{file.name}", file.modified_ns
            elif not file.name.startswith("."):
                pending.append(f"{folder}/{file.name}")


@dataclass(frozen=True)
class ResultColumns:
    """Pairs whose results are there.

    Attributes:
        names: Their names, large_binary.
        times: When each was written, int64, in nanoseconds since 1970; null if that is not known.
        parts: Number of the file that holds each, where files hold many; else None.
        part_names: Names of these files, by their numbers.
    """

    names: pyarrow.ChunkedArray
    times: pyarrow.ChunkedArray
    parts: pyarrow.ChunkedArray | None = None
    part_names: Sequence[str] = ()

    def newest(self) -> ResultColumns:
        """Return the newest result of each pair: a run that was stopped may have left the one that it replaces, too."""
        import pyarrow

        if self.parts is None or not len(self.names):
            return self
        codes = self.name_codes()
        order = np.argsort(time_numbers(self.times), kind="stable")[::-1]
        _, first = np.unique(codes[order], return_index=True)
        if len(first) == len(codes):
            return self
        rows = pyarrow.array(order[first])
        return ResultColumns(
            self.names.take(rows), self.times.take(rows), self.parts.take(rows), self.part_names
        )

    def name_codes(self) -> NDArray[np.int64]:
        """Return a number for each result that those of one name have in common."""
        encoded = self.names.combine_chunks().dictionary_encode()
        return np.asarray(encoded.indices, np.int64)
