"""What to export: one task, one frame size, and the options that shape the graph."""

from __future__ import annotations

from dataclasses import dataclass

from tcmoa import TCMoA
from tcmoa.frames import CROP, ColorMode, Fit, choose_fit
from tcmoa.presets import TC_MOA
from tcmoa_export.folds import ChannelOrder
from tcmoa_export.layout import ORDER_FOR, Layout
from tcmoa_export.precision import Precision
from tcmoa_runtime.contract import Contract, token_pixels
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.export import ExportOptions


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


def make_spec(model: TCMoA, options: ExportOptions) -> ExportSpec:
    """Combine the options with the model.

    Raises:
        InputError: The options do not fit the model; the subject is the option's name.
    """
    task, routers, as_published = options.task, options.routers, options.as_published
    height, width = options.size
    if task not in model.sizes.tasks:
        raise InputError(f"task is {task!r}: these weights know {', '.join(model.sizes.tasks)}")
    if model.sizes.adaptation != TC_MOA:
        raise InputError(
            f"these weights are the baseline '{model.sizes.adaptation}' of the paper's Table 5, for training and "
            f"comparison only: expected a TC-MoA"
        )
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
        layout=Layout(height, width, fit, model.upsample, model.sizes.window, ORDER_FOR[options.target]),
        channel_order=options.channel_order,
        color=options.color,
        batch=options.batch,
        x_channels=1 if "x" in options.gray else 3,
        y_channels=1 if "y" in options.gray else 3,
        with_prompt=options.with_prompt,
        as_published=as_published,
        precision=options.precision,
    )
