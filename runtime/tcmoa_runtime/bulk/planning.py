"""What there is to fuse: folders, Parquet files and tar files become units of work."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from tcmoa_runtime.bulk.file_systems import is_one_file_system, open_storage
from tcmoa_runtime.bulk.listing import SourceFolder, list_pair_columns
from tcmoa_runtime.bulk.pair_columns import PairColumns
from tcmoa_runtime.bulk.parquet_rows import list_row_groups, read_rows
from tcmoa_runtime.bulk.storage import Storage
from tcmoa_runtime.bulk.units import PIECE_MARK, PairFailure, RowGroup, Shard
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.location import redact, scheme_of
from tcmoa_runtime.options.bulk import DEFAULT_COLUMNS, BulkOptions, Container
from tcmoa_runtime.pairs import find_pairs, is_table

PARQUET_SUFFIX: Final = ".parquet"
TAR_SUFFIX: Final = ".tar"
_CONTAINERS: Final[dict[str, Container]] = {PARQUET_SUFFIX: "parquet", TAR_SUFFIX: "webdataset"}


@dataclass(frozen=True)
class FileInput:
    """Pairs of image files, and what belongs to none.

    Attributes:
        locations: Of x and of y, for their file systems.
        storages: These file systems; one object if they are the same.
        pairs: The pairs.
        failures: Images without a partner.
        container: How results are stored if the options do not say.
    """

    locations: tuple[str, str]
    storages: tuple[Storage, Storage]
    pairs: PairColumns
    failures: list[PairFailure] = field(default_factory=list)
    container: Container = "files"

    def folders(self) -> Iterator[tuple[Storage, str]]:
        """Yield the folders that sources are in."""
        for storage, source in zip(self.storages, (self.pairs.x, self.pairs.y), strict=True):
            for folder in source.folders():
                yield storage, folder


@dataclass(frozen=True)
class ContainerInput:
    """Files that hold many pairs each, as units, and those of them that cannot be read."""

    location: str
    storage: Storage
    units: tuple[RowGroup | Shard, ...]
    container: Container
    failures: list[PairFailure] = field(default_factory=list)

    @property
    def locations(self) -> tuple[str, str]:
        """Locations of x and of y, for their file systems."""
        return self.location, self.location

    def folders(self) -> Iterator[tuple[Storage, str]]:
        """Yield the folders that the files are in."""
        for folder in {unit.path.rpartition("/")[0] for unit in self.units}:
            yield self.storage, folder


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
            return FileInput((x, x), (storage, storage), PairColumns.from_paths(pairs))
    elif not storage.is_remote and _has_both_sources(Path(path)):
        raise InputError(
            "has both sources, and a second location is given; expected it alone",
            subject=path,
            remedy="Leave out the second location.",
        )
    return _file_input(x, y, storage, path, options)


def _has_both_sources(path: Path) -> bool:
    return path.is_file() and (is_table(path) or path.suffix.lower() in _CONTAINERS)


def _file_input(x: str, y: str | None, storage: Storage, path: str, options: BulkOptions) -> FileInput:
    if options.columns != DEFAULT_COLUMNS:
        raise InputError("given with files of images; expected Parquet or tar files", subject="columns")
    storage_y, path_y = (storage, path) if y is None else open_storage(y)
    if is_one_file_system(storage, storage_y):
        storage_y = storage
    for of, folder in ((storage, path), (storage_y, path_y)):
        if not of.is_remote and Path(folder).is_file():
            raise InputError("a file; expected a folder of images", subject=folder)
    try:
        pairs, failures = list_pair_columns(
            SourceFolder(storage, path), SourceFolder(storage_y, path_y), options.x_pattern, options.y_pattern
        )
    except InputError as refused:
        if "pairs" not in refused.settings:
            raise
        remedy = (refused.remedy or "").replace("give it as {pairs}", "give it in place of the folders")
        raise InputError(
            refused.problem, subject=refused.subject, remedy=remedy, settings=refused.settings
        ) from refused
    return FileInput((x, x if y is None else y), (storage, storage_y), pairs, failures)


def _find_containers(storage: Storage, path: str) -> tuple[str, dict[str, int | None]] | None:
    """Return the suffix of Parquet or tar files, one that is named or those of a folder, and their times by path."""
    suffix = Path(path).suffix.lower()
    if not storage.is_folder(Path(path)):
        if suffix not in _CONTAINERS:
            return None
        found = storage.find(path)
        return suffix, {path: None if found is None else found.modified_ns}
    times: dict[str, dict[str, int | None]] = {suffix: {} for suffix in _CONTAINERS}
    for file in storage.list_files(path):
        for suffix, of_suffix in times.items():
            if not file.is_folder and _is_visible(file.name, suffix):
                of_suffix[f"{path}/{file.name}"] = file.modified_ns
    return next(((suffix, dict(sorted(found.items()))) for suffix, found in times.items() if found), None)


def _is_visible(name: str, suffix: str) -> bool:
    return name.lower().endswith(suffix) and not name.startswith((".", "_"))


def _container_input(
    location: str, storage: Storage, suffix: str, paths: Mapping[str, int | None], options: BulkOptions
) -> ContainerInput:
    if options.x_pattern is not None:
        raise InputError("given with Parquet or tar files; expected folders of images", subject="x_pattern")
    read: Callable[[Storage, str, BulkOptions], Iterator[RowGroup | Shard]] = (
        _row_groups if suffix == PARQUET_SUFFIX else _shard
    )
    units: list[RowGroup | Shard] = []
    failures = []
    first: dict[str, str] = {}
    for path, modified_ns in paths.items():
        file = Path(path)
        try:
            _check_stem(file, first.setdefault(file.stem, file.name), storage)
            units += [replace(unit, modified_ns=modified_ns) for unit in read(storage, path, options)]
        except InputError as error:
            failures.append(PairFailure(file.stem, storage.spell(path), "", error))
    if options.container != "files":
        units = _without_piece_names(storage, units, failures)
    elif len(paths) > 1:  # keys of different tar files may be equal
        units = [replace(unit, folder=unit.part) if isinstance(unit, Shard) else unit for unit in units]
    if suffix == PARQUET_SUFFIX and options.container == "files" and len(options.columns) == 3:
        units = _mark_repeated(storage, units, options.columns[2])  # one image would replace the other
    if not units:
        if failures:
            raise failures[0].error
        raise InputError("no pairs; expected rows or samples", subject=redact(location))
    return ContainerInput(location, storage, tuple(units), _CONTAINERS[suffix], failures)


def _check_stem(file: Path, first: str, storage: Storage) -> None:
    """Raise InputError for a file whose results would replace those of the first one of its name."""
    if file.name != first:
        raise InputError(
            f"the name of {first} too, but for its suffix; expected a name for each",
            subject=storage.spell(str(file)),
        )


def _without_piece_names(
    storage: Storage, units: Sequence[RowGroup | Shard], failures: list[PairFailure]
) -> list[RowGroup | Shard]:
    """Return the units but those whose results would have the name of a piece of another one; these fail."""
    paths = {unit.part: unit.path for unit in units}
    other_of: dict[str, str] = {}
    for unit in units:
        words = unit.part.split(PIECE_MARK)
        starts = (PIECE_MARK.join(words[:count]) for count in range(1, len(words)))
        other = next((paths[start] for start in starts if start in paths), None)
        if other is not None:
            other_of.setdefault(unit.path, other)
    failures += [
        PairFailure(
            Path(path).stem,
            storage.spell(path),
            "",
            InputError(
                f"the name of a part of the results of {Path(other).name}; expected another one",
                subject=storage.spell(path),
                remedy=f"Rename it, without the {PIECE_MARK}",
            ),
        )
        for path, other in other_of.items()
    ]
    return [unit for unit in units if unit.path not in other_of]


def _row_groups(storage: Storage, path: str, options: BulkOptions) -> Iterator[RowGroup]:
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


def _mark_repeated(
    storage: Storage, units: Sequence[RowGroup | Shard], column: str
) -> list[RowGroup | Shard]:
    """Return units of rows with the numbers of rows that have the name of a row before them, in all files."""
    seen: set[str] = set()
    marked: list[RowGroup | Shard] = []
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


def _shard(storage: Storage, path: str, _options: BulkOptions) -> Iterator[Shard]:
    if not storage.exists(path):
        raise InputError("no such file", subject=storage.spell(path))
    yield Shard(Path(path).stem, path)
