"""Prompt control of a running stream: alpha and beta of Eq. 8 for the frame and for a region, with transitions."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from textwrap import shorten
from typing import Final, NotRequired, TypeAlias, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tcmoa_runtime.contract import MAX_PROMPT
from tcmoa_runtime.errors import InputError, NoPromptError
from tcmoa_runtime.options.option import check_seconds
from tcmoa_runtime.options.stream import RAMP_SECONDS
from tcmoa_runtime.prompts import mask_share, pool_to_grid, prompt_map
from tcmoa_runtime.typing import FrameSize, PromptLike, PromptMap

PromptValue: TypeAlias = float | PromptMap
"""Alpha or beta: a number for the whole frame, or a map float32 [gh, gw]."""

_MAX_SHOWN: Final = 80
"""Characters of a wrong value that a message shows."""


class RegionState(TypedDict):
    """The current region: its alpha and beta, and the rectangle or the number of tokens that it covers."""

    scale: float
    shift: float
    rectangle: NotRequired[list[float]]
    token_count: NotRequired[float]


class ControlState(TypedDict):
    """What was set last, as JSON. `scale` and `shift` are means if they are maps."""

    scale: float
    shift: float
    region: RegionState | None
    grid: list[int]
    size: list[int]
    ramp: float
    ramping: bool
    change_count: int


class StreamControl:
    """Alpha (`scale`) and beta (`shift`) of a running stream; every method may be called from any thread.

    A change moves linearly from the current values to the new ones within `ramp` seconds. A region has its own
    alpha and beta; tokens that it covers in part get the weighted mean. Without a region and a transition, `values`
    returns plain numbers, and alpha 1 with beta 0 leaves every bit of the fused frame as it is.

    With a network that has no prompt (`has_prompt` is False), every change is refused by NoPromptError, and `prompt` is
    (None, None), which `Fuser` takes.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        *,
        size: FrameSize,
        token_px: int | None = None,
        default: tuple[float, float] = (1.0, 0.0),
        ramp: float = RAMP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        has_prompt: bool = True,
    ) -> None:
        """Start at the default values.

        Args:
            grid: Tokens (gh, gw) of a frame.
            size: (height, width) of a frame.
            token_px: Side of a token in pixels; None if frames are resized to the model.
            default: Alpha and beta of the bundle.
            ramp: Duration of a change in seconds, if the call does not give one.
            clock: Source of the time, in seconds.
            has_prompt: Whether the network has a prompt.

        Raises:
            InputError: `ramp` is negative or not a number.
        """
        self.grid, self.size = grid, size
        self.has_prompt = has_prompt
        self.default = default
        self._token_px = token_px
        self._ramp = check_seconds("ramp", ramp)
        self._clock = clock
        self._lock = threading.Lock()
        self._change_count = 0
        self._scale: PromptValue = default[0]
        self._shift: PromptValue = default[1]
        self._region: PromptMap | None = None
        self._region_prompt: tuple[float, float] = default
        self._region_state: RegionState | None = None
        self._start: tuple[PromptValue, PromptValue] = default
        self._target: tuple[PromptValue, PromptValue] = default
        self._start_time, self._duration = -math.inf, 0.0

    def set(
        self, *, scale: PromptLike | None = None, shift: PromptLike | None = None, ramp: float | None = None
    ) -> None:
        """Change alpha, beta or both; None leaves a value unchanged.

        Args:
            scale: Alpha, a number or a map [gh, gw].
            shift: Beta, a number or a map [gh, gw].
            ramp: Duration of the change in seconds.

        Raises:
            InputError: A value has the wrong type, shape or range; then nothing changes.
            NoPromptError: The network has no prompt.
        """
        self._check_prompt("scale" if scale is not None else "shift" if shift is not None else "prompt")
        duration = self._check_ramp(ramp)
        new_scale = None if scale is None else self._check_value(scale, "scale")
        new_shift = None if shift is None else self._check_value(shift, "shift")
        with self._lock:
            if new_scale is not None:
                self._scale = new_scale
            if new_shift is not None:
                self._shift = new_shift
            self._begin_change(duration)

    def set_region(
        self,
        *,
        rectangle: Sequence[float] | None = None,
        mask: ArrayLike | None = None,
        scale: float | None = None,
        shift: float | None = None,
        ramp: float | None = None,
    ) -> None:
        """Set the region, in place of the previous one.

        Args:
            rectangle: (left, top, width, height) in pixels of the frame. Either this or `mask` is required.
            mask: bool or 0 to 1, [gh, gw] or [H, W].
            scale: Alpha inside the region; None is the default of the bundle.
            shift: Beta inside the region; None is the default of the bundle.
            ramp: Duration of the change in seconds.

        Raises:
            InputError: A value has the wrong type, shape or range; then nothing changes.
            NoPromptError: The network has no prompt.
        """
        self._check_prompt("region")
        duration = self._check_ramp(ramp)
        if rectangle is not None and mask is None:
            coverage = self._cover_rectangle(rectangle)
        elif mask is not None and rectangle is None:
            coverage = mask_share(mask, "region mask", self.size, self.grid, self._token_px)
        else:
            given = "neither a rectangle nor a mask" if mask is None else "both a rectangle and a mask"
            raise InputError(f"{given}; expected one of the two", subject="region")
        for name, value in (("scale", scale), ("shift", shift)):
            if value is not None:
                prompt_map(value, f"region {name}", 1, (1, 1))
        prompt = (
            self.default[0] if scale is None else float(scale),
            self.default[1] if shift is None else float(shift),
        )
        state: RegionState = {"scale": prompt[0], "shift": prompt[1]}
        if rectangle is not None:
            state["rectangle"] = [float(value) for value in rectangle]
        else:
            state["token_count"] = round(float(coverage.sum()), 2)
        with self._lock:
            self._region, self._region_prompt, self._region_state = coverage, prompt, state
            self._begin_change(duration)

    def clear_region(self, *, ramp: float | None = None) -> None:
        """Remove the region."""
        self._check_prompt("region")
        duration = self._check_ramp(ramp)
        with self._lock:
            self._region = self._region_state = None
            self._begin_change(duration)

    def reset(self, *, ramp: float | None = None) -> None:
        """Return to the default of the bundle and remove the region."""
        self._check_prompt("prompt")
        duration = self._check_ramp(ramp)
        with self._lock:
            self._scale, self._shift = self.default
            self._region = self._region_state = None
            self._begin_change(duration)

    def values(self) -> tuple[PromptValue, PromptValue]:
        """Return the current alpha and beta."""
        with self._lock:
            return self._current()

    def prompt(self) -> tuple[PromptValue, PromptValue] | tuple[None, None]:
        """Return the current alpha and beta as `Fuser` takes them; None for both if the network has no prompt."""
        return self.values() if self.has_prompt else (None, None)

    @property
    def change_count(self) -> int:
        """Number of changes so far."""
        with self._lock:
            return self._change_count

    def state(self) -> ControlState:
        """Return what was set last, as JSON."""
        with self._lock:
            return {
                "scale": float(np.mean(self._scale)),
                "shift": float(np.mean(self._shift)),
                "region": None if self._region_state is None else self._region_state.copy(),
                "grid": list(self.grid),
                "size": list(self.size),
                "ramp": self._ramp,
                "ramping": self._clock() < self._start_time + self._duration,
                "change_count": self._change_count,
            }

    def _check_prompt(self, subject: str) -> None:
        if not self.has_prompt:
            raise NoPromptError(subject)

    def _check_ramp(self, ramp: float | None) -> float:
        return self._ramp if ramp is None else check_seconds("ramp", ramp)

    def _check_value(self, value: PromptLike, name: str) -> PromptValue:
        (tokens,) = prompt_map(value, name, 1, self.grid)
        return float(value) if np.ndim(value) == 0 else tokens.copy()  # type: ignore[arg-type]  # a number

    def _cover_rectangle(self, rectangle: Sequence[float]) -> PromptMap:
        """Return how much of each token a rectangle covers, float32 [gh, gw]."""
        try:
            left, top, width, height = (float(value) for value in rectangle)
        except (TypeError, ValueError, OverflowError):  # OverflowError: an integer beyond float
            shown = shorten(repr(rectangle), _MAX_SHOWN, placeholder="...")
            raise InputError(
                f"{shown}; expected left, top, width and height in pixels",
                subject="region rectangle",
            ) from None
        frame_height, frame_width = self.size
        inside = 0 <= left < frame_width and 0 <= top < frame_height and width > 0 and height > 0
        if not (math.isfinite(left + top + width + height) and inside):
            raise InputError(
                f"{left:g},{top:g},{width:g},{height:g}; expected left, top, width and height "
                f"within {frame_width}x{frame_height}",
                subject="region rectangle",
            )
        pixels = np.zeros(self.size, np.float64)
        pixels[int(top) : math.ceil(top + height), int(left) : math.ceil(left + width)] = 1
        return pool_to_grid(pixels, self.grid, self._token_px)

    def _begin_change(self, duration: float) -> None:
        """Start a transition from the current values to the values that were set."""
        self._start = self._current()
        inner_scale, inner_shift = self._region_prompt
        self._target = (
            self._with_region(self._scale, inner_scale),
            self._with_region(self._shift, inner_shift),
        )
        self._start_time, self._duration = self._clock(), duration
        self._change_count += 1

    def _with_region(self, outside: PromptValue, inside: float) -> PromptValue:
        return outside if self._region is None else _blend(outside, inside, self._region)

    def _current(self) -> tuple[PromptValue, PromptValue]:
        elapsed = self._clock() - self._start_time
        if elapsed >= self._duration:
            return self._target
        share = elapsed / self._duration
        (old_scale, old_shift), (new_scale, new_shift) = self._start, self._target
        return _blend(old_scale, new_scale, share), _blend(old_shift, new_shift, share)


def is_same(first: PromptValue | None, second: PromptValue | None) -> bool:
    """Whether two values of alpha or beta are equal; None, of a network without a prompt, equals None."""
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second)


def _blend(first: PromptValue, second: PromptValue, share: PromptValue) -> PromptValue:
    """Return `first` where `share` is 0, `second` where it is 1, and the weighted mean between.

    Every value that is composed of others is composed here. Rounding can lead beyond the largest value that the model
    accepts, which would end the stream, so the result is limited to it.
    """
    # (1 - s) a + s b instead of a + s (b - a), which does not reach b exactly.
    value: float | NDArray[np.floating] = (1 - share) * first + share * second
    limited = np.clip(value, -MAX_PROMPT, MAX_PROMPT)
    return float(limited) if np.ndim(limited) == 0 else np.asarray(limited, np.float32)
