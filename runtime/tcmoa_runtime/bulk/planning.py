"""What there is to fuse: folders, Parquet files and tar files become units of work."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from tcmoa_runtime.bulk.parquet_rows import list_row_groups, read_rows
from tcmoa_runtime.bulk.storage import Storage, open_storage
from tcmoa_runtime.bulk.units import PairFailure, PairSlice, RowGroup, Shard, Unit
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.location import redact, scheme_of
from tcmoa_runtime.options.bulk import DEFAULT_COLUMNS, BulkOptions, Container
from tcmoa_runtime.pairs import PairPaths, find_pairs, is_table, list_pairs

MAX_SLICE: Final = 32
"""Most pairs of a slice, but of large archives: a node that dies loses the slices in work, which take some seconds."""
MAX_SLICES: Final = 4096
"""Slices of a large archive, about: Ray Data takes 5 to 10 ms for each."""
_SLICES_PER_ACTOR: Final = 8
_FIRST_SLICES: Final = (1, 4, 16)
"""Pairs of the first slices of each actor, so that the rate is known soon."""

PARQUET_SUFFIX: Final = ".parquet"
TAR_SUFFIX: Final = ".tar"
_CONTAINERS: Final[dict[str, Container]] = {PARQUET_SUFFIX: "parquet", TAR_SUFFIX: "webdataset"}


@dataclass(frozen=True)
class FileInput:
    """Pairs of image files, and what belongs to none."""

    storage_location: str
    pairs: Sequence[PairPaths]
    failures: list[PairFailure] = field(default_factory=list)
    container: Container = "files"


@dataclass(frozen=True)
class ContainerInput:
    """Files that hold many pairs each, as units, and those of them that cannot be read."""

    storage_location: str
    units: tuple[Unit, ...]
    container: Container
    failures: list[PairFailure] = field(default_factory=list)


BulkInput: TypeAlias = FileInput | ContainerInput


def find_input(x: str, y: str | None, options: BulkOptions) -> BulkInput:
    """Find the pairs that two locations, or one, name.

    Args:
        x: A folder of images, a CSV file, or a Parquet or tar file or a folder of them.
        y: The folder of the second images; None if x holds both.
        options: Patterns of file names, and columns of Parquet files.

    Raises:
        InputError: There is no pair, or a location or a file is wrong.
        MissingError: The package of a file system is not installed.
    """
    for location in (x, y):
        if location is not None and scheme_of(location) in ("http", "https"):
            raise InputError(
                f"{scheme_of(location)}:// cannot be listed; expected a path or a URI of a file system",
                subject=redact(location),
                remedy="Put the URIs of the pairs into a Parquet file with the columns x and y",
            )
    storage, path = open_storage(x)
    if y is None:
        found = _find_containers(storage, path)
        if found is not None:
            return _container_input(x, storage, *found, options)
        if not storage.is_remote and is_table(Path(path)):
            pairs = find_pairs(path, x_pattern=options.x_pattern, y_pattern=options.y_pattern)
            return FileInput(x, pairs)
    return _file_input(x, y, storage, path, options)


def _file_input(x: str, y: str | None, storage: Storage, path: str, options: BulkOptions) -> FileInput:
    if options.columns != DEFAULT_COLUMNS:
        raise InputError("given with files of images; expected Parquet or tar files", subject="columns")
    path_y = path
    if y is not None:
        kinds = [scheme_of(location).replace("file", "") or "disk" for location in (x, y)]
        if kinds[0] != kinds[1]:
            raise InputError(f"x is on {kinds[0]} and y on {kinds[1]}; expected one file system", subject="y")
        _, path_y = open_storage(y)
    for folder in (path, path_y):
        if not storage.is_remote and Path(folder).is_file():
            raise InputError("a file; expected a folder of images", subject=folder)
    try:
        listing = list_pairs(
            Path(path),
            Path(path_y),
            x_pattern=options.x_pattern,
            y_pattern=options.y_pattern,
            reader=storage,
        )
    except InputError as refused:
        if "pairs" not in refused.settings:
            raise
        remedy = (refused.remedy or "").replace("give it as {pairs}", "give it in place of the folders")
        raise InputError(
            refused.problem, subject=refused.subject, remedy=remedy, settings=refused.settings
        ) from refused
    failures = []
    for only, is_x in ((listing.only_x, True), (listing.only_y, False)):
        for name, alone in only.items():
            shown = storage.spell(str(alone))
            error = InputError(
                f"no partner; expected {listing.expected}", subject=shown, remedy="Add or rename its partner"
            )
            failures.append(PairFailure(name, shown if is_x else "", "" if is_x else shown, error))
    return FileInput(x, listing.pairs, sorted(failures, key=lambda failure: failure.name))


def _find_containers(storage: Storage, path: str) -> tuple[str, list[str]] | None:
    """Return the suffix and the paths of Parquet or tar files: one that is named, or those of a folder."""
    suffix = Path(path).suffix.lower()
    if storage.is_folder(Path(path)):
        names = [name for name, is_folder in storage.list_entries(Path(path)) if not is_folder]
        for suffix in _CONTAINERS:
            paths = [f"{path}/{name}" for name in sorted(names) if _is_visible(name, suffix)]
            if paths:
                return suffix, paths
        return None
    return (suffix, [path]) if suffix in _CONTAINERS else None


def _is_visible(name: str, suffix: str) -> bool:
    return name.lower().endswith(suffix) and not name.startswith((".", "_"))


def _container_input(
    location: str, storage: Storage, suffix: str, paths: list[str], options: BulkOptions
) -> ContainerInput:
    if options.x_pattern is not None:
        raise InputError("given with Parquet or tar files; expected folders of images", subject="x_pattern")
    read: Callable[[Storage, str, BulkOptions], Iterator[Unit]] = (
        _row_groups if suffix == PARQUET_SUFFIX else _shard
    )
    units: list[Unit] = []
    failures = []
    first: dict[str, str] = {}
    for path in paths:
        file = Path(path)
        try:
            _check_stem(file, first.setdefault(file.stem, file.name), storage)
            units += read(storage, path, options)
        except InputError as error:
            failures.append(PairFailure(file.stem, storage.spell(path), "", error))
    if options.container == "files" and len(paths) > 1:  # keys of different tar files may be equal
        units = [replace(unit, folder=unit.part) if isinstance(unit, Shard) else unit for unit in units]
    if suffix == PARQUET_SUFFIX and options.container == "files" and len(options.columns) == 3:
        units = _mark_repeated(storage, units, options.columns[2])  # one image would replace the other
    if not units:
        if failures:
            raise failures[0].error
        raise InputError("no pairs; expected rows or samples", subject=redact(location))
    return ContainerInput(location, tuple(units), _CONTAINERS[suffix], failures)


def _check_stem(file: Path, first: str, storage: Storage) -> None:
    """Raise InputError for a file whose results would replace those of the first one of its name."""
    if file.name != first:
        raise InputError(
            f"the name of {first} too, but for its suffix; expected a name for each",
            subject=storage.spell(str(file)),
        )


def _row_groups(storage: Storage, path: str, options: BulkOptions) -> Iterator[Unit]:
    names, units = list_row_groups(storage, path)
    for column in options.columns[:2]:
        if column not in names:
            raise InputError(
                f"no column {column!r}, but {', '.join(map(repr, names[:8]))}; expected the columns of both sources",
                subject=storage.spell(path),
                remedy="Name them with {columns}",
                settings={"columns": "X,Y,NAME"},
            )
    yield from units


def _mark_repeated(storage: Storage, units: Sequence[Unit], column: str) -> list[Unit]:
    """Return units of rows with the numbers of rows that have the name of a row before them, in all files."""
    seen: set[str] = set()
    marked: list[Unit] = []
    rows = [unit for unit in units if isinstance(unit, RowGroup)]
    for _, of_group in itertools.groupby(rows, lambda unit: (unit.path, unit.index)):
        group = list(of_group)
        repeated = []
        with contextlib.suppress(InputError):  # which the actor will meet and report
            for row, cells in read_rows(storage, replace(group[0], start=0, stop=None), [column]):
                name = cells.get(column)
                if name is None:
                    continue
                if str(name) in seen:
                    repeated.append(row)
                seen.add(str(name))
        for unit in group:
            stop = unit.start + len(unit)
            marked.append(replace(unit, repeated=tuple(row for row in repeated if unit.start <= row < stop)))
    return marked


def _shard(storage: Storage, path: str, _options: BulkOptions) -> Iterator[Unit]:
    if not storage.exists(path):
        raise InputError("no such file", subject=storage.spell(path))
    yield Shard(Path(path).stem, path)


def slice_pairs(pairs: Sequence[PairPaths], num_actors: int) -> Iterator[PairSlice]:
    """Cut pairs into slices: some for each actor, the first ones small."""
    size = max(
        1, min(MAX_SLICE, len(pairs) // (_SLICES_PER_ACTOR * num_actors)), -(-len(pairs) // MAX_SLICES)
    )
    sizes = [first for first in _FIRST_SLICES if first < size for _ in range(num_actors)]
    start = 0
    for count in itertools.chain(sizes, itertools.repeat(size)):
        if start >= len(pairs):
            return
        part = pairs[start : start + count]
        start += count
        names = tuple(pair.name for pair in part)
        digest = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()
        yield PairSlice(
            f"part-{digest[:16]}", names, tuple(str(p.x) for p in part), tuple(str(p.y) for p in part)
        )
