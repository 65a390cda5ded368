"""Fusing pairs of images in the batches of a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.given_prompt import Prompt
from tcmoa_runtime.typing import Frame

Sources: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
"""x and y, uint8 or uint16, [H, W] or [H, W, 3] in the bundle's channel order."""
ItemT = TypeVar("ItemT")


def fuse_batch(fuser: Fuser, batch: Sequence[Sources], prompt: Prompt) -> list[Frame]:
    """Fuse pairs of one shape and type, at most as many as the bundle's batch.

    Args:
        fuser: The fuser.
        batch: The pairs.
        prompt: Alpha and beta, for all of them.

    Returns:
        The fused frames, uint8 [H, W, 3] in the bundle's channel order.

    Raises:
        InputError: They cannot be fused.
    """
    height, width = batch[0][0].shape[:2]
    scale, shift = prompt.scale, prompt.shift_for(fuser, (height, width))
    if len(batch) == 1:
        return [fuser(*batch[0], scale=scale, shift=shift)]
    x, y = (np.stack([s[i] if s[i].ndim == 3 else s[i][..., None] for s in batch]) for i in (0, 1))
    return list(fuser(x, y, scale=scale, shift=shift))


def group_by_shape(
    items: Iterable[tuple[ItemT, Sources]], batch: int
) -> Iterator[list[tuple[ItemT, Sources]]]:
    """Group neighbors whose sources have equal shapes and types, at most `batch` of them."""
    group: list[tuple[ItemT, Sources]] = []
    for item in items:
        if group and [(s.shape, s.dtype) for s in group[0][1]] != [(s.shape, s.dtype) for s in item[1]]:
            yield group
            group = []
        group.append(item)
        if len(group) == batch:
            yield group
            group = []
    if group:
        yield group
