"""Finding pairs of images: `NAME_x.EXT` beside `NAME_y.EXT`, or equal names in two folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES


@dataclass(frozen=True)
class PairPaths:
    """Where the two images of a pair lie, and the name they share."""

    name: str
    x: Path
    y: Path


def _images(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise InputError(
                    f"{folder}: {found[path.stem].name} and {path.name} share a name; keep one of them"
                )
            found[path.stem] = path
    return found


def _source(images: dict[str, Path], suffix: str) -> dict[str, Path]:
    """The images by their names without `suffix`, where they have it."""
    found: dict[str, Path] = {}
    for stem, path in images.items():
        name = stem.removesuffix(suffix)
        if name in found:
            raise InputError(
                f"{path.parent}: {found[name].name} and {path.name} name the same pair; keep one of them"
            )
        found[name] = path
    return found


def find_pairs(x: str | os.PathLike[str], y: str | os.PathLike[str] | None = None) -> list[PairPaths]:
    """The pairs of one folder (`NAME_x.EXT`, `NAME_y.EXT`), or of two folders of equal names, by name.

    In two folders the `_x` and `_y` may be there or not. Raises InputError when there is no pair, or when an
    image has no partner.
    """
    folder_x = Path(x)
    folder_y = folder_x if y is None else Path(y)
    images_x, images_y = _images(folder_x), _images(folder_y)
    if folder_x.resolve() == folder_y.resolve():
        of_x = {s.removesuffix("_x"): p for s, p in images_x.items() if s.endswith("_x")}
        of_y = {s.removesuffix("_y"): p for s, p in images_y.items() if s.endswith("_y")}
        wanted = "NAME_x.EXT and NAME_y.EXT in it"
    else:
        same = images_x.keys() == images_y.keys()  # even where all names end in _x
        of_x = images_x if same else _source(images_x, "_x")
        of_y = images_y if same else _source(images_y, "_y")
        wanted = "the same names in both"
    where = str(folder_x) if y is None or folder_x == folder_y else f"{folder_x} and {folder_y}"
    if not of_x.keys() & of_y.keys():
        raise InputError(f"{where}: no pair of images; expected {wanted}")
    alone = sorted(of_x.keys() ^ of_y.keys())
    if alone:
        rest = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
        raise InputError(f"{where}: without a partner: {', '.join(alone[:3])}{rest}; expected {wanted}")
    return [PairPaths(name, of_x[name], of_y[name]) for name in sorted(of_x)]
