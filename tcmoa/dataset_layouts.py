"""Where the pairs of a published data set are: LLVIP, SICE, Real-MFF, MFI-WHU, or a folder of pairs.

x and y are in the order of `tcmoa_runtime.contract.SOURCE_ROLES`: visible, over-exposed and far focus come first. Only
file names are read here, no images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, cast, get_args

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES
from tcmoa_runtime.pairs import PairPaths, find_pairs

LayoutName: TypeAlias = Literal["pairs", "llvip", "sice", "realmff", "mfi-whu"]
AUTO: Final = "auto"

_MAX_NAMES: Final = 3
_MAX_LISTED: Final = 5


@dataclass(frozen=True)
class PairSource:
    """A folder with pairs of one task, as an entry of a configuration's [pairs].

    Attributes:
        path: The folder of the data set; with `y` the folder of the first images.
        layout: The layout of the folder; `auto` recognizes it.
        y: The folder of the second images, with the same names as in `path`.
        split: The part of LLVIP, `train` or `test`.
        swap: Exchange x and y. Real-MFF and MFI-WHU do not state which of their sources is focused far away.
    """

    path: Path
    layout: LayoutName | Literal["auto"] = AUTO
    y: Path | None = None
    split: str = "train"
    swap: bool = False


@dataclass(frozen=True)
class DatasetPair(PairPaths):
    """The paths of a pair; with `brighter_first` the brighter image becomes x, whatever the names are."""

    brighter_first: bool = False


def _images(folder: Path, suffix: str = "") -> dict[str, Path]:
    """Return the images of a folder whose stems end in `suffix`, by the stem without it."""
    if not folder.is_dir():
        raise InputError("no such folder of images", subject=folder)
    return {
        path.stem.removesuffix(suffix): path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and path.stem.endswith(suffix)
    }


def _match_names(x: dict[str, Path], y: dict[str, Path], where: Path, expected: str) -> list[DatasetPair]:
    alone = sorted(x.keys() ^ y.keys())
    if alone or not x:
        problem = f"no partner for {', '.join(alone[:_MAX_NAMES])}" if alone else "no pair of images"
        rest = f" and {len(alone) - _MAX_NAMES} more" if len(alone) > _MAX_NAMES else ""
        raise InputError(f"{problem}{rest}; expected {expected}", subject=where)
    return [DatasetPair(name, x[name], y[name]) for name in sorted(x)]


def _find_plain(source: PairSource) -> list[DatasetPair]:
    return [DatasetPair(pair.name, pair.x, pair.y) for pair in find_pairs(source.path, source.y)]


def _find_llvip(source: PairSource) -> list[DatasetPair]:
    """Registered pairs of equal names, 12025 in `train` and 3463 in `test`, 1280x1024."""
    visible, infrared = (source.path / kind / source.split for kind in ("visible", "infrared"))
    return _match_names(
        _images(visible), _images(infrared), source.path, f"equal names in {visible} and {infrared}"
    )


def _sice_scenes(folder: Path) -> list[Path]:
    """Folders of one exposure sequence each (their names are numbers), in the parts inside `folder`."""
    parts = [child for child in sorted(folder.glob("Dataset_Part*")) if child.is_dir()]
    if parts:
        return [scene for part in parts for scene in _sice_scenes(part)]
    scenes = [child for child in folder.iterdir() if child.name.isdigit() and child.is_dir()]
    return sorted(scenes, key=lambda scene: int(scene.name))


def _find_sice(source: PairSource) -> list[DatasetPair]:
    """The most over-exposed and the most under-exposed image of each sequence, as in the paper (Sec. 4.1).

    Files are numbered from the shortest exposure to the longest; `brighter_first` corrects exceptions. The reference
    images in `Label` are ignored.
    """
    pairs = []
    for scene in _sice_scenes(source.path):
        numbered = {int(stem): path for stem, path in _images(scene).items() if stem.isdigit()}
        if len(numbered) < 2:
            raise InputError(
                f"{len(numbered)} numbered images; expected an exposure sequence of two or more",
                subject=scene,
            )
        name = f"{scene.parent.name}/{scene.name}"
        pairs.append(DatasetPair(name, numbered[max(numbered)], numbered[min(numbered)], brighter_first=True))
    if not pairs:
        raise InputError(
            f"no exposure sequences; expected {LAYOUTS['sice'].description}", subject=source.path
        )
    return pairs


def _find_real_mff(source: PairSource) -> list[DatasetPair]:
    """710 pairs, NNN_A and NNN_B."""
    x, y = (_images(source.path / f"image{side}", f"_{side}") for side in "AB")
    return _match_names(x, y, source.path, LAYOUTS["realmff"].description)


def _find_mfi_whu(source: PairSource) -> list[DatasetPair]:
    """120 pairs of equal names."""
    x, y = (_images(source.path / f"source_{number}") for number in (1, 2))
    return _match_names(x, y, source.path, LAYOUTS["mfi-whu"].description)


def _has(*folders: str) -> Callable[[Path], bool]:
    return lambda path: all((path / folder).is_dir() for folder in folders)


def _has_pairs(path: Path) -> bool:
    return any(
        child.suffix.lower() in IMAGE_SUFFIXES and child.stem.endswith(("_x", "_y"))
        for child in path.iterdir()
    )


@dataclass(frozen=True)
class DatasetLayout:
    """How a data set is arranged on disk.

    Attributes:
        description: The arrangement in words, for messages.
        matches: Whether a folder is arranged so.
        find: Lists the pairs of a source.
    """

    description: str
    matches: Callable[[Path], bool]
    find: Callable[[PairSource], list[DatasetPair]]


LAYOUTS: Final[Mapping[LayoutName, DatasetLayout]] = MappingProxyType(
    {
        "pairs": DatasetLayout("NAME_x.EXT beside NAME_y.EXT", _has_pairs, _find_plain),
        "llvip": DatasetLayout(
            "visible/train and infrared/train of equal names", _has("visible", "infrared"), _find_llvip
        ),
        "sice": DatasetLayout(
            "Dataset_Part1/SCENE/1.JPG, 2.JPG, ...", lambda path: bool(_sice_scenes(path)), _find_sice
        ),
        "realmff": DatasetLayout(
            "imageA/NAME_A.EXT and imageB/NAME_B.EXT", _has("imageA", "imageB"), _find_real_mff
        ),
        "mfi-whu": DatasetLayout(
            "source_1 and source_2 of equal names", _has("source_1", "source_2"), _find_mfi_whu
        ),
    }
)
"""Layouts by name, in the order in which `auto` tries them. The paper spells SICE "SCIE"."""


def _list_names(folder: Path) -> str:
    names = sorted(child.name for child in folder.iterdir())
    if not names:
        return "nothing"
    rest = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + rest


def find_layout(path: Path) -> LayoutName:
    """Recognize the layout of a folder.

    Raises:
        InputError: The folder is missing or matches no layout; the message lists its content and all layouts.
    """
    if not path.is_dir():
        raise InputError("no such folder of images", subject=path)
    for name, layout in LAYOUTS.items():
        if layout.matches(path):
            return name
    expected = "; ".join(f"{layout.description} ({name})" for name, layout in LAYOUTS.items())
    raise InputError(
        f"no known layout of pairs, found {_list_names(path)}; expected one of: {expected}", subject=path
    )


def find_dataset_pairs(source: PairSource) -> list[DatasetPair]:
    """List the pairs of `source`, sorted by name.

    Raises:
        InputError: The folder is missing, has another layout, or holds an image without a partner.
    """
    if source.y is not None:
        pairs = _find_plain(source)
    else:
        name = find_layout(source.path) if source.layout == AUTO else source.layout
        if not source.path.is_dir():
            raise InputError("no such folder of images", subject=source.path)
        pairs = LAYOUTS[name].find(source)
    if source.swap:
        pairs = [DatasetPair(pair.name, pair.y, pair.x) for pair in pairs]
    return pairs


def parse_pair_source(value: object, base: Path) -> PairSource:
    """Parse an entry of a configuration's [pairs]: a folder, or a table; relative paths start at `base`.

    Raises:
        InputError: The entry is of another type, or its keys are unknown or contradict each other.
    """
    if isinstance(value, str):
        return PairSource(base / value)
    if not isinstance(value, dict):
        raise InputError(f"{value!r} is neither a folder nor a table")
    unknown = sorted(value.keys() - {"path", "layout", "x", "y", "split", "swap"})
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r}; expected one of layout, path, split, swap, x, y")
    for key, entry in value.items():
        kind = bool if key == "swap" else str
        if not isinstance(entry, kind):
            raise InputError(f"{key!r} is {entry!r}; expected a value of type {kind.__name__}")
    layout = value.get("layout", AUTO)
    known = (AUTO, *get_args(LayoutName))
    if layout not in known:
        raise InputError(f"layout is {layout!r}; expected one of {', '.join(known)}")
    two = "x" in value and "y" in value
    if two == ("path" in value) or ("x" in value) != ("y" in value) or (two and layout != AUTO):
        raise InputError(
            f"keys {', '.join(sorted(value))}; expected either 'path', or 'x' and 'y' without 'layout'"
        )
    return PairSource(
        base / (value["x"] if two else value["path"]),
        layout=cast("LayoutName", layout),
        y=base / value["y"] if two else None,
        split=value.get("split", PairSource.split),
        swap=value.get("swap", PairSource.swap),
    )
