"""Prompts of a request to a server, which may be numbers in place of maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.request_images import frame_size
from tcmoa_runtime.typing import PromptLike


def expand_numbers(value: PromptLike | None, fuser: Fuser, frames: NDArray[Any]) -> PromptLike | None:
    """Return a number for all frames [1, 1, 1], or one for each [B, 1, 1], as maps; any other value unchanged.

    Args:
        value: Alpha or beta of Eq. 8.
        fuser: Fuses the frames.
        frames: Source x: [H, W], [H, W, C] or [B, H, W, C].

    Raises:
        InputError: Frames of that size are refused, see `Fuser.grid_of`.
    """
    size = frame_size(frames)
    if size is None or not isinstance(value, np.ndarray) or value.ndim != 3 or value.shape[1:] != (1, 1):
        return value
    if len(value) not in (1, len(frames) if frames.ndim == 4 else 1):
        return value
    return np.broadcast_to(value, (len(value), *fuser.grid_of(size)))
