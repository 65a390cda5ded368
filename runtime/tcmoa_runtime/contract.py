"""The graph contract, on which the exporter, the backends, calibration and the C library rely.

Frames are uint8 NHWC; prompts are float32 maps with one number per token of the frame:

| tensor                        | type and shape            |                                                   |
|-------------------------------|---------------------------|---------------------------------------------------|
| `x`, `y`                      | uint8   [B, H, W, 3 or 1] | the two sources, RGB or BGR as exported           |
| `prompt_scale`,`prompt_shift` | float32 [B, gh, gw]       | alpha and beta of Eq. 8, one per token            |
| `fused`                       | uint8   [B, H, W, 3]      | channel order of the sources                      |
| `prompt` (optional output)    | float32 [B, K, 2, gh, gw] | prompt_x, prompt_y of the K TC-MoAs, after Eq. 8  |

The graph of another network that was wrapped (`tcmoa wrap`) has no prompt: neither the maps nor the output. If it
stretches S pictures by their own minimum and maximum, it has these instead, both in the network's own numbers:

| tensor                        | type and shape            |                                                   |
|-------------------------------|---------------------------|---------------------------------------------------|
| `held_extremes`               | float32 [B, S, 2]         | minimum and maximum to use; minimum > maximum: own |
| `extremes`                    | float32 [B, S, 2]         | minimum and maximum of the pictures of this frame |

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
HELD_EXTREMES: Final = "held_extremes"
EXTREMES: Final = "extremes"

OWN_EXTREMES: Final = (1.0, 0.0)
"""Values of `held_extremes` with which a picture is stretched by its own minimum and maximum."""

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

MAX_STRETCHES: Final = 8
"""Largest number of pictures that a wrapped network stretches by their own minimum and maximum."""

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
        with_control: Whether the graph has the inputs `prompt_scale` and `prompt_shift`; a wrapped network has not, and
            then no prompt, and a grid of (0, 0).
        stretches: S, the number of pictures that a wrapped network stretches by their own minimum and maximum.
    """

    height: int
    width: int
    grid: tuple[int, int]
    prompts: int
    batch: int = 1
    x_channels: int = 3
    y_channels: int = 3
    with_prompt: bool = False
    with_control: bool = True
    stretches: int = 0

    def __post_init__(self) -> None:
        """Refuse a prompt without its control."""
        has_prompt = self.with_prompt or self.prompts > 0 or self.grid != (0, 0)
        if not self.with_control and has_prompt:
            raise ValueError("a graph without control of the prompt has no prompt, and a grid of (0, 0)")

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """`x`, `y`, then `prompt_scale` and `prompt_shift`, then `held_extremes`, as far as the graph has them."""
        frame = (self.batch, self.height, self.width)
        specs = [
            TensorSpec(X, "uint8", (*frame, self.x_channels)),
            TensorSpec(Y, "uint8", (*frame, self.y_channels)),
        ]
        if self.with_control:
            prompt = (self.batch, *self.grid)
            specs += [
                TensorSpec(PROMPT_SCALE, "float32", prompt),
                TensorSpec(PROMPT_SHIFT, "float32", prompt),
            ]
        if self.stretches:
            specs.append(TensorSpec(HELD_EXTREMES, "float32", (self.batch, self.stretches, 2)))
        return tuple(specs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """`fused`, then `prompt` if exported, then `extremes` of a graph that stretches pictures."""
        specs = [TensorSpec(FUSED, "uint8", (self.batch, self.height, self.width, 3))]
        if self.with_prompt:
            specs.append(TensorSpec(PROMPT, "float32", (self.batch, self.prompts, 2, *self.grid)))
        if self.stretches:
            specs.append(TensorSpec(EXTREMES, "float32", (self.batch, self.stretches, 2)))
        return tuple(specs)
