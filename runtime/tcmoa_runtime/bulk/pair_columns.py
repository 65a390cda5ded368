"""Pairs of image files as columns of Arrow: about 100 bytes a pair, where objects of Python take 900."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.bulk.columns import ColumnsBuilder, decode_name, encode_name
from tcmoa_runtime.bulk.units import PairSlice, Unit, part_of_names
from tcmoa_runtime.pairs import PairPaths

if TYPE_CHECKING:
    import pyarrow

MAX_SLICE: Final = 32
"""Most pairs of a slice, but of large archives: the slices in work when a node dies take some seconds."""
MAX_SLICES: Final = 1024
"""Slices of a large archive, about: Ray Data takes 5 to 10 ms and 45 kB of the driver for each."""
MAX_FILES: Final = 4096
"""As `MAX_SLICES`, if the results of a slice go into one file: they are in memory until it is written."""
_SLICES_PER_ACTOR: Final = 8
_MAX_SLICES_PER_ACTOR: Final = 64
"""Slices of a large archive for each of many actors, so that the last ones do not keep the others waiting for long."""
_FIRST_SLICES: Final = (1, 4, 16)
"""Pairs of the first slices of each actor, so that the rate is known soon."""


@dataclass(frozen=True)
class SourceColumns:
    """The files of one source.

    Attributes:
        folder: What the paths of all files begin with: a folder and a slash, or nothing.
        files: The rest of each path, large_binary.
        times: When each file was changed last, int64, in nanoseconds since 1970; None if the listing did not say.
    """

    folder: str
    files: pyarrow.ChunkedArray
    times: pyarrow.ChunkedArray | None = None

    def select(self, rows: Any) -> SourceColumns:
        """Return the files of some rows, given by their numbers as an Arrow array."""
        times = None if self.times is None else self.times.take(rows)
        return SourceColumns(self.folder, self.files.take(rows), times)

    def paths(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """Yield the paths of some files."""
        for chunk in self.files.slice(start, None if stop is None else stop - start).chunks:
            for data in chunk:
                yield self.folder + decode_name(data.as_py())

    def folders(self) -> set[str]:
        """Return the folders that the files are in."""
        import pyarrow.compute as pc

        if self.folder and not pc.any(pc.match_substring(self.files, "/")).as_py():
            return {self.folder}
        return {path.rpartition("/")[0] for path in self.paths()}


@dataclass(frozen=True)
class PairColumns:
    """Pairs of image files.

    Attributes:
        names: Their names, large_binary.
        x: The first sources.
        y: The second ones.
    """

    names: pyarrow.ChunkedArray
    x: SourceColumns
    y: SourceColumns

    @classmethod
    def from_paths(cls, pairs: Iterable[PairPaths]) -> PairColumns:
        """Return pairs in the order in which they are given."""
        builder = ColumnsBuilder(3, 0)
        for pair in pairs:
            builder.add(*map(encode_name, (pair.name, str(pair.x), str(pair.y))))
        names, x, y = builder.finish()
        return cls(names, SourceColumns("", x), SourceColumns("", y))

    def __len__(self) -> int:
        return len(self.names)

    def select(self, is_selected: NDArray[np.bool_]) -> PairColumns:
        """Return the pairs for which an array is true."""
        import pyarrow

        if is_selected.all():
            return self
        rows = pyarrow.array(np.flatnonzero(is_selected))
        x = self.x.select(rows)
        same = self.y.files is self.x.files  # as in two folders with equal names
        y = replace(x, folder=self.y.folder, times=None) if same else self.y.select(rows)
        if same and self.y.times is not None:
            y = replace(y, times=self.y.times.take(rows))
        return PairColumns(self.names.take(rows), x, y)

    def slice(self, start: int, stop: int) -> PairSlice:
        """Return some pairs as a unit."""
        names = tuple(decode_name(name) for name in self.names.slice(start, stop - start).to_pylist())
        xs, ys = (tuple(source.paths(start, stop)) for source in (self.x, self.y))
        return PairSlice(part_of_names(names), names, xs, ys)


class PairUnits(Sequence[Unit]):
    """Pairs cut into slices: some for each actor, the first ones small. A slice is made when it is asked for."""

    def __init__(self, pairs: PairColumns, num_actors: int, *, is_file_each: bool = False) -> None:
        """Take the pairs, the number of actors, and whether the results of a slice go into one file."""
        self._pairs = pairs
        count = len(pairs)
        max_slices = max(MAX_FILES if is_file_each else MAX_SLICES, _MAX_SLICES_PER_ACTOR * num_actors)
        size = max(1, min(MAX_SLICE, count // (_SLICES_PER_ACTOR * num_actors)), -(-count // max_slices))
        first_sizes = [first for first in _FIRST_SLICES if first < size for _ in range(num_actors)]
        starts = list(itertools.accumulate(first_sizes, initial=0))
        starts += range(starts[-1] + size, count, size)
        self._bounds = [*(start for start in starts if start < count), count]

    def __len__(self) -> int:
        return len(self._bounds) - 1

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Unit]: ...
    def __getitem__(self, index: int | slice) -> Unit | list[Unit]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return self._pairs.slice(self._bounds[number], self._bounds[number + 1])
