"""Alpha and beta of Eq. 8 as a user gives them: numbers, or a painted mask for beta."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.errors import InputError, NoPromptError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import format_size, read_image, to_frame
from tcmoa_runtime.prompts import mask_to_shift, pool_to_grid
from tcmoa_runtime.typing import Frame, FrameSize, PromptMap


@dataclass(frozen=True)
class Prompt:
    """Alpha and beta of Eq. 8 as a user gives them; None for the bundle's default.

    Attributes:
        scale: Alpha.
        shift: Beta, or a painted mask uint8 [H, W].
        path: Path of the mask, for messages.
    """

    scale: float | None
    shift: float | Frame | None
    path: Path | None = None

    @classmethod
    def read(cls, scale: float | None, shift: float | Path | None) -> Self:
        """Read the mask, if beta is one.

        Raises:
            InputError: The mask is not an 8-bit image.
        """
        if not isinstance(shift, Path):
            return cls(scale, shift)
        image = read_image(shift)
        if image.dtype != np.uint8:
            raise InputError(
                f"holds {image.dtype}; expected an 8-bit mask (black is -0.5, 128 is 0, white is +0.5)",
                subject=shift,
            )
        return cls(scale, to_frame(image, str(shift), 1)[..., 0], shift)

    def check_for(self, bundle: Bundle) -> None:
        """Raise NoPromptError if there is a value for a network that has no prompt."""
        given = {"prompt_scale": self.scale, "prompt_shift": self.shift}
        for name, value in given.items():
            if value is not None and not bundle.has_prompt:
                raise NoPromptError(name)

    def shift_for(self, fuser: Fuser, size: FrameSize) -> float | PromptMap | None:
        """Return beta for frames of `size` (height, width): a number, or a map [gh, gw].

        Raises:
            InputError: The mask has neither the size of the frame nor one pixel per token.
        """
        if not isinstance(self.shift, np.ndarray):
            return self.shift
        if fuser.fit == "resize":
            size = fuser.size
        grid = fuser.grid_of(size)
        if self.shift.shape not in (size, grid):
            raise InputError(
                f"{format_size(self.shift.shape)}; expected {format_size(size)} (the frame) or "
                f"{format_size(grid)} (one pixel per token)",
                subject=self.path,
            )
        return pool_to_grid(mask_to_shift(self.shift), grid, fuser.bundle.map_token)
