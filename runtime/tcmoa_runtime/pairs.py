"""Pairs of image files: `NAME_x.EXT` and `NAME_y.EXT` in one folder, or equal names in two folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES, format_size, in_order, read_frame, read_image
from tcmoa_runtime.typing import ChannelOrder, Frame

_MAX_SHOWN: Final = 3


@dataclass(frozen=True)
class PairPaths:
    """Paths of the two images of a pair, and the name that they share."""

    name: str
    x: Path
    y: Path


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
        InputError: A file is not a readable image, or the two sizes differ.
    """
    x, y = (in_order(read_image(path), order) for path in (pair.x, pair.y))
    if same_size:
        _check_sizes(pair, x, y)
    return x, y


def read_frame_pair(pair: PairPaths) -> tuple[Frame, Frame]:
    """Read both images of a pair as RGB frames, uint8 [H, W, 3]; 16 bits are stretched.

    Raises:
        InputError: A file is not a readable image, or the two sizes differ.
    """
    x, y = read_frame(pair.x), read_frame(pair.y)
    _check_sizes(pair, x, y)
    return x, y


def _check_sizes(pair: PairPaths, x: NDArray[Any], y: NDArray[Any]) -> None:
    if x.shape[:2] != y.shape[:2]:
        raise InputError(
            f"x is {format_size(x.shape)} and y ({pair.y}) {format_size(y.shape)}; "
            f"expected two registered images of one size",
            subject=pair.x,
        )


def find_pairs(x: str | os.PathLike[str], y: str | os.PathLike[str] | None = None) -> list[PairPaths]:
    """Find the pairs of one folder or of two, sorted by name.

    Args:
        x: A folder with `NAME_x.EXT` and `NAME_y.EXT`, or the folder of the first images.
        y: The folder of the second images: the same names as in `x`, with or without `_x` and `_y`.

    Raises:
        InputError: There is no pair, or an image has no partner.
    """
    folder_x = Path(x)
    folder_y = folder_x if y is None else Path(y)
    images_x, images_y = _list_images(folder_x), _list_images(folder_y)
    if folder_x.resolve() == folder_y.resolve():
        of_x = {s.removesuffix("_x"): p for s, p in images_x.items() if s.endswith("_x")}
        of_y = {s.removesuffix("_y"): p for s, p in images_y.items() if s.endswith("_y")}
        expected = "NAME_x.EXT and NAME_y.EXT"
    else:
        same = images_x.keys() == images_y.keys()  # also where all names end in _x
        of_x = images_x if same else _without_suffix(images_x, "_x")
        of_y = images_y if same else _without_suffix(images_y, "_y")
        expected = "the same names in both folders"
    where = str(folder_x) if y is None or folder_x == folder_y else f"{folder_x} and {folder_y}"
    if not of_x.keys() & of_y.keys():
        raise InputError(f"no pair of images; expected {expected}", subject=where)
    alone = sorted(of_x.keys() ^ of_y.keys())
    if alone:
        rest = f" and {len(alone) - _MAX_SHOWN} more" if len(alone) > _MAX_SHOWN else ""
        names = ", ".join(alone[:_MAX_SHOWN])
        raise InputError(f"no partner for {names}{rest}; expected {expected}", subject=where)
    return [PairPaths(name, of_x[name], of_y[name]) for name in sorted(of_x)]


def _list_images(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by their names without extension."""
    if not folder.is_dir():
        raise InputError("no such folder of images", subject=folder)
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise _ambiguous(folder, found[path.stem], path)
            found[path.stem] = path
    return found


def _without_suffix(images: dict[str, Path], suffix: str) -> dict[str, Path]:
    """Return the images by their names without `suffix`, if they have it."""
    found: dict[str, Path] = {}
    for stem, path in images.items():
        name = stem.removesuffix(suffix)
        if name in found:
            raise _ambiguous(path.parent, found[name], path)
        found[name] = path
    return found


def _ambiguous(folder: Path, first: Path, second: Path) -> InputError:
    return InputError(
        f"{first.name} and {second.name} belong to the same pair; expected one image of each name",
        subject=folder,
        remedy="Keep one of them",
    )
