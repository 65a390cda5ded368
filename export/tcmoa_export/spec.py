"""What to export: one task, one frame size, and the options that shape the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from tcmoa import TCMoA
from tcmoa.frames import CROP, ColorMode, Fit, choose_fit
from tcmoa.presets import TC_MOA
from tcmoa_export.folds import ChannelOrder
from tcmoa_export.layout import ORDER_FOR, Layout
from tcmoa_export.precision import PRECISIONS, Precision
from tcmoa_runtime.contract import SOURCE_ROLES, TASKS, Contract, token_pixels
from tcmoa_runtime.errors import InputError

MOST_PIXELS = 8192
"""Largest frame side: beyond 8K video a typing error is more likely than a camera."""


@dataclass(frozen=True)
class ExportSpec:
    """All that decides a graph besides the weights.

    `routers` holds the task index whose router each TC-MoA uses, encoder's first. `x_channels` and
    `y_channels` are 3, or 1 for a source that comes as one channel.
    """

    task: str
    routers: tuple[int, ...]
    layout: Layout
    channel_order: ChannelOrder = "rgb"
    color: ColorMode = "rgb"
    batch: int = 1
    x_channels: int = 3
    y_channels: int = 3
    with_prompt: bool = False
    as_published: bool = False
    precision: Precision = "fp32"

    @property
    def target(self) -> str:
        """`gpu` or `cpu`: what the order of the tokens suits."""
        return next(target for target, order in ORDER_FOR.items() if order == self.layout.order)

    @property
    def images(self) -> int:
        """Images of one source that the blocks see at once: batch times crops."""
        return self.batch * len(self.layout.starts)

    @property
    def contract(self) -> Contract:
        """Names, types and shapes of the graph's inputs and outputs."""
        return Contract(
            height=self.layout.height,
            width=self.layout.width,
            grid=self.layout.grid,
            prompts=len(self.routers),
            batch=self.batch,
            x_channels=self.x_channels,
            y_channels=self.y_channels,
            with_prompt=self.with_prompt,
        )


def _one_of(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{what} is {value!r}: expected one of {', '.join(known)}")


def make_spec(
    model: TCMoA,
    task: str,
    size: tuple[int, int],
    *,
    precision: str = "fp32",
    channel_order: str = "rgb",
    color: str = "rgb",
    batch: int = 1,
    grey: Sequence[str] = (),
    routers: Sequence[str] | None = None,
    with_prompt: bool = False,
    as_published: bool = False,
    target: str = "gpu",
) -> ExportSpec:
    """Check the options against the model; `size` is (height, width), `grey` names one-channel sources (x, y).

    `target`: `gpu` or `cpu`, what the order of the tokens suits; either runs on both.

    Raises InputError naming the option, what arrived and what was expected.
    """
    _one_of("task", task, TASKS)
    if task not in model.sizes.tasks:
        raise InputError(f"task is {task!r}: these weights know {', '.join(model.sizes.tasks)}")
    if model.sizes.adaptation != TC_MOA:
        raise InputError(
            f"these weights are the baseline '{model.sizes.adaptation}' of the paper's Table 5, for training and "
            f"comparison only: expected a TC-MoA"
        )
    _one_of("precision", precision, PRECISIONS)
    _one_of("channel order", channel_order, ("rgb", "bgr"))
    _one_of("color", color, ("rgb", "luma"))
    _one_of("target", target, tuple(ORDER_FOR))
    for source in grey:
        _one_of("one-channel source", source, tuple(SOURCE_ROLES[task]))
    height, width = size
    if not (1 <= height <= MOST_PIXELS and 1 <= width <= MOST_PIXELS):
        raise InputError(f"size is {width}x{height}: expected 1x1 to {MOST_PIXELS}x{MOST_PIXELS} pixels")
    if not 1 <= batch <= 64:
        raise InputError(f"batch is {batch}: expected 1 to 64 frames")
    if model.sizes.patch_size != 16 or model.sizes.window % 2:
        raise InputError(
            f"patches of {model.sizes.patch_size} pixels and windows of {model.sizes.window} tokens: "
            f"expected patches of 16 and an even window"
        )
    try:
        indices = model.router_indices(task, routers)
    except ValueError as error:
        raise InputError(f"routers: {error}") from error
    fit: Fit = choose_fit(height, width, as_published=as_published)
    window_pixels = model.sizes.window * token_pixels(model.upsample)
    if fit == "crops" and CROP % window_pixels:
        raise InputError(
            f"the authors' crops of {CROP} pixels are no whole windows of {window_pixels}, which these weights have: "
            f"export without --as-published"
        )
    return ExportSpec(
        task=task,
        routers=tuple(indices),
        layout=Layout(height, width, fit, model.upsample, model.sizes.window, ORDER_FOR[target]),
        channel_order="bgr" if channel_order == "bgr" else "rgb",
        color="luma" if color == "luma" else "rgb",
        batch=batch,
        x_channels=1 if "x" in grey else 3,
        y_channels=1 if "y" in grey else 3,
        with_prompt=with_prompt,
        as_published=as_published,
        precision=cast("Precision", precision),
    )
