"""Training pairs, cropped and flipped at random.

Sampling has no state: the batch of a step is a function of (seed, step, task) and, among several processes, of its
part, so that a resumed run sees exactly what an uninterrupted one would.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, overload

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcmoa.layouts import PairFiles, Source, find_files
from tcmoa.pairs import exposure_pair, focus_pair, smooth_mask
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import read_frame

SMALL_BYTES: Final = 64 << 20
"""Sets of at most so many bytes of files are read at the start, and their faults found then; larger ones as needed."""

CACHE_BYTES: Final = 2 << 30
"""Decoded images that are kept of one set; beyond it those used longest ago are read anew."""

Photograph = NDArray[np.uint8]
"""RGB [H, W, 3]."""


@dataclass(frozen=True)
class Pair:
    """Two registered uint8 RGB images of one size, [H, W, 3]."""

    name: str
    x: Photograph
    y: Photograph


def read_pair(files: PairFiles) -> Pair:
    """Decode a pair; InputError on an unreadable image or one whose size differs from its partner's."""
    x, y = read_frame(files.x), read_frame(files.y)
    if x.shape != y.shape:
        raise InputError(
            f"{files.x} is {x.shape[1]}x{x.shape[0]} and {files.y.name} {y.shape[1]}x{y.shape[0]}: "
            f"expected equal sizes"
        )
    if files.brighter_first and x.mean() < y.mean():
        x, y = y, x
    return Pair(files.name, x, y)


class PairSet(Sequence[Pair]):
    """Pairs that are read when they are asked for, and kept as long as there is room for them.

    A set of few bytes (`SMALL_BYTES`) is read at once. Raises InputError as `read_pair` does, then or later.
    """

    def __init__(
        self, files: Sequence[PairFiles], *, small: int = SMALL_BYTES, room: int = CACHE_BYTES
    ) -> None:
        self.files, self.room = files, room
        self._kept: OrderedDict[int, Pair] = OrderedDict()
        self._bytes = 0
        if sum(path.stat().st_size for pair in files for path in (pair.x, pair.y)) <= small:
            for index in range(len(files)):
                self._read(index)

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [self._read(i) for i in range(*index.indices(len(self)))]
        return self._read(range(len(self))[index])

    def _read(self, index: int) -> Pair:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        pair = read_pair(self.files[index])
        self._kept[index] = pair
        self._bytes += pair.x.nbytes + pair.y.nbytes
        while self._bytes > self.room and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.x.nbytes + oldest.y.nbytes
        return pair


class FirstSources(Sequence[Photograph]):
    """The x of each pair, read through the pairs."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> Photograph: ...
    @overload
    def __getitem__(self, index: slice) -> list[Photograph]: ...
    def __getitem__(self, index: int | slice) -> Photograph | list[Photograph]:
        chosen = self.pairs[index]
        return chosen.x if isinstance(chosen, Pair) else [pair.x for pair in chosen]


def read_pairs(place: Path | Sequence[Source]) -> PairSet:
    """The pairs of a folder of any known layout, or of several places together; InputError as `PairSet` raises it."""
    places = (Source(place),) if isinstance(place, Path) else place
    return PairSet([files for source in places for files in find_files(source)])


def _rng(seed: int, step: int, stream: int, part: int) -> np.random.Generator:
    return np.random.default_rng((seed, step, stream, part) if part else (seed, step, stream))


class PairSampler:
    """Random crops of one task's pairs, some of them made from single photographs.

    `photographs` are sharp, well-exposed images; a share `synthetic` of each batch is made of them: focus
    pairs for `mff`, exposure pairs for `mef`; `vif` has real pairs only.
    """

    def __init__(
        self,
        task: str,
        stream: int,
        pairs: Sequence[Pair],
        photographs: Sequence[Photograph],
        *,
        synthetic: float,
        seed: int,
    ) -> None:
        self.task, self.stream, self.seed = task, stream, seed
        self.pairs, self.photographs = pairs, photographs
        self.synthetic = synthetic if photographs and task != "vif" else 0.0

    def batch(self, step: int, size: int, count: int, part: int = 0) -> tuple[Tensor, Tensor]:
        """x and y of `step`: float32 RGB in 0..1, both [count, 3, size, size]; each `part` (process) its own crops."""
        rng = _rng(self.seed, step, self.stream, part)
        crops = [self._crop(rng, size) for _ in range(count)]
        x, y = (
            torch.from_numpy(np.stack([crop[s] for crop in crops])).permute(0, 3, 1, 2).contiguous()
            for s in (0, 1)
        )
        return x, y

    def _crop(self, rng: np.random.Generator, size: int) -> NDArray[np.float32]:
        if rng.random() < self.synthetic:
            whole = self.photographs[int(rng.integers(len(self.photographs)))]
            (photo,) = _random_window(rng, size, whole)
            if self.task == "mff":
                both = focus_pair(photo, smooth_mask(size, size, rng), rng.uniform(1.0, 4.0))
            else:
                both = exposure_pair(photo, rng.uniform(1.0, 2.5))
        else:
            pair = self.pairs[int(rng.integers(len(self.pairs)))]
            x, y = _random_window(rng, size, pair.x, pair.y)
            both = (x, y)
        crop = np.stack(both)
        if rng.random() < 0.5:
            crop = crop[:, :, ::-1]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if rng.random() < 0.5:
            crop = crop.transpose(0, 2, 1, 3)
        return np.ascontiguousarray(crop, np.float32)


def _random_window(
    rng: np.random.Generator, size: int, *images: NDArray[np.uint8]
) -> list[NDArray[np.float32]]:
    """The same random size x size window of images of one size, resized first: large ones down, small ones up."""
    height, width = images[0].shape[:2]
    short = min(height, width)
    # Now and then a larger view, so that content is seen at several scales; never below the window.
    view = short if short <= size else rng.integers(size, min(short, 2 * size) + 1)
    scale = size / view
    if rng.random() < 0.5 and short > size:
        scale = 1.0
    h, w = max(size, round(height * scale)), max(size, round(width * scale))
    top, left = rng.integers(h - size + 1), rng.integers(w - size + 1)
    windows = []
    for image in images:
        if (h, w) != (height, width):
            interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            image = np.asarray(cv2.resize(image, (w, h), interpolation=interpolation), np.uint8)
        windows.append(image[top : top + size, left : left + size].astype(np.float32) / np.float32(255))
    return windows


def samplers(
    folders: Mapping[str, Path | Sequence[Source]], tasks: tuple[str, ...], *, synthetic: float, seed: int
) -> dict[str, PairSampler]:
    """A sampler per task of `folders`; photographs for synthetic pairs are the visible images of `vif`."""
    pairs = {task: read_pairs(folder) for task, folder in folders.items()}
    photographs = FirstSources(pairs.get("vif", ()))
    return {
        task: PairSampler(task, tasks.index(task), pairs[task], photographs, synthetic=synthetic, seed=seed)
        for task in pairs
    }
