"""Where the pairs lie in a data set as it is published: LLVIP, SICE, Real-MFF, MFI-WHU, or a folder of pairs.

x and y are in the order of `tcmoa_runtime.contract.SOURCE_ROLES`: visible, over-exposed, far focus come first. Only
names are read here, no image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES
from tcmoa_runtime.pairs import PairPaths, find_pairs

AUTO: Final = "auto"


@dataclass(frozen=True)
class Source:
    """A place with pairs of one task, as a configuration's [pairs] names it.

    `path` is the data set's folder; with `y` it is the folder of x, and `y` the one of y with equal names. `split` is
    the part of LLVIP. `swap` exchanges x and y: Real-MFF and MFI-WHU do not say which of their sources is focused
    far away.
    """

    path: Path
    layout: str = AUTO
    y: Path | None = None
    split: str = "train"
    swap: bool = False


@dataclass(frozen=True)
class PairFiles(PairPaths):
    """The files of a pair; with `brighter_first` the brighter one is x, whatever its name says."""

    brighter_first: bool = False


def _images(folder: Path, suffix: str = "") -> dict[str, Path]:
    """Images of a folder whose stems end in `suffix`, by what stands before it."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images")
    return {
        path.stem.removesuffix(suffix): path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and path.stem.endswith(suffix)
    }


def _matched(x: dict[str, Path], y: dict[str, Path], where: Path, wanted: str) -> list[PairFiles]:
    alone = sorted(x.keys() ^ y.keys())
    if alone or not x:
        what = f"without a partner: {', '.join(alone[:3])}" if alone else "no pair of images"
        rest = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
        raise InputError(f"{where}: {what}{rest}; expected {wanted}")
    return [PairFiles(name, x[name], y[name]) for name in sorted(x)]


def _plain(source: Source) -> list[PairFiles]:
    return [PairFiles(pair.name, pair.x, pair.y) for pair in find_pairs(source.path, source.y)]


def _llvip(source: Source) -> list[PairFiles]:
    """Registered pairs of equal names, 12025 in `train` and 3463 in `test`, 1280x1024."""
    visible, infrared = (source.path / kind / source.split for kind in ("visible", "infrared"))
    return _matched(
        _images(visible), _images(infrared), source.path, f"equal names in {visible} and {infrared}"
    )


def _sice_scenes(folder: Path) -> list[Path]:
    """Folders of one exposure sequence each (their names are numbers), in the parts that lie in `folder`."""
    parts = [child for child in sorted(folder.glob("Dataset_Part*")) if child.is_dir()]
    if parts:
        return [scene for part in parts for scene in _sice_scenes(part)]
    scenes = [child for child in folder.iterdir() if child.name.isdigit() and child.is_dir()]
    return sorted(scenes, key=lambda scene: int(scene.name))


def _sice(source: Source) -> list[PairFiles]:
    """The most over-exposed against the most under-exposed image of each sequence, as the paper takes them (Sec. 4.1).

    Files are numbered from the shortest exposure to the longest; brightness has the last word when they are read.
    `Label`, the reference images, is left out.
    """
    pairs = []
    for scene in _sice_scenes(source.path):
        numbered = {int(stem): path for stem, path in _images(scene).items() if stem.isdigit()}
        if len(numbered) < 2:
            raise InputError(
                f"{scene}: {len(numbered)} numbered images, expected an exposure sequence of two or more"
            )
        name = f"{scene.parent.name}/{scene.name}"
        pairs.append(PairFiles(name, numbered[max(numbered)], numbered[min(numbered)], brighter_first=True))
    if not pairs:
        raise InputError(f"{source.path}: no exposure sequences; expected {LAYOUTS['sice'].looks}")
    return pairs


def _real_mff(source: Source) -> list[PairFiles]:
    """710 pairs, NNN_A and NNN_B."""
    x, y = (_images(source.path / f"image{side}", f"_{side}") for side in "AB")
    return _matched(x, y, source.path, LAYOUTS["realmff"].looks)


def _mfi_whu(source: Source) -> list[PairFiles]:
    """120 pairs of equal names."""
    x, y = (_images(source.path / f"source_{number}") for number in (1, 2))
    return _matched(x, y, source.path, LAYOUTS["mfi-whu"].looks)


def _has(*folders: str) -> Callable[[Path], bool]:
    return lambda path: all((path / folder).is_dir() for folder in folders)


def _has_pairs(path: Path) -> bool:
    return any(
        child.suffix.lower() in IMAGE_SUFFIXES and child.stem.endswith(("_x", "_y"))
        for child in path.iterdir()
    )


@dataclass(frozen=True)
class Layout:
    """How a data set looks on disk, whether a folder is one, and its pairs."""

    looks: str
    fits: Callable[[Path], bool]
    pairs: Callable[[Source], list[PairFiles]]


LAYOUTS: Final[Mapping[str, Layout]] = MappingProxyType(
    {
        "pairs": Layout("NAME_x.EXT beside NAME_y.EXT", _has_pairs, _plain),
        "llvip": Layout(
            "visible/train and infrared/train of equal names", _has("visible", "infrared"), _llvip
        ),
        "sice": Layout("Dataset_Part1/SCENE/1.JPG, 2.JPG, ...", lambda path: bool(_sice_scenes(path)), _sice),
        "realmff": Layout("imageA/NAME_A.EXT and imageB/NAME_B.EXT", _has("imageA", "imageB"), _real_mff),
        "mfi-whu": Layout("source_1 and source_2 of equal names", _has("source_1", "source_2"), _mfi_whu),
    }
)
"""Layouts by name, in the order in which `auto` tries them. The paper writes SICE as "SCIE"."""


def _listing(folder: Path) -> str:
    names = sorted(child.name for child in folder.iterdir())
    if not names:
        return "nothing"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def find_layout(path: Path) -> str:
    """The name of the layout that a folder has; InputError where none fits, naming what is there and what could be."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder of images")
    for name, layout in LAYOUTS.items():
        if layout.fits(path):
            return name
    expected = "; ".join(f"{layout.looks} ({name})" for name, layout in LAYOUTS.items())
    raise InputError(f"{path}: no layout of pairs fits; found {_listing(path)}; expected one of: {expected}")


def find_files(source: Source) -> list[PairFiles]:
    """The pairs of `source` by name.

    Raises InputError when the folder is missing, has another layout than asked for, or holds images without a partner.
    """
    if source.y is not None:
        pairs = _plain(source)
    else:
        name = find_layout(source.path) if source.layout == AUTO else source.layout
        if not source.path.is_dir():
            raise InputError(f"{source.path}: no such folder of images")
        pairs = LAYOUTS[name].pairs(source)
    if source.swap:
        pairs = [PairFiles(pair.name, pair.y, pair.x) for pair in pairs]
    return pairs


def as_source(value: object, here: Path) -> Source:
    """A place as a configuration gives it: a folder, or a table; relative paths start at `here`.

    Raises ValueError saying what a table may hold.
    """
    if isinstance(value, str):
        return Source(here / value)
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is no folder and no table")  # noqa: TRY004
    unknown = sorted(value.keys() - {"path", "layout", "x", "y", "split", "swap"})
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; known are layout, path, split, swap, x, y")
    for key, entry in value.items():
        if not isinstance(entry, bool if key == "swap" else str):
            raise ValueError(f"{key!r} is {entry!r}")  # noqa: TRY004
    layout = value.get("layout", AUTO)
    if layout not in (AUTO, *LAYOUTS):
        raise ValueError(f"layout is {layout!r}, expected one of {', '.join((AUTO, *LAYOUTS))}")
    two = "x" in value and "y" in value
    if two == ("path" in value) or ("x" in value) != ("y" in value) or (two and layout != AUTO):
        raise ValueError("expected either 'path', or 'x' and 'y' without 'layout'")
    return Source(
        here / (value["x"] if two else value["path"]),
        layout=layout,
        y=here / value["y"] if two else None,
        split=value.get("split", Source.split),
        swap=value.get("swap", Source.swap),
    )
