"""Training pairs, randomly cropped and flipped.

Sampling has no state: a batch is a function of (seed, step, task) and, among several processes, of its part. A resumed
run therefore sees the same batches as an uninterrupted one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias, overload

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcmoa.dataset_layouts import DatasetPair, PairSource, find_dataset_pairs
from tcmoa.synthetic_pairs import exposure_pair, focus_pair, smooth_mask
from tcmoa.teachers import NO_TEACHERS, Teachers, teach
from tcmoa_runtime.pairs import read_frame_pair
from tcmoa_runtime.typing import Frame, Teacher

MAX_EAGER_BYTES: Final = 64 << 20
"""Sets whose files are at most this large are read at the start, so that damaged files are found then."""

CACHE_BYTES: Final = 2 << 30
"""Size of the cache of decoded images of one set (least recently used pairs are dropped)."""


TEACHER_MARGIN: Final = 320
"""Pixels around a crop that a teacher sees too."""

NEGATIVES: Final = 0.25
"""Share of the infrared images with changed tones that become negatives."""

_Area: TypeAlias = tuple[slice, slice]


class Batch(NamedTuple):
    """Crops of one task.

    Attributes:
        x: First sources, float32 RGB [B, 3, size, size] in 0..1.
        y: Second sources, of the same shape.
        target: The teacher's pictures, luma [B, 1, size, size] in 0..1, if there is a teacher.
    """

    x: Tensor
    y: Tensor
    target: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the crops on a device."""
        target = None if self.target is None else self.target.to(device)
        return Batch(self.x.to(device), self.y.to(device), target)


@dataclass(frozen=True)
class Augmentation:
    """Changes of the pairs besides crops and flips; synthetic pairs are not changed.

    Attributes:
        tones: Share of the pairs of `vif` whose tones are changed, each source by itself.
        exchanges: Share of the pairs of `mef` and `mff` whose sources are exchanged.
    """

    tones: float = 0.0
    exchanges: float = 0.0


NO_AUGMENTATION: Final = Augmentation()


@dataclass(frozen=True)
class TrainingPair:
    """Two registered RGB images of one size, uint8 [H, W, 3]."""

    name: str
    x: Frame
    y: Frame


def read_training_pair(paths: DatasetPair) -> TrainingPair:
    """Read a pair, with x and y in the order of their brightness if `paths` asks for it.

    Raises:
        InputError: A file is not a readable image, or the two sizes differ.
    """
    x, y = read_frame_pair(paths)
    if paths.brighter_first and x.mean() < y.mean():
        x, y = y, x
    return TrainingPair(paths.name, x, y)


class PairSet(Sequence[TrainingPair]):
    """Pairs that are read on first use and cached.

    Args:
        paths: The files of the pairs.
        max_eager_bytes: Read all pairs now if their files are at most this large.
        cache_bytes: Size of the cache of decoded images.

    Raises:
        InputError: As `read_training_pair`, now or when a pair is read.
    """

    def __init__(
        self,
        paths: Sequence[DatasetPair],
        *,
        max_eager_bytes: int = MAX_EAGER_BYTES,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.paths, self.cache_bytes = paths, cache_bytes
        self._cached: OrderedDict[int, TrainingPair] = OrderedDict()
        self._bytes = 0
        if sum(path.stat().st_size for pair in paths for path in (pair.x, pair.y)) <= max_eager_bytes:
            for index in range(len(paths)):
                self._read(index)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> TrainingPair: ...
    @overload
    def __getitem__(self, index: slice) -> list[TrainingPair]: ...
    def __getitem__(self, index: int | slice) -> TrainingPair | list[TrainingPair]:
        if isinstance(index, slice):
            return [self._read(i) for i in range(*index.indices(len(self)))]
        return self._read(range(len(self))[index])

    def _read(self, index: int) -> TrainingPair:
        if index in self._cached:
            self._cached.move_to_end(index)
            return self._cached[index]
        pair = read_training_pair(self.paths[index])
        self._cached[index] = pair
        self._bytes += pair.x.nbytes + pair.y.nbytes
        while self._bytes > self.cache_bytes and len(self._cached) > 1:
            _, oldest = self._cached.popitem(last=False)
            self._bytes -= oldest.x.nbytes + oldest.y.nbytes
        return pair


class VisibleImages(Sequence[Frame]):
    """The x of each pair, which is the visible image of `vif`."""

    def __init__(self, pairs: Sequence[TrainingPair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        chosen = self.pairs[index]
        return chosen.x if isinstance(chosen, TrainingPair) else [pair.x for pair in chosen]


def read_pairs(sources: Path | Sequence[PairSource]) -> PairSet:
    """Return the pairs of a folder of any known layout, or of several sources together.

    Raises:
        InputError: As `find_dataset_pairs` and `PairSet`.
    """
    listed = (PairSource(sources),) if isinstance(sources, Path) else sources
    return PairSet([paths for source in listed for paths in find_dataset_pairs(source)])


def _rng(seed: int, step: int, stream: int, part: int) -> np.random.Generator:
    return np.random.default_rng((seed, step, stream, part) if part else (seed, step, stream))


class PairSampler:
    """Random crops of one task's pairs, some of them made from single photographs.

    Args:
        task: `vif`, `mef` or `mff`.
        stream: Index of the task, which separates its random numbers from those of other tasks.
        pairs: The real pairs.
        photographs: Sharp, well-exposed images.
        synthetic: Share of the pairs that are made from photographs: focus pairs for `mff`, exposure pairs for `mef`;
            `vif` has real pairs only.
        seed: Seed of the run.
        augmentation: Changes of the pairs besides crops and flips.
        teacher: Makes the picture that the model imitates.
    """

    def __init__(
        self,
        task: str,
        stream: int,
        pairs: Sequence[TrainingPair],
        photographs: Sequence[Frame],
        *,
        synthetic: float,
        seed: int,
        augmentation: Augmentation = NO_AUGMENTATION,
        teacher: Teacher | None = None,
    ) -> None:
        self.task, self.stream, self.seed = task, stream, seed
        self.augmentation, self.teacher = augmentation, teacher
        self.pairs, self.photographs = pairs, photographs
        self.synthetic = synthetic if photographs and task != "vif" else 0.0

    def batch(self, step: int, size: int, count: int, part: int = 0) -> Batch:
        """Return the crops of `step`; each `part` (process) has its own."""
        rng = _rng(self.seed, step, self.stream, part)
        crops = [self._crop(rng, size) for _ in range(count)]
        x, y, *target = (
            torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
            for images in zip(*crops, strict=True)
        )
        return Batch(x, y, target[0][:, :1] if target else None)

    def _crop(self, rng: np.random.Generator, size: int) -> list[NDArray[np.float32]]:
        """Return x and y [size, size, 3], and the teacher's picture in three equal channels if there is a teacher."""
        if rng.random() < self.synthetic:
            whole = self.photographs[int(rng.integers(len(self.photographs)))]
            (view,), area = _random_view(rng, size, whole)
            photo = _to_float(view[area])
            if self.task == "mff":
                both = focus_pair(photo, smooth_mask(size, size, rng), rng.uniform(1.0, 4.0))
            else:
                both = exposure_pair(photo, rng.uniform(1.0, 2.5))
            area = (slice(size), slice(size))
        else:
            pair = self.pairs[int(rng.integers(len(self.pairs)))]
            (x, y), area = _random_view(rng, size, pair.x, pair.y)
            # A teacher sees what surrounds the crop.
            (x, y), area = _cut_around(area, TEACHER_MARGIN if self.teacher else 0, x, y)
            both = self._change(rng, _to_float(x), _to_float(y))
        images = [both[0][area], both[1][area]]
        if self.teacher is not None:
            images.append(np.repeat(teach(self.teacher, *both)[area][..., None], 3, -1))
        crop = np.stack(images)
        if rng.random() < 0.5:
            crop = crop[:, :, ::-1]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if rng.random() < 0.5:
            crop = crop.transpose(0, 2, 1, 3)
        return list(np.ascontiguousarray(crop, np.float32))

    def _change(
        self, rng: np.random.Generator, x: NDArray[np.float32], y: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        share = self.augmentation
        if self.task == "vif":
            if share.tones and rng.random() < share.tones:
                y = 1 - y if rng.random() < NEGATIVES else y
                return change_tones(x, rng), change_tones(y, rng)
        elif share.exchanges and rng.random() < share.exchanges:
            return y, x
        return x, y


def change_tones(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Change gamma, contrast and brightness of an image in 0..1 at random, clipped to 0..1."""
    gamma, contrast, offset = np.exp(rng.normal(0, 0.25)), np.exp(rng.normal(0, 0.2)), rng.normal(0, 0.05)
    image = np.asarray(image ** np.float32(gamma), np.float32)
    mean = image.mean()
    return np.asarray(np.clip((image - mean) * contrast + mean + offset, 0, 1), np.float32)


def _to_float(image: Frame) -> NDArray[np.float32]:
    return image.astype(np.float32) / np.float32(255)


def _random_view(rng: np.random.Generator, size: int, *images: Frame) -> tuple[list[Frame], _Area]:
    """Resize images of one size at random; returns them and a random area of size x size pixels."""
    height, width = images[0].shape[:2]
    short = min(height, width)
    # Sometimes a larger area is resized to the window, so that content is seen at several scales.
    view = short if short <= size else rng.integers(size, min(short, 2 * size) + 1)
    scale = size / view
    if rng.random() < 0.5 and short > size:
        scale = 1.0
    h, w = max(size, round(height * scale)), max(size, round(width * scale))
    top, left = int(rng.integers(h - size + 1)), int(rng.integers(w - size + 1))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = [
        image
        if (h, w) == (height, width)
        else np.asarray(cv2.resize(image, (w, h), interpolation=interpolation), np.uint8)
        for image in images
    ]
    return resized, (slice(top, top + size), slice(left, left + size))


def _cut_around(area: _Area, margin: int, *images: Frame) -> tuple[list[Frame], _Area]:
    """Cut images to an area and up to `margin` pixels around it; returns them and the area in them."""
    starts = [max(0, part.start - margin) for part in area]
    cut = tuple(slice(start, part.stop + margin) for start, part in zip(starts, area, strict=True))
    rows, columns = (
        slice(part.start - start, part.stop - start) for start, part in zip(starts, area, strict=True)
    )
    return [image[cut] for image in images], (rows, columns)


def create_samplers(
    sources: Mapping[str, Path | Sequence[PairSource]],
    tasks: tuple[str, ...],
    *,
    synthetic: float,
    seed: int,
    augmentation: Augmentation = NO_AUGMENTATION,
    teachers: Teachers = NO_TEACHERS,
) -> dict[str, PairSampler]:
    """Create a sampler for each task of `sources`; synthetic pairs are made from the visible images of `vif`.

    Args:
        sources: Pairs by task.
        tasks: Tasks of the model, in its order.
        synthetic: Share of synthetic pairs.
        seed: Seed of the run.
        augmentation: Changes of the pairs besides crops and flips.
        teachers: Teachers by task.
    """
    pairs = {task: read_pairs(source) for task, source in sources.items()}
    photographs = VisibleImages(pairs.get("vif", ()))
    return {
        task: PairSampler(
            task,
            tasks.index(task),
            pairs[task],
            photographs,
            synthetic=synthetic,
            seed=seed,
            augmentation=augmentation,
            teacher=teachers.get(task),
        )
        for task in pairs
    }
