"""The graph contract, on which the exporter, the backends, calibration and the C library rely.

Frames are uint8 NHWC; prompts are float32 maps with one number per token of the frame:

| tensor                        | type and shape            |                                                   |
|-------------------------------|---------------------------|---------------------------------------------------|
| `x`, `y`                      | uint8   [B, H, W, 3 or 1] | the two sources, RGB or BGR as exported           |
| `prompt_scale`,`prompt_shift` | float32 [B, gh, gw]       | alpha and beta of Eq. 8, one per token            |
| `fused`                       | uint8   [B, H, W, 3]      | channel order of the sources                      |
| `prompt` (optional output)    | float32 [B, K, 2, gh, gw] | prompt_x, prompt_y of the K TC-MoAs, after Eq. 8  |

All shapes are static.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

X: Final = "x"
Y: Final = "y"
PROMPT_SCALE: Final = "prompt_scale"
PROMPT_SHIFT: Final = "prompt_shift"
FUSED: Final = "fused"
PROMPT: Final = "prompt"

Task = Literal["vif", "mef", "mff"]
TASKS: Final[tuple[Task, ...]] = ("vif", "mef", "mff")
"""The tasks, in the order of the published router tables."""

SOURCE_ROLES: Final[dict[str, dict[str, str]]] = {
    "vif": {X: "visible", Y: "infrared"},
    "mef": {X: "over-exposed", Y: "under-exposed"},
    "mff": {X: "far focus", Y: "near focus"},
}
"""What `x` and `y` show, by task."""

PATCH: Final = 16
"""Side of a patch in pixels of the model's input; half of that in pixels of the frame if the model upsamples."""

MAX_PROMPT: Final = 16.0
"""Maximum magnitude of alpha and beta: above it float16 may overflow. Smaller values destroy the image already."""

MAX_GRAPH_BYTES: Final = (1 << 31) - 1
"""Largest ONNX file: protocol buffers are limited to 2 GiB."""

WINDOW: Final = 14
"""Side of an attention window in tokens."""


def token_pixels(upsample: bool) -> int:
    """Return the side of a token in pixels of the frame: 8 with the x2 upsampling, 16 without."""
    return PATCH // 2 if upsample else PATCH


def token_grid(height: int, width: int, upsample: bool) -> tuple[int, int]:
    """Return the tokens (gh, gw) that cover a frame of `height` x `width` pixels; the last ones may exceed it."""
    side = token_pixels(upsample)
    return math.ceil(height / side), math.ceil(width / side)


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type (`uint8` or `float32`) and static shape of one input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Contract:
    """The static shapes of one exported graph.

    Attributes:
        height: H in pixels.
        width: W in pixels.
        grid: (gh, gw) in tokens.
        prompts: K, the number of TC-MoAs.
        batch: B.
        x_channels: 3, or 1 for a gray source.
        y_channels: 3, or 1 for a gray source y.
        with_prompt: Whether the graph has the optional output `prompt`.
    """

    height: int
    width: int
    grid: tuple[int, int]
    prompts: int
    batch: int = 1
    x_channels: int = 3
    y_channels: int = 3
    with_prompt: bool = False

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """`x`, `y`, `prompt_scale` and `prompt_shift`, in this order."""
        frame = (self.batch, self.height, self.width)
        prompt = (self.batch, *self.grid)
        return (
            TensorSpec(X, "uint8", (*frame, self.x_channels)),
            TensorSpec(Y, "uint8", (*frame, self.y_channels)),
            TensorSpec(PROMPT_SCALE, "float32", prompt),
            TensorSpec(PROMPT_SHIFT, "float32", prompt),
        )

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """`fused`, then `prompt` if exported."""
        fused = TensorSpec(FUSED, "uint8", (self.batch, self.height, self.width, 3))
        if not self.with_prompt:
            return (fused,)
        return fused, TensorSpec(PROMPT, "float32", (self.batch, self.prompts, 2, *self.grid))
