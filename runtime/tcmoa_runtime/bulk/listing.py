"""Pairs of folders, found in columns: what `pairs.list_pairs` finds, for a million files in a fifth of the memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tcmoa_runtime.bulk.columns import ColumnsBuilder, decode_name, encode_name
from tcmoa_runtime.bulk.pair_columns import PairColumns, SourceColumns
from tcmoa_runtime.bulk.storage import Storage
from tcmoa_runtime.bulk.units import PairFailure
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.pairs import check_patterns
from tcmoa_runtime.pair_patterns import NamePattern
from tcmoa_runtime.pairs import expected_names, is_image_name, list_pairs, name_of_key, parse_patterns

if TYPE_CHECKING:
    import pyarrow

_X_SUFFIX: Final = "_x"
_Y_SUFFIX: Final = "_y"


@dataclass(frozen=True)
class SourceFolder:
    """A folder of images.

    Attributes:
        storage: Its file system: one object where x and y are on the same.
        path: Its path there.
    """

    storage: Storage
    path: str


def list_pair_columns(
    x: SourceFolder, y: SourceFolder, x_pattern: str | None, y_pattern: str | None
) -> tuple[PairColumns, list[PairFailure]]:
    """Find the pairs of one or two folders, sorted by name, and the images without a partner.

    Raises:
        InputError: As `pairs.list_pairs`.
    """
    check_patterns(x_pattern, y_pattern)
    is_one = x.storage is y.storage and Path(x.path).resolve() == Path(y.path).resolve()
    sources = None
    if all(folder.storage.is_folder(Path(folder.path)) for folder in (x, y)):
        if x_pattern is not None and y_pattern is not None:
            of_x, of_y = parse_patterns(x_pattern, y_pattern)
            sources = _match_patterns(x, of_x), _match_patterns(y, of_y)
        else:
            sources = _match_names(x, y, is_one=is_one)
    joined = None
    if sources is not None and sources[0] is not None and sources[1] is not None:
        joined = _join(sources[0], sources[1])
    if joined is None:  # its error says what the folders hold
        listing = list_pairs(
            Path(x.path),
            Path(y.path),
            x_pattern=x_pattern,
            y_pattern=y_pattern,
            readers=(x.storage, y.storage),
        )
        raise InputError(  # a file was added meanwhile
            f"{len(listing.pairs)} pairs that were not there before; expected folders that stay as they are",
            subject=x.storage.spell(x.path),
            remedy="Run the same command again",
        )
    pairs, only_x, only_y = joined
    expected = expected_names(x_pattern, y_pattern, is_one=is_one)
    failures = [
        *(_alone(name, x.storage.spell(path), expected, is_x=True) for name, path in only_x.rows()),
        *(_alone(name, y.storage.spell(path), expected, is_x=False) for name, path in only_y.rows()),
    ]
    return pairs, sorted(failures, key=lambda failure: failure.name)


def _alone(name: str, shown: str, expected: str, *, is_x: bool) -> PairFailure:
    error = InputError(f"no partner; expected {expected}", subject=shown, remedy="Add or rename its partner")
    return PairFailure(name, shown if is_x else "", "" if is_x else shown, error)


@dataclass(frozen=True)
class _NamedFiles:
    """Files by the names of their pairs, in the order of these."""

    names: pyarrow.ChunkedArray
    files: SourceColumns

    def select(self, rows: pyarrow.Array) -> _NamedFiles:
        return _NamedFiles(self.names.take(rows), self.files.select(rows))

    def rows(self) -> Iterator[tuple[str, str]]:
        for name, path in zip(self.names, self.files.paths(), strict=True):
            yield decode_name(name.as_py()), path

    def in_order(self) -> _NamedFiles | None:
        """Return the files in the order of their names; None if two have one name."""
        import pyarrow.compute as pc

        found = self.select(pc.sort_indices(self.names))
        names = found.names.combine_chunks()
        return None if len(names) > 1 and pc.any(pc.equal(names[1:], names[:-1])).as_py() else found

    def without(self, suffix: str) -> _NamedFiles | None:
        """Return the files with a suffix taken from those names that have it; as `in_order`."""
        import pyarrow.compute as pc

        has_it = pc.ends_with(self.names, suffix)
        if not pc.any(has_it).as_py():
            return self
        names = pc.if_else(has_it, pc.binary_slice(self.names, 0, -len(suffix)), self.names)
        return replace(self, names=names).in_order()

    def only_with(self, suffix: str) -> _NamedFiles:
        """Return the files whose names have a suffix, by their names without it."""
        import pyarrow.compute as pc

        rows = pc.indices_nonzero(pc.ends_with(self.names, suffix))
        found = self.select(rows)
        return replace(found, names=pc.binary_slice(found.names, 0, -len(suffix)))


def _match_names(
    x: SourceFolder, y: SourceFolder, *, is_one: bool
) -> tuple[_NamedFiles | None, _NamedFiles | None]:
    of_x = _list_images(x)
    if of_x is None:
        return None, None
    if is_one:
        return of_x.only_with(_X_SUFFIX).in_order(), of_x.only_with(_Y_SUFFIX).in_order()
    of_y = _list_images(y)
    if of_y is None or of_x.names.equals(of_y.names):
        return of_x, of_y
    return of_x.without(_X_SUFFIX), of_y.without(_Y_SUFFIX)


def _list_images(folder: SourceFolder) -> _NamedFiles | None:
    rows = ((os.path.splitext(name)[0], name, time) for name, time in _list(folder) if is_image_name(name))  # noqa: PTH122
    return _collect(folder, rows).in_order()


def _list(folder: SourceFolder) -> Iterator[tuple[str, int | None]]:
    """Yield the names in a folder and their times; of a disk, where that takes a call for each, no times."""
    if folder.storage.is_remote:
        for file in folder.storage.list_files(folder.path):
            yield file.name, file.modified_ns
    else:
        for name, _ in folder.storage.list_entries(Path(folder.path)):
            yield name, None


def _match_patterns(folder: SourceFolder, pattern: NamePattern) -> _NamedFiles | None:
    times: dict[str, int | None] = {}

    def list_entries(path: Path) -> Iterator[tuple[str, bool]]:
        if not folder.storage.is_remote:
            yield from folder.storage.list_entries(path)
            return
        times.clear()  # the search yields the files of a folder before it lists the next one
        for file in folder.storage.list_files(str(path)):
            times[file.name] = file.modified_ns
            yield file.name, file.is_folder

    start = len(_prefix(folder))
    rows = (
        (name_of_key(key), str(path)[start:], times.get(path.name))
        for key, path in pattern.find(Path(folder.path), list_entries)
    )
    return _collect(folder, rows).in_order()


def _prefix(folder: SourceFolder) -> str:
    path = str(Path(folder.path))
    return path if path.endswith("/") else f"{path}/"


def _collect(folder: SourceFolder, rows: Iterator[tuple[str, str, int | None]]) -> _NamedFiles:
    builder = ColumnsBuilder(2, 1)
    for name, file, time in rows:
        builder.add(encode_name(name), encode_name(file), time)
    names, files, times = builder.finish()
    return _NamedFiles(
        names, SourceColumns(_prefix(folder), files, times if folder.storage.is_remote else None)
    )


def _join(of_x: _NamedFiles, of_y: _NamedFiles) -> tuple[PairColumns, _NamedFiles, _NamedFiles] | None:
    """Return the pairs, and the files of each source without a partner; None if there is no pair."""
    import pyarrow.compute as pc

    if of_x.names.equals(of_y.names):
        only_x = only_y = None
    else:
        partners = pc.index_in(of_x.names, value_set=of_y.names)
        only_x = of_x.select(pc.indices_nonzero(pc.is_null(partners)))
        only_y = of_y.select(pc.indices_nonzero(pc.invert(pc.is_in(of_y.names, value_set=of_x.names))))
        of_x = of_x.select(pc.indices_nonzero(pc.is_valid(partners)))
        of_y = of_y.select(pc.drop_null(partners))
    if not len(of_x.names):
        return None
    files_y = of_y.files
    if files_y.files.equals(of_x.files.files):
        files_y = replace(files_y, files=of_x.files.files)
    nothing = of_x.select(_no_rows())
    return PairColumns(of_x.names, of_x.files, files_y), only_x or nothing, only_y or nothing


def _no_rows() -> pyarrow.Array:
    import pyarrow

    return pyarrow.array([], pyarrow.int64())
