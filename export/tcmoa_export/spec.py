"""What to export: the options, resolved against the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from tcmoa import TCMoA
from tcmoa.presets import SOURCE_WEIGHTS, TC_MOA
from tcmoa.reference import choose_color
from tcmoa.window_fit import CROP, choose_fit
from tcmoa_export.token_layout import ORDER_FOR, TokenLayout
from tcmoa_runtime.contract import PATCH, Contract, token_pixels
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.export import ExportOptions


@dataclass(frozen=True)
class ExportSpec:
    """Everything that decides a graph besides the weights.

    Attributes:
        options: The caller's choices; `color` is never None.
        routers: Index of the task whose router each TC-MoA uses, the encoder's first.
        layout: Geometry of the frame and its tokens.
        weighs_sources: Whether the model's image weighs the sources; see `tcmoa.source_weights`.
    """

    options: ExportOptions
    routers: tuple[int, ...]
    layout: TokenLayout
    weighs_sources: bool = False

    @property
    def images(self) -> int:
        """Number of images of one source that the blocks see at once: batch times crops."""
        return self.options.batch * len(self.layout.origins)

    @cached_property
    def contract(self) -> Contract:
        """Names, types and shapes of the graph's inputs and outputs."""
        options = self.options
        return Contract(
            height=self.layout.height,
            width=self.layout.width,
            grid=self.layout.grid,
            prompts=len(self.routers),
            batch=options.batch,
            x_channels=1 if "x" in options.gray else 3,
            y_channels=1 if "y" in options.gray else 3,
            with_prompt=options.with_prompt,
        )


def make_spec(model: TCMoA, options: ExportOptions) -> ExportSpec:
    """Resolve the options against the model.

    Raises:
        InputError: The options do not fit the model; the subject is the option's name.
    """
    sizes = model.sizes
    if options.task not in sizes.tasks:
        raise InputError(
            f"{options.task!r}; expected one of {', '.join(sizes.tasks)}, the tasks of these weights",
            subject="task",
        )
    if sizes.adaptation != TC_MOA:
        raise InputError(
            f"the baseline {sizes.adaptation!r} of the paper's Table 5, for training and comparison only; expected a "
            f"TC-MoA",
            subject="weights",
        )
    if sizes.patch_size != PATCH or sizes.window % 2:
        raise InputError(
            f"patches of {sizes.patch_size} pixels and windows of {sizes.window} tokens; expected patches of {PATCH} "
            f"pixels and an even window",
            subject="weights",
        )
    try:
        routers = model.router_indices(options.task, options.routers)
    except ValueError as error:
        raise InputError(str(error), subject="routers") from error
    height, width = options.size
    fit = choose_fit(height, width, as_published=options.as_published)
    window_px = sizes.window * token_pixels(model.upsample)
    if fit == "crops" and CROP % window_px:
        raise InputError(
            f"crops of {CROP} pixels; expected a multiple of {window_px}, the window of these weights in pixels",
            subject="as_published",
            remedy="Export without {as_published}",
            settings={"as_published": ...},
        )
    order = ORDER_FOR[options.target]
    weighs_sources = sizes.output == SOURCE_WEIGHTS
    return ExportSpec(
        replace(options, color=choose_color(sizes, options.color)),
        tuple(routers),
        TokenLayout(height, width, fit, model.upsample, sizes.window, order, keeps_padding=weighs_sources),
        weighs_sources,
    )
