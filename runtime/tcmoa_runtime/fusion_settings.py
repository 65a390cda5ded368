"""The settings that decide the pixels of fused images, and how those of two runs differ."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.given_prompt import Prompt
from tcmoa_runtime.manifest import SELF_HASH
from tcmoa_runtime.typing import FitMode, JsonObject, JsonValue, Percentiles

Settings: TypeAlias = Mapping[str, JsonValue]


def settings_of(bundle: Bundle, fit: FitMode, prompt: Prompt, percentiles: Percentiles) -> JsonObject:
    """Return what decides the pixels of a result besides its sources.

    exact, pad, tile and auto give the same pixels wherever they take a frame, so only `resize` is recorded.
    """
    resizes = fit == "resize" or not bundle.can_tile
    decided: JsonObject = {
        "bundle": str(bundle.manifest[SELF_HASH]),
        "fit": "resize" if resizes else "tile",
        "stretch": list(percentiles),
    }
    if not bundle.has_prompt:
        return decided
    scale, shift = bundle.default_prompt
    if isinstance(prompt.shift, np.ndarray):
        described: float | str = hashlib.sha256(prompt.shift.tobytes()).hexdigest()
    else:
        described = shift if prompt.shift is None else float(prompt.shift)
    return {
        **decided,
        "prompt_scale": scale if prompt.scale is None else prompt.scale,
        "prompt_shift": described,
    }


def describe_differences(made: Settings, settings: Settings) -> list[str]:
    """Describe each setting that differs from the one that images were made with, e.g. `fit tile (now resize)`."""
    return [
        _describe_difference(key, made.get(key), value)
        for key, value in settings.items()
        if made.get(key) != value
    ]


def _describe_difference(key: str, made: object, value: object) -> str:
    if key == "bundle":
        return "another bundle"
    if isinstance(made, str) and len(made) == 64:
        return f"another mask as {key}"
    return f"{key} {_shown(made)} (now {_shown(value)})"


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(_shown, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "a mask" if isinstance(value, str) and len(value) == 64 else str(value)
