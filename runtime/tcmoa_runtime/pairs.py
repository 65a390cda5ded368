"""Pairs of image files, and reading them.

Pairs are the files `NAME_x.EXT` and `NAME_y.EXT` of one folder, equal names in two folders, what two patterns match
(`pair_patterns`), or the rows of a CSV file (`pair_table`).
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES, in_order, read_frame, read_image
from tcmoa_runtime.options.pairs import PairOptions, check_patterns
from tcmoa_runtime.pair_patterns import NamePattern, nearest_names, parse_pattern, suggest_patterns
from tcmoa_runtime.pair_table import TABLE_SUFFIXES, read_table
from tcmoa_runtime.size_errors import SourceSizesError
from tcmoa_runtime.typing import ChannelOrder, Frame

_MAX_SHOWN: Final = 3
_TWO_FOLDERS: Final = "the same names in both folders, or NAME_x.EXT and NAME_y.EXT"
_ONE_FOLDER: Final = "NAME_x.EXT and NAME_y.EXT"
_RENAME: Final = "Rename the files of one source, so that equal names are spelled equally"


@dataclass(frozen=True)
class PairPaths:
    """Paths of the two images of a pair, and the name that they share."""

    name: str
    x: Path
    y: Path


class FolderReader(Protocol):
    """Lists folders: those of a disk, or of another file system whose paths are separated by slashes."""

    def spell(self, path: str) -> str:
        """Return how a user calls a path."""
        ...

    def is_folder(self, folder: Path) -> bool:
        """Return whether there is a folder at the path."""
        ...

    def list_entries(self, folder: Path) -> Iterable[tuple[str, bool]]:
        """Yield the name of each file and folder in a folder, and whether it is a folder."""
        ...


class DiskFolders:
    """Lists the folders that the operating system knows."""

    def spell(self, path: str) -> str:
        """Return the path."""
        return path

    def is_folder(self, folder: Path) -> bool:
        """Return whether there is a folder at the path."""
        return folder.is_dir()

    def list_entries(self, folder: Path) -> Iterable[tuple[str, bool]]:
        """Yield the name of each file and folder in a folder, and whether it is a folder."""
        for entry, is_folder in scan_folder(folder):
            yield entry.name, is_folder


def scan_folder(folder: str | Path) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """Yield each file and folder in a folder of this machine, and whether it is a folder or leads to one.

    Raises:
        InputError: The folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    is_folder = entry.is_dir()
                except OSError:  # a link that leads to itself, or where this user may not look
                    is_folder = False
                yield entry, is_folder
    except OSError as error:
        raise InputError(f"cannot be listed: {error.strerror}", subject=folder) from error


@dataclass(frozen=True)
class PairListing:
    """What folders hold.

    Attributes:
        pairs: The pairs; those of folders are sorted by name.
        only_x: The images of x without a partner, by name.
        only_y: Those of y.
        expected: How the names of a pair belong together.
    """

    pairs: list[PairPaths]
    only_x: dict[str, Path]
    only_y: dict[str, Path]
    expected: str


def read_pair(
    pair: PairPaths, order: ChannelOrder = "rgb", *, same_size: bool = True
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read both images of a pair without conversion.

    Args:
        pair: The paths.
        order: Channel order of the result.
        same_size: Whether the two sizes must be equal; not for a bundle that aligns its sources.

    Returns:
        x and y, uint8 or uint16, [H, W] or [H, W, 3] with the channels in `order`.

    Raises:
        SourceSizesError: The two sizes differ.
        InputError: A file is not a readable image.
    """
    x, y = (in_order(read_image(path), order) for path in (pair.x, pair.y))
    if same_size:
        check_equal_sizes(pair, x, y)
    return x, y


def read_frame_pair(pair: PairPaths) -> tuple[Frame, Frame]:
    """Read both images of a pair as RGB frames, uint8 [H, W, 3]; 16 bits are stretched.

    Raises:
        SourceSizesError: The two sizes differ.
        InputError: A file is not a readable image.
    """
    x, y = read_frame(pair.x), read_frame(pair.y)
    check_equal_sizes(pair, x, y)
    return x, y


def check_equal_sizes(pair: PairPaths, x: NDArray[Any], y: NDArray[Any]) -> None:
    """Raise SourceSizesError when the images of a pair differ in size."""
    if x.shape[:2] != y.shape[:2]:
        raise SourceSizesError((x.shape[0], x.shape[1]), (y.shape[0], y.shape[1]), pair.x, pair.y)


def find_source_pairs(options: PairOptions) -> list[PairPaths]:
    """Find the pairs that options name.

    Raises:
        InputError: The options name none, or as `find_pairs`.
    """
    options.check_pairs()
    x, y = (options.pairs, None) if options.pairs is not None else (options.x, options.y)
    if x is None:
        raise InputError("none given; expected a folder, a CSV file or two folders", subject="source pairs")
    return find_pairs(x, y, x_pattern=options.x_pattern, y_pattern=options.y_pattern)


def find_pairs(
    x: str | os.PathLike[str],
    y: str | os.PathLike[str] | None = None,
    *,
    x_pattern: str | None = None,
    y_pattern: str | None = None,
) -> list[PairPaths]:
    """Find the pairs of one folder, of two, or of a CSV file; those of folders are sorted by name.

    Args:
        x: A folder with `NAME_x.EXT` and `NAME_y.EXT`, the folder of the first images, or a CSV file with the columns
            x,y or x,y,name.
        y: The folder of the second images: the same names as in `x`, with or without `_x` and `_y`.
        x_pattern: Names of the first images, e.g. `VIS{id}.png`, see `pair_patterns`.
        y_pattern: Names of the second images, with the same fields.

    Raises:
        InputError: There is no pair, an image has no partner, or the table or a pattern is malformed.
    """
    folder_x = Path(x)
    folder_y = folder_x if y is None else Path(y)
    if y is None and is_table(folder_x):
        check_patterns(x_pattern, y_pattern)
        return _pairs_of_table(folder_x, has_patterns=x_pattern is not None)
    listing = list_pairs(folder_x, folder_y, x_pattern=x_pattern, y_pattern=y_pattern)
    if listing.only_x or listing.only_y:
        raise _no_partner(_where(str(folder_x), str(folder_y)), listing)
    return listing.pairs


def is_table(path: Path) -> bool:
    """Return whether a path is that of a CSV file of pairs, and of no folder."""
    return path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir()


def list_pairs(
    folder_x: Path,
    folder_y: Path,
    *,
    x_pattern: str | None = None,
    y_pattern: str | None = None,
    readers: tuple[FolderReader, FolderReader] | None = None,
) -> PairListing:
    """Find the pairs of one or two folders, and the images without a partner.

    Args:
        folder_x: The folder of the first images, or of both.
        folder_y: The folder of the second images.
        x_pattern: Names of the first images, see `pair_patterns`.
        y_pattern: Names of the second images.
        readers: List the folder of x and that of y; both are on the disk if None. One object for one file system.

    Raises:
        InputError: There is no pair, two images have one name, or a pattern is malformed.
    """
    check_patterns(x_pattern, y_pattern)
    of_disk = DiskFolders()
    searched_x, searched_y = (
        _Folder(reader, folder)
        for reader, folder in zip(readers or (of_disk, of_disk), (folder_x, folder_y), strict=True)
    )
    for searched in (searched_x, searched_y):
        if not searched.reader.is_folder(searched.path):
            raise InputError("no such folder of images", subject=searched.shown)
    if x_pattern is not None and y_pattern is not None:
        of_x, of_y = _match_patterns(searched_x, searched_y, x_pattern, y_pattern)
    else:
        of_x, of_y = _match_names(searched_x, searched_y)
    expected = expected_names(x_pattern, y_pattern, is_one=searched_x.is_that_of(searched_y))
    both = of_x.keys() & of_y.keys()
    if not both:
        raise _no_pair(searched_x, searched_y, expected)
    pairs = [PairPaths(name, of_x[name], of_y[name]) for name in sorted(both)]
    only_x, only_y = ({name: of[name] for name in sorted(of.keys() - both)} for of in (of_x, of_y))
    return PairListing(pairs, only_x, only_y, expected)


@dataclass(frozen=True)
class _Folder:
    """A folder, and what lists it."""

    reader: FolderReader
    path: Path

    @property
    def shown(self) -> str:
        return self.reader.spell(str(self.path))

    def is_that_of(self, other: _Folder) -> bool:
        """Whether both sources are in this folder."""
        return self.reader is other.reader and self.path.resolve() == other.path.resolve()

    def image_files(self) -> Iterator[Path]:
        """Yield its images, by name."""
        for path in sorted(self.path / name for name, _ in self.reader.list_entries(self.path)):
            if is_image_name(path.name):
                yield path

    def images(self) -> dict[str, Path]:
        """Return its images by their names without extension."""
        return _unique(self.path, ((path.stem, path) for path in self.image_files()))


def expected_names(x_pattern: str | None, y_pattern: str | None, *, is_one: bool) -> str:
    """Describe how the names of a pair belong together, in one folder or in two."""
    if x_pattern is not None:
        return f"files that match {x_pattern!r} and {y_pattern!r}"
    return _ONE_FOLDER if is_one else _TWO_FOLDERS


def is_image_name(name: str) -> bool:
    """Return whether a name is that of an image file, and not hidden."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")  # noqa: PTH122  # of a million names


def _where(folder_x: str, folder_y: str) -> str:
    return folder_x if folder_x == folder_y else f"{folder_x} and {folder_y}"


def _pairs_of_table(path: Path, *, has_patterns: bool) -> list[PairPaths]:
    if has_patterns:
        raise InputError(
            "a table of pairs; expected a folder where patterns are given",
            subject=path,
            remedy="Leave {x_pattern} and {y_pattern} out",
            settings={"x_pattern": ..., "y_pattern": ...},
        )
    return [PairPaths(*row) for row in read_table(path)]


def _match_names(folder_x: _Folder, folder_y: _Folder) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the images of x and of y by the names of their pairs."""
    images_x, images_y = folder_x.images(), folder_y.images()
    if folder_x.is_that_of(folder_y):
        return (
            {s.removesuffix("_x"): p for s, p in images_x.items() if s.endswith("_x")},
            {s.removesuffix("_y"): p for s, p in images_y.items() if s.endswith("_y")},
        )
    if images_x.keys() == images_y.keys():  # also where all names end in _x
        return images_x, images_y
    return _without_suffix(images_x, "_x"), _without_suffix(images_y, "_y")


def parse_patterns(x_pattern: str, y_pattern: str) -> tuple[NamePattern, NamePattern]:
    """Parse the patterns of both sources.

    Raises:
        InputError: One is malformed, or they differ in their fields.
    """
    of_x, of_y = parse_pattern(x_pattern, "x_pattern"), parse_pattern(y_pattern, "y_pattern")
    if of_x.fields != of_y.fields:
        names = ", ".join("{" + name + "}" for name in of_x.fields)
        raise InputError(
            f"{y_pattern!r}; expected the fields of the other pattern, {names}", subject="y_pattern"
        )
    return of_x, of_y


def name_of_key(key: Sequence[str]) -> str:
    """Return the name of the pair whose files have these values of the fields of their patterns."""
    return "-".join(key)


def _match_patterns(
    folder_x: _Folder, folder_y: _Folder, x_pattern: str, y_pattern: str
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the images that match two patterns, by the values of their fields."""

    def matches(folder: _Folder, pattern: NamePattern) -> dict[str, Path]:
        found = pattern.find(folder.path, folder.reader.list_entries)
        return _unique(folder.path, ((name_of_key(key), path) for key, path in found))

    of_x, of_y = parse_patterns(x_pattern, y_pattern)
    return matches(folder_x, of_x), matches(folder_y, of_y)


def _without_suffix(images: Mapping[str, Path], suffix: str) -> dict[str, Path]:
    """Return the images by their names without `suffix`, if they have it."""
    folder = next((path.parent for path in images.values()), Path())
    return _unique(folder, ((stem.removesuffix(suffix), path) for stem, path in images.items()))


def _unique(folder: Path, images: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Return images by name; raises InputError if two have one name."""
    found: dict[str, Path] = {}
    for name, path in images:
        if name in found:
            first, second = (_below(folder, p) for p in (found[name], path))
            raise InputError(
                f"{first} and {second} belong to the same pair; expected one image of each name",
                subject=folder,
                remedy="Keep one of them",
            )
        found[name] = path
    return found


def _below(folder: Path, path: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name


def _no_pair(folder_x: _Folder, folder_y: _Folder, expected: str) -> InputError:
    """Return the error for folders without any pair: what they hold, and the patterns that would pair it."""
    where = _where(folder_x.shown, folder_y.shown)
    names_x = [path.name for path in folder_x.image_files()]
    names_y = [path.name for path in folder_y.image_files()]
    held = (
        f"it holds {_shown(names_x)}"
        if folder_x.is_that_of(folder_y)
        else f"{folder_x.shown} holds {_shown(names_x)}, and {folder_y.shown} {_shown(names_y)}"
    )
    spelling = _spelling(names_x, names_y)
    if spelling is not None:
        return InputError(
            f"no pair of images; expected {expected}, but {spelling}", subject=where, remedy=_RENAME
        )
    nearest = nearest_names(names_x, names_y)
    near = "" if nearest is None else f"; the nearest names are {nearest[0]} and {nearest[1]}"
    patterns = suggest_patterns(names_x, names_y) or ("VIS{id}.png", "IR{id}.png")
    return InputError(
        f"no pair of images; expected {expected}, but {held}{near}",
        subject=where,
        remedy="Say how they are named, e.g. {x_pattern} {y_pattern}, or list them in a CSV file with the columns "
        "x,y and give it as {pairs}",
        settings={"x_pattern": patterns[0], "y_pattern": patterns[1], "pairs": ...},
    )


def _no_partner(where: str, listing: PairListing) -> InputError:
    """Return the error for images without a partner, with the nearest name of the other source."""
    alone = sorted({**listing.only_x, **listing.only_y})
    only_x, only_y = ([only[name].name for name in sorted(only)] for only in (listing.only_x, listing.only_y))
    problem = f"no partner for {_shown(alone)}; expected {listing.expected}"
    spelling = _spelling(only_x, only_y)
    if spelling is not None:
        return InputError(f"{problem}, but {spelling}", subject=where, remedy=_RENAME)
    one = only_x[:1] or only_y[:1]
    others = only_y if only_x else []
    if not others:
        others = [(pair.y if only_x else pair.x).name for pair in listing.pairs]
    nearest = nearest_names(one, others)
    near = "" if nearest is None else f"; the name nearest to {nearest[0]} is {nearest[1]}"
    return InputError(
        f"{problem}{near}",
        subject=where,
        remedy=f"Add or rename the missing images, or move {_shown(alone)} out of the folder",
    )


def _shown(names: list[str]) -> str:
    """Return the first names and how many follow."""
    rest = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return f"{', '.join(names[:_MAX_SHOWN])}{rest}" if names else "no images"


def _spelling(names_x: list[str], names_y: list[str]) -> str | None:
    """Describe two names that look alike: they differ in Unicode normalization, or in case, only."""
    composed = {unicodedata.normalize("NFC", name): name for name in names_y}
    folded = {unicodedata.normalize("NFC", name).casefold(): name for name in names_y}
    for x in names_x:
        key = unicodedata.normalize("NFC", x)
        y = composed.get(key)
        if y is not None and y != x:
            forms = " and ".join(
                "NFC" if name == unicodedata.normalize("NFC", name) else "NFD" for name in (x, y)
            )
            return f"{x} of x and {y} of y differ only in Unicode normalization ({forms})"
        y = folded.get(key.casefold())
        if y is not None and y != x:
            return f"{x} of x and {y} of y differ only in upper and lower case"
    return None
