"""Which images of two folders belong together: those of equal names, or of equal numbers in their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from tcmoa_runtime.location import printable
from tcmoa_runtime.streams.interfaces import SourceError

_NUMBERS: Final = re.compile(r"(\d+)")

Key: TypeAlias = Hashable
"""What two images that belong together share."""


@dataclass(frozen=True, slots=True)
class ListedImages:
    """The images of a folder or pattern, in their order.

    Attributes:
        name: The folder or pattern.
        paths: The images.
        numbers: The number of each image, None if their names do not agree on one.
    """

    name: str
    paths: Sequence[Path]
    numbers: Sequence[int] | None


@dataclass(frozen=True, slots=True)
class Matching:
    """Times of the images of x and y on one clock, in frames; equal times belong together.

    Attributes:
        x: Times of the images of x; increasing.
        y: Times of the images of y.
        message: What is to be said about it, None if each image has a partner.
    """

    x: Sequence[int]
    y: Sequence[int]
    message: str | None


def numbers_in_names(paths: Sequence[Path]) -> Sequence[int] | None:
    """Return the number in each name; None unless all names differ in one number only, e.g. `night_0001.png`."""
    parts = [_NUMBERS.split(path.stem) for path in paths]
    if len({len(split) for split in parts}) != 1 or len(parts[0]) == 1:
        return None
    varying = [i for i, column in enumerate(zip(*parts, strict=True)) if len(set(column)) > 1]
    if not varying and len(parts[0]) == 3:
        varying = [1]  # one image with one number
    if len(varying) != 1 or varying[0] % 2 == 0:
        return None
    numbers = [int(split[varying[0]]) for split in parts]
    return numbers if len(set(numbers)) == len(numbers) else None


def match_images(x: ListedImages, y: ListedImages) -> Matching | None:
    """Match the images of x and y by their names or numbers, whichever more of them share.

    Args:
        x: Images of the first source.
        y: Images of the second source.

    Returns:
        The matching; None if they share no name and no number, but are equally many.

    Raises:
        SourceError: It is not clear which images belong together.
    """
    if x.numbers is not None and y.numbers is not None:
        _check_numbering(x, y)
        by_number = _common(x.numbers, y.numbers)
    else:
        by_number = 0
    stems_x, stems_y = _stems(x), _stems(y)
    by_name = _common(stems_x, stems_y)
    if by_name == by_number == 0:
        if len(x.paths) == len(y.paths):
            return None
        raise _ambiguous(x, y, f"{len(x.paths)} and {len(y.paths)} images without a common name or number")
    if by_number > by_name and x.numbers is not None and y.numbers is not None:
        rank: Mapping[Key, int] = {n: i for i, n in enumerate(sorted({*x.numbers, *y.numbers}))}
        return Matching(
            [rank[n] for n in x.numbers],
            [rank[n] for n in y.numbers],
            _describe(x, y, x.numbers, y.numbers, "number"),
        )
    _check_unique(x, stems_x)
    _check_unique(y, stems_y)
    rank = {stem: i for i, stem in enumerate(sorted({*stems_x, *stems_y}, key=natural_key))}
    return Matching(
        [rank[stem] for stem in stems_x],
        [rank[stem] for stem in stems_y],
        _describe(x, y, stems_x, stems_y, "name"),
    )


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Compare numbers by value and the rest as text; equal numbers (frame1, frame01) by the whole name."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in _NUMBERS.split(name) if part
    ], name


def _stems(images: ListedImages) -> Sequence[str]:
    return [path.stem for path in images.paths]


def _common(x: Sequence[Key], y: Sequence[Key]) -> int:
    return len({*x} & {*y})


def _check_numbering(x: ListedImages, y: ListedImages) -> None:
    """Refuse x from 0 to 9 with y from 1 to 10: an image may be missing at either end, or the numbering differs."""
    first, second = sorted(x.numbers or ()), sorted(y.numbers or ())
    is_complete = all(n[-1] - n[0] == len(n) - 1 for n in (first, second))
    if is_complete and len(first) == len(second) > 1 and 0 < abs(first[0] - second[0]) < len(first):
        raise _ambiguous(x, y, f"images {first[0]} to {first[-1]} and {second[0]} to {second[-1]}")


def _check_unique(images: ListedImages, stems: Sequence[str]) -> None:
    stem, count = Counter(stems).most_common(1)[0]
    if count > 1:
        raise SourceError(f"{count} images of the name {printable(stem)}; expected one", subject=images.name)


def _describe(
    x: ListedImages, y: ListedImages, keys_x: Sequence[Key], keys_y: Sequence[Key], kind: str
) -> str | None:
    alone = [
        path
        for images, keys, others in ((x, keys_x, {*keys_y}), (y, keys_y, {*keys_x}))
        for path, key in zip(images.paths, keys, strict=True)
        if key not in others
    ]
    if not alone:
        return None
    plural = "image has" if len(alone) == 1 else "images have"
    return f"paired by {kind}; {len(alone)} {plural} no partner, the first is {printable(str(alone[0]))}"


def _ambiguous(x: ListedImages, y: ListedImages, problem: str) -> SourceError:
    return SourceError(
        f"{problem}; expected images of equal names or numbers",
        subject=f"{x.name} and {y.name}",
        remedy="Rename them, or set {images_by} to pair them in their order.",
        settings={"images_by": "place"},
    )
