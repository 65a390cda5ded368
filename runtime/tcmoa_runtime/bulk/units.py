"""Units of work: what one task of an actor fuses. A unit that is done again gives the same files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from tcmoa_runtime.errors import TcmoaError

PIECE_MARK: Final = "~"
"""Between the part of a unit and the number of a piece of it, in the name of a piece's part."""


@dataclass(frozen=True)
class PairSlice:
    """Some pairs of image files.

    Attributes:
        part: Name of the file of their results, without suffix, where results are stored in files that hold many.
        names: Names of the pairs.
        xs: Paths of the first sources.
        ys: Paths of the second ones.
        whole: The part of the unit that this one is cut from; None if it is whole.
    """

    part: str
    names: tuple[str, ...]
    xs: tuple[str, ...]
    ys: tuple[str, ...]
    whole: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    def split(self) -> list[Unit]:
        """Return the pairs one by one."""
        return [
            PairSlice(f"{self.part}{PIECE_MARK}{index}", (name,), (x,), (y,), self.part)
            for index, (name, x, y) in enumerate(zip(self.names, self.xs, self.ys, strict=True))
        ]


@dataclass(frozen=True)
class RowGroup:
    """The rows of one row group of a Parquet file.

    Attributes:
        part: Name of the file of their results, without suffix.
        path: The Parquet file.
        index: Number of the row group.
        first_row: Number of its first row in the file.
        num_rows: How many it has.
        start: First row of the group to fuse.
        stop: Row of the group after the last one to fuse; None for all.
        repeated: Rows of the group with the name of a row before them.
        modified_ns: When the file was changed last, in nanoseconds since 1970; None if that is not known.
        whole: As of `PairSlice`.
    """

    part: str
    path: str
    index: int
    first_row: int
    num_rows: int
    start: int = 0
    stop: int | None = None
    repeated: tuple[int, ...] = ()
    modified_ns: int | None = None
    whole: str | None = None

    def __len__(self) -> int:
        return (self.num_rows if self.stop is None else self.stop) - self.start

    def split(self) -> list[Unit]:
        """Return the rows one by one."""
        return [
            replace(self, part=f"{self.part}{PIECE_MARK}{row}", start=row, stop=row + 1, whole=self.part)
            for row in range(self.start, self.num_rows if self.stop is None else self.stop)
        ]


@dataclass(frozen=True)
class Shard:
    """A tar file of the WebDataset format.

    Attributes:
        part: Name of the file of its results, without suffix.
        path: The tar file.
        folder: Folder of its results below the output, where several tar files may have equal keys; empty for none.
        num_samples: How many samples it holds; None if they were not counted, which takes reading the file.
        start: First sample to fuse.
        stop: Sample after the last one to fuse; None for all.
        modified_ns: As of `RowGroup`.
        whole: As of `PairSlice`.
    """

    part: str
    path: str
    folder: str = ""
    num_samples: int | None = None
    start: int = 0
    stop: int | None = None
    modified_ns: int | None = None
    whole: str | None = None

    def __len__(self) -> int:
        stop = self.num_samples if self.stop is None else self.stop
        return 0 if stop is None else stop - self.start

    def name_of(self, key: str) -> str:
        """Return the name of the pair with a key."""
        return f"{self.folder}/{key}" if self.folder else key

    def split(self) -> list[Unit]:
        """Return the samples one by one; none if they were not counted."""
        return [
            replace(
                self, part=f"{self.part}{PIECE_MARK}{sample}", start=sample, stop=sample + 1, whole=self.part
            )
            for sample in range(self.start, self.start + len(self))
        ]


Unit: TypeAlias = PairSlice | RowGroup | Shard


def is_outdated(result_ns: int | None, source_ns: int | None) -> bool:
    """Return whether a result is older than its source, as `make` compares them; not if a time is unknown."""
    return result_ns is not None and source_ns is not None and result_ns < source_ns


def part_of_names(names: Sequence[str]) -> str:
    """Return the name of the file with the results of these pairs, without suffix."""
    digest = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()
    return f"part-{digest[:16]}"


@dataclass(frozen=True)
class PairFailure:
    """A pair that was not fused.

    Attributes:
        name: Its name.
        x: Its first source.
        y: Its second source.
        error: Why.
    """

    name: str
    x: str
    y: str
    error: TcmoaError


@dataclass
class UnitResult:
    """What became of a unit.

    Attributes:
        num_fused: Pairs whose results were written.
        num_skipped: Pairs whose results were there.
        num_outdated: Those of them whose results are older than a source.
        failures: The others.
        seconds: Time from the first read to the last write.
        cpu_seconds: CPU time of the process in it.
        backend: Name of the backend.
        fatal: An error that every further pair would meet too, e.g. a full disk.
    """

    num_fused: int = 0
    num_skipped: int = 0
    num_outdated: int = 0
    failures: list[PairFailure] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    backend: str = ""
    fatal: TcmoaError | None = None
