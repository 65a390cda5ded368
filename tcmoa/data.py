"""Training pairs: folders of `NAME_x.EXT` and `NAME_y.EXT`, cropped and flipped at random.

Sampling has no state: the batch of a step is a function of (seed, step, task), so that a resumed run sees
exactly what an uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcmoa.pairs import exposure_pair, focus_pair, smooth_mask
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.pairs import find_pairs


@dataclass(frozen=True)
class Pair:
    """Two registered uint8 RGB images of one size, [H, W, 3]."""

    name: str
    x: NDArray[np.uint8]
    y: NDArray[np.uint8]


def read_pairs(folder: Path) -> list[Pair]:
    """All pairs of `folder`; InputError on an unreadable image or one whose size differs from its partner's."""
    pairs = []
    for found in find_pairs(folder):
        x, y = read_frame(found.x), read_frame(found.y)
        if x.shape != y.shape:
            raise InputError(
                f"{found.x} is {x.shape[1]}x{x.shape[0]} and {found.y.name} {y.shape[1]}x{y.shape[0]}: "
                f"expected equal sizes"
            )
        pairs.append(Pair(found.name, x, y))
    return pairs


def _rng(seed: int, step: int, stream: int) -> np.random.Generator:
    return np.random.default_rng((seed, step, stream))


class PairSampler:
    """Random crops of one task's pairs, some of them made from single photographs.

    `photographs` are sharp, well-exposed images; a share `synthetic` of each batch is made of them: focus
    pairs for `mff`, exposure pairs for `mef`; `vif` has real pairs only.
    """

    def __init__(
        self,
        task: str,
        stream: int,
        pairs: list[Pair],
        photographs: list[NDArray[np.uint8]],
        *,
        synthetic: float,
        seed: int,
    ) -> None:
        self.task, self.stream, self.seed = task, stream, seed
        self.pairs, self.photographs = pairs, photographs
        self.synthetic = synthetic if photographs and task != "vif" else 0.0

    def batch(self, step: int, size: int, count: int) -> tuple[Tensor, Tensor]:
        """x and y of `step`: float32 RGB in 0..1, both [count, 3, size, size]."""
        rng = _rng(self.seed, step, self.stream)
        crops = [self._crop(rng, size) for _ in range(count)]
        x, y = (
            torch.from_numpy(np.stack([crop[s] for crop in crops])).permute(0, 3, 1, 2).contiguous()
            for s in (0, 1)
        )
        return x, y

    def _crop(self, rng: np.random.Generator, size: int) -> NDArray[np.float32]:
        if rng.random() < self.synthetic:
            whole = self.photographs[rng.integers(len(self.photographs))]
            (photo,) = _random_window(rng, size, whole)
            if self.task == "mff":
                both = focus_pair(photo, smooth_mask(size, size, rng), rng.uniform(1.0, 4.0))
            else:
                both = exposure_pair(photo, rng.uniform(1.0, 2.5))
        else:
            pair = self.pairs[rng.integers(len(self.pairs))]
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
    folders: Mapping[str, Path], tasks: tuple[str, ...], *, synthetic: float, seed: int
) -> dict[str, PairSampler]:
    """A sampler per task of `folders`; photographs for synthetic pairs are the visible images of `vif`."""
    pairs = {task: read_pairs(folder) for task, folder in folders.items()}
    photographs = [pair.x for pair in pairs.get("vif", [])]
    return {
        task: PairSampler(task, tasks.index(task), pairs[task], photographs, synthetic=synthetic, seed=seed)
        for task in pairs
    }
