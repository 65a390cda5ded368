"""Smoothing of prompts over time, against flicker, through the two inputs that every backend has.

A prompt that jumps from frame to frame makes the fused picture flicker where nothing moves. Wanted is
u_t = (1 - w) p_t + w s with s = u_{t-1}, and then Eq. 8 on it: 0.5 + alpha (u_t - 0.5) +- beta. As alpha and beta are
maps, Eq. 8 itself does it: alpha' = alpha (1 - w) and beta' = beta + alpha w m, where m is how far s lies from 0.5
towards x. The prompts p_t are got back from what comes out, and make the next s.

The K TC-MoAs share one beta: m is their mean, so each is smoothed around its own value only as far as they agree.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import Frame, resize_frame
from tcmoa_runtime.prompts import Map
from tcmoa_runtime.streams.frames import seconds as checked_seconds

MOTION: Final = 2.0
"""Grey levels by which a token must change beyond the noise to count as moving; at twice that it moves fully."""
STRONGEST: Final = 0.95
"""Largest weight of the past: some of the present must come through, or it could not be got back from the output."""
GAP_SECONDS: Final = 1.0
"""After so long without a frame the past is forgotten."""
CUT: Final = 0.6
"""When more than this share of all tokens moves, it is another scene, and the past is forgotten."""


class PromptSmoother:
    """Exponential smoothing of prompts with a time constant, but where something moves; see this module.

    For each frame: `before` gives the alpha and beta to fuse it with, and `after` takes the prompts that came out. The
    first frame, and the first one after a gap, a cut or `reset`, is fused with alpha and beta as they are.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        size: tuple[int, int],
        *,
        token: int | None,
        seconds: float,
        motion: float = MOTION,
    ) -> None:
        """`grid` is (gh, gw), `size` (height, width), `token` its pixels (None: the frame is resized to the grid).

        `seconds` is the time constant, 0 for no smoothing. Raises InputError on wrong numbers.
        """
        self._grid, self._size, self._token = grid, size, token
        self._seconds = checked_seconds(seconds, "smoothing")
        if not motion > 0:
            raise InputError(f"motion is {motion!r}: expected grey levels, above 0")
        self._motion = motion
        self.reset()

    def reset(self) -> None:
        """Forget the past."""
        self._state: NDArray[np.float32] | None = None
        self._shown: tuple[Frame, Frame] | None = None
        self._at = 0.0
        self._used: tuple[Map | float, Map | float, Map | float] = (1.0, 0.0, 0.0)

    def before(
        self, x: Frame, y: Frame, time: float, scale: float | Map, shift: float | Map
    ) -> tuple[float | Map, float | Map]:
        """alpha and beta for the frames x and y, uint8 [H, W, 3] or [H, W], of a time in seconds.

        `scale` and `shift` are what the user wants, numbers or maps [gh, gw]; they act on the smoothed prompt.
        """
        shown = (self._luma(x), self._luma(y))
        passed, past, state = time - self._at, self._shown, self._state
        self._shown, self._at = shown, time
        if state is None or past is None or not 0 < passed <= GAP_SECONDS or self._seconds == 0:
            return self._start(scale, shift)
        moving = np.maximum(*(self._moving(new, old) for new, old in zip(shown, past, strict=True)))
        if (moving > 0.5).mean() > CUT:
            return self._start(scale, shift)
        weight = (min(math.exp(-passed / self._seconds), STRONGEST) * (1 - moving)).astype(np.float32)
        towards_x = (state[:, 0] - state[:, 1]).mean(axis=0) / 2
        inner = np.asarray(scale * (1 - weight), np.float32)
        outer = np.asarray(shift + scale * weight * towards_x, np.float32)
        self._used = (inner, outer, weight)
        return inner, outer

    def after(self, prompt: NDArray[np.float32]) -> None:
        """The prompts float32 [K, 2, gh, gw] that came out, after Eq. 8."""
        inner, outer, weight = self._used
        sign = np.array([1, -1], np.float32)[:, None, None]
        known = np.abs(np.broadcast_to(inner, self._grid)) > 1e-3
        divisor = np.where(known, inner, 1).astype(np.float32)
        raw = 0.5 + (prompt - 0.5 - sign * outer) / divisor
        if self._state is None:
            # With alpha 0 the output says nothing of the prompt.
            self._state = np.where(known, raw, 0.5).astype(np.float32)
            return
        followed = (1 - weight) * raw + weight * self._state
        self._state = np.where(known, followed, self._state).astype(np.float32)

    def _start(self, scale: float | Map, shift: float | Map) -> tuple[float | Map, float | Map]:
        self._state = None
        self._used = (scale, shift, 0.0)
        return scale, shift

    def _luma(self, image: Frame) -> Frame:
        import cv2

        if image.shape[:2] != self._size:
            image = resize_frame(image, self._size)
        # The order of red and blue matters little for what moves.
        return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)

    def _moving(self, new: Frame, old: Frame) -> NDArray[np.float32]:
        """How surely each token, or one beside it, moves: 0 to 1, float32 [gh, gw]."""
        import cv2

        change: Any = cv2.absdiff(new, old)
        if self._token is not None:
            bottom = self._grid[0] * self._token - change.shape[0]
            right = self._grid[1] * self._token - change.shape[1]
            change = cv2.copyMakeBorder(change, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        pooled = cv2.resize(change.astype(np.float32), self._grid[::-1], interpolation=cv2.INTER_AREA)
        # Sensor noise changes all tokens alike; what moves are some of them.
        beyond = pooled - float(np.median(pooled))
        sure = np.clip(beyond / self._motion - 1, 0, 1)
        return np.asarray(cv2.dilate(sure, np.ones((3, 3), np.uint8)), np.float32)
