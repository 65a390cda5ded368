"""Live control: alpha and beta of Eq. 8 while a stream runs, for the frame and for a region, with ramps."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.prompts import mask_share, pool_to_grid, prompt_map
from tcmoa_runtime.streams.interfaces import seconds
from tcmoa_runtime.typing import PromptMap

RAMP_SECONDS = 0.3
"""How long a change takes unless told otherwise: short enough to feel direct, long enough not to jump."""

Value = float | PromptMap


class PromptControl:
    """alpha (`scale`) and beta (`shift`) of a running stream; each may be set from any thread at any time.

    A region is a share per token, 1 inside, with an alpha and beta of its own. A change goes on from what is in
    force to the new values in a straight line over `ramp` seconds. While nothing ramps and no map is needed, `values`
    gives plain numbers: alpha 1, beta 0 changes no bit of the picture.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        *,
        size: tuple[int, int],
        token: int | None = None,
        default: tuple[float, float] = (1.0, 0.0),
        ramp: float = RAMP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`grid` is (gh, gw), `size` (height, width) of the frame; `token` its pixels, None where the frame is resized.

        `default` is the bundle's own alpha and beta. Raises InputError on a wrong ramp.
        """
        self.grid, self.size, self._token = grid, size, token
        self.default = default
        self._ramp = seconds(ramp, "ramp")
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = 0
        self._scale: Value = default[0]
        self._shift: Value = default[1]
        self._region: PromptMap | None = None
        self._region_prompt: tuple[float, float] = default
        self._described: dict[str, Any] | None = None
        self._from: tuple[Value, Value] = default
        self._to: tuple[Value, Value] = default
        self._began, self._lasts = -math.inf, 0.0

    def set(self, *, scale: Any = None, shift: Any = None, ramp: float | None = None) -> None:
        """Change alpha, beta or both, numbers or maps [gh, gw]; what is None stays.

        Raises InputError on values that `tcmoa_runtime.prompts.prompt_map` refuses; then nothing changes.
        """
        lasts = None if ramp is None else seconds(ramp, "ramp")
        new_scale = None if scale is None else self._checked(scale, "scale")
        new_shift = None if shift is None else self._checked(shift, "shift")
        with self._lock:
            if new_scale is not None:
                self._scale = new_scale
            if new_shift is not None:
                self._shift = new_shift
            self._aim(lasts)

    def set_region(
        self,
        *,
        rectangle: Sequence[float] | None = None,
        mask: Any = None,
        scale: float | None = None,
        shift: float | None = None,
        ramp: float | None = None,
    ) -> None:
        """Let a region have an alpha and beta of its own; what is None is the default of the bundle.

        `rectangle` is (left, top, width, height) in pixels of the frame; `mask` is [gh, gw] or [H, W], bool or shares
        from 0 to 1. Exactly one of them is given. It takes the place of the region before. Raises InputError.
        """
        lasts = None if ramp is None else seconds(ramp, "ramp")
        if (rectangle is None) == (mask is None):
            raise InputError("region: expected either a rectangle or a mask")
        share = (
            self._rectangle(rectangle)
            if rectangle is not None
            else mask_share(mask, "region mask", self.size, self.grid, self._token)
        )
        for name, value in (("scale", scale), ("shift", shift)):
            if value is not None:
                prompt_map(value, f"region {name}", 1, (1, 1))
        prompt = (
            self.default[0] if scale is None else float(scale),
            self.default[1] if shift is None else float(shift),
        )
        described: dict[str, Any] = {"scale": prompt[0], "shift": prompt[1]}
        if rectangle is not None:
            described["rectangle"] = [float(v) for v in rectangle]
        else:
            described["tokens"] = round(float(share.sum()), 2)
        with self._lock:
            self._region, self._region_prompt, self._described = share, prompt, described
            self._aim(lasts)

    def clear_region(self, *, ramp: float | None = None) -> None:
        """Take the region away."""
        lasts = None if ramp is None else seconds(ramp, "ramp")
        with self._lock:
            self._region = self._described = None
            self._aim(lasts)

    def reset(self, *, ramp: float | None = None) -> None:
        """Back to the bundle's default, without a region."""
        lasts = None if ramp is None else seconds(ramp, "ramp")
        with self._lock:
            self._scale, self._shift = self.default
            self._region = self._described = None
            self._aim(lasts)

    def values(self) -> tuple[Value, Value]:
        """alpha and beta that are in force now: numbers, or maps float32 [gh, gw]."""
        with self._lock:
            return self._now()

    @property
    def changes(self) -> int:
        """How many times something was set."""
        with self._lock:
            return self._changed

    def state(self) -> dict[str, Any]:
        """What was set last, for JSON: `scale`, `shift` (means where they are maps), `region`, `grid`, `ramping`."""
        with self._lock:
            return {
                "scale": float(np.mean(self._scale)),
                "shift": float(np.mean(self._shift)),
                "region": None if self._described is None else dict(self._described),
                "grid": list(self.grid),
                "size": list(self.size),
                "ramp": self._ramp,
                "ramping": self._clock() < self._began + self._lasts,
                "changes": self._changed,
            }

    def _checked(self, value: Any, name: str) -> Value:
        whole = prompt_map(value, name, 1, self.grid)[0]
        return float(value) if np.ndim(value) == 0 else whole.copy()

    def _rectangle(self, rectangle: Sequence[float]) -> PromptMap:
        try:
            left, top, width, height = (float(v) for v in rectangle)
        except (TypeError, ValueError):
            raise InputError(
                f"region: rectangle is {rectangle!r}: expected left, top, width, height in pixels"
            ) from None
        frame_height, frame_width = self.size
        inside = 0 <= left < frame_width and 0 <= top < frame_height and width > 0 and height > 0
        if not (math.isfinite(left + top + width + height) and inside):
            raise InputError(
                f"region: rectangle is {left:g},{top:g},{width:g},{height:g}: expected left, top, width, height "
                f"within {frame_width}x{frame_height}"
            )
        pixels = np.zeros(self.size, np.float64)
        pixels[int(top) : math.ceil(top + height), int(left) : math.ceil(left + width)] = 1
        return pool_to_grid(pixels, self.grid, self._token)

    def _aim(self, lasts: float | None) -> None:
        """Start from what is in force towards what was set."""
        start = self._now()
        self._from, self._to = (
            start,
            (
                self._composed(self._scale, self._region_prompt[0]),
                self._composed(self._shift, self._region_prompt[1]),
            ),
        )
        self._began, self._lasts = self._clock(), self._ramp if lasts is None else lasts
        self._changed += 1

    def _composed(self, value: Value, inside: float) -> Value:
        if self._region is None:
            return value
        return np.asarray(value + (inside - value) * self._region, np.float32)

    def _now(self) -> tuple[Value, Value]:
        passed = self._clock() - self._began
        if passed >= self._lasts:
            return self._to
        share = passed / self._lasts
        # (1 - s) a + s b, not a + s (b - a): the ends are met exactly.
        scale, shift = ((1 - share) * a + share * b for a, b in zip(self._from, self._to, strict=True))
        return _value(scale), _value(shift)


def _value(value: Any) -> Value:
    return float(value) if np.ndim(value) == 0 else np.asarray(value, np.float32)
