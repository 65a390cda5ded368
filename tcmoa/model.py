"""The TC-MoA model, with the names of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tcmoa.blocks import Block, RelativePositionBias
from tcmoa.moa import MoAOutput, PromptControl, TaskCustomizedMoA, even_mixture
from tcmoa.presets import ADAPTFORMER, SOURCE_WEIGHTS, TC_MOA, Sizes
from tcmoa.source_weights import blend_sources
from tcmoa_runtime.contract import Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import LUMA
from tcmoa_runtime.typing import Precision

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""ImageNet statistics of RGB values in 0..1."""


@dataclass
class FusionOutput:
    """The output of a forward pass.

    Attributes:
        image: The fused image, [B, 3, H, W], about 0..1, not clipped; gray if the model weighs the sources.
        decoded: The decoder's normalized output before it is resized back, [B, 3, H', W'].
        prompts: (prompt_x, prompt_y) of each TC-MoA, each [B, gh, gw]; the encoder's come first.
        imbalance: Mean load-balancing loss of the TC-MoAs (0 in eval mode).
    """

    image: Tensor
    decoded: Tensor
    prompts: list[tuple[Tensor, Tensor]]
    imbalance: Tensor


def sincos_positions(dim: int, side: int) -> Tensor:
    """Return MAE's 2-D sine-cosine position table [1, 1 + side*side, dim]; row 0, the class token's, is zero."""
    omega = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    angle = torch.arange(side, dtype=torch.float64)[:, None] * omega
    axis = torch.cat((angle.sin(), angle.cos()), 1)  # [side, dim/2]
    columns = axis[None].expand(side, -1, -1)
    rows = axis[:, None].expand(-1, side, -1)
    table = torch.cat((columns, rows), -1).reshape(1, side * side, dim)  # MAE puts the column's half first
    return torch.cat((torch.zeros(1, 1, dim, dtype=torch.float64), table), 1).float()


def positions_on_grid(table: Tensor, grid: tuple[int, int], *, as_published: bool = False) -> Tensor:
    """Interpolate a position table [1, 1+side*side, C] bilinearly to a token grid [1, gh, gw, C].

    `as_published` reproduces the authors' code, which interpolates to (gw, gh) and flattens the result against tokens
    in (gh, gw) order. The two differ only for grids that are not square.
    """
    side = round((table.shape[1] - 1) ** 0.5)
    square = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    size = (grid[1], grid[0]) if as_published else grid
    if size != (side, side):
        square = F.interpolate(square, size=size, mode="bilinear", align_corners=False)
    return square.permute(0, 2, 3, 1).reshape(1, *grid, -1)


ROUNDINGS: Final[dict[Precision, torch.dtype | None]] = {
    "fp32": None,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
"""Types that `TCMoA.train_for` rounds to, by precision."""


def to_luma(image: Tensor) -> Tensor:
    """Map RGB [B, 3, H, W] to luma [B, 1, H, W], as BT.601 weights it."""
    return (image * image.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)


class PatchEmbed(nn.Module):
    """Patches to tokens by one strided convolution."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        """Map an image [B, 3, H, W] to a token grid [B, gh, gw, C]."""
        return self.proj(image).permute(0, 2, 3, 1)  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Encoder or decoder: blocks that both sources share, and a TC-MoA after every tau-th of them.

    Without TC-MoAs (see `Sizes.adaptation`) `moas` is empty, both sources are mixed evenly in their places, and the
    position biases are zero: the blocks are MAE's, applied to windows.
    """

    blocks: Sequence[Block]
    biases: Sequence[RelativePositionBias]
    moas: Sequence[TaskCustomizedMoA]

    def __init__(self, sizes: Sizes, dim: int, depth: int, heads: int, *, is_decoder: bool) -> None:
        super().__init__()
        self.restandardizes = is_decoder
        has_adapter = sizes.adaptation == ADAPTFORMER
        blocks = nn.ModuleList(
            Block(dim, heads, sizes.mlp_ratio, sizes.window, sizes.shift * (i % 2), has_adapter=has_adapter)
            for i in range(depth)
        )
        biases = nn.ModuleList(RelativePositionBias(sizes.window, heads) for _ in range(depth // 2))
        self.moa_after = {position: k for k, position in enumerate(sizes.moa_positions(depth))}
        moas = nn.ModuleList(
            TaskCustomizedMoA(dim, len(sizes.tasks), sizes.experts, sizes.top_k, restandardizes=is_decoder)
            for _ in (self.moa_after if sizes.adaptation == TC_MOA else ())
        )
        # ModuleList is not generic; the casts restore the element types.
        self.blocks = cast("Sequence[Block]", blocks)
        self.biases = cast("Sequence[RelativePositionBias]", biases)
        self.moas = cast("Sequence[TaskCustomizedMoA]", moas)
        if sizes.adaptation != TC_MOA:
            for bias in self.biases:
                nn.init.zeros_(bias.table)

    def forward(
        self, x: Tensor, y: Tensor, routers: Sequence[int], control: PromptControl
    ) -> tuple[Tensor, Tensor, list[MoAOutput]]:
        """Map two token grids [B, gh, gw, C] to two; `routers` holds the task index of each TC-MoA of this stage."""
        outputs: list[MoAOutput] = []
        for i, block in enumerate(self.blocks):
            bias = self.biases[i // 2]()
            # Both sources form one batch: blocks do not mix the items of a batch.
            x, y = block(torch.cat((x, y)), bias).chunk(2)
            if i in self.moa_after:
                k = self.moa_after[i]
                if self.moas:
                    outputs.append(self.moas[k](x, y, routers[k], control))
                else:
                    outputs.append(even_mixture(x, y, control, restandardizes=self.restandardizes))
                x, y = outputs[-1].x, outputs[-1].y
        return x, y, outputs


class TCMoA(nn.Module):
    """Task-customized mixture of adapters for general image fusion (Zhu et al., CVPR 2024).

    Args:
        sizes: Sizes of the model.
        upsample: Resize images x2 before patch embedding and the result back, as published; models that weigh the
            sources never do.
        as_published: Reproduce the authors' positions for images that are not square (see `positions_on_grid`).
    """

    def __init__(self, sizes: Sizes, *, upsample: bool = True, as_published: bool = False) -> None:
        super().__init__()
        self.sizes, self.as_published = sizes, as_published
        self.upsample = upsample and sizes.output != SOURCE_WEIGHTS
        dim, decoder_dim = sizes.embed_dim, sizes.decoder_embed_dim
        self.patch_embed = PatchEmbed(sizes.patch_size, dim)
        # The class token is part of every MAE checkpoint; the model does not use it.
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(sincos_positions(dim, sizes.window), requires_grad=False)
        self.encoder = Stage(sizes, dim, sizes.depth, sizes.num_heads, is_decoder=False)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.decoder_embed = nn.Linear(dim, decoder_dim)
        self.decoder_pos_embed = nn.Parameter(
            sincos_positions(decoder_dim, sizes.window), requires_grad=False
        )
        self.decoder = Stage(
            sizes, decoder_dim, sizes.decoder_depth, sizes.decoder_num_heads, is_decoder=True
        )
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=1e-6)
        self.decoder_pred = nn.Linear(decoder_dim, 3 * sizes.patch_size**2)

    @property
    def prompt_count(self) -> int:
        """Number of TC-MoAs, K, in encoder and decoder together."""
        return self.sizes.encoder_moas + self.sizes.decoder_moas

    @property
    def window_pixels(self) -> int:
        """Side of an attention window in frame pixels; frames must be multiples of it."""
        return self.sizes.window * self._token_pixels

    @property
    def shift_pixels(self) -> int:
        """Shift of the windows of odd blocks, in frame pixels, right and down."""
        return self.sizes.shift * self._token_pixels

    @property
    def _token_pixels(self) -> int:
        return self.sizes.patch_size // (2 if self.upsample else 1)

    def train_for(self, precision: Precision) -> None:
        """Round the residual stream and the normalized tokens in `forward` as a graph of `precision` does.

        Gradients pass through unchanged.

        Args:
            precision: `fp32` (the default: no rounding), `fp16` or `bf16`.

        Raises:
            InputError: The precision is unknown.
        """
        if precision not in ROUNDINGS:
            raise InputError(f"precision is {precision!r}; expected one of {', '.join(ROUNDINGS)}")
        for stage in (self.encoder, self.decoder):
            for block in stage.blocks:
                block.rounding = ROUNDINGS[precision]
            for moa in stage.moas:
                moa.rounding = ROUNDINGS[precision]

    def router_indices(self, task: str, routers: Sequence[str] | None = None) -> list[int]:
        """Return the task index of each TC-MoA: that of `task`, or of the K names in `routers`.

        Raises:
            InputError: A task is unknown, or there are not K names.
        """
        names = [task] * self.prompt_count if routers is None else list(routers)
        if len(names) != self.prompt_count:
            raise InputError(f"{len(names)} routers; expected {self.prompt_count}, one for each TC-MoA")
        for name in names:
            if name not in self.sizes.tasks:
                raise InputError(f"unknown task {name!r}; expected one of {', '.join(self.sizes.tasks)}")
        return [self.sizes.tasks.index(name) for name in names]

    def embed(self, image: Tensor) -> Tensor:
        """Map an image [B, 3, H, W] in 0..1 to tokens with positions [B, gh, gw, C]."""
        mean, std = image.new_tensor(IMAGE_MEAN).view(3, 1, 1), image.new_tensor(IMAGE_STD).view(3, 1, 1)
        image = (image - mean) / std
        if self.upsample:
            image = F.interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=False)
        tokens: Tensor = self.patch_embed(image)
        grid = (tokens.shape[1], tokens.shape[2])
        return tokens + positions_on_grid(self.pos_embed, grid, as_published=self.as_published)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Map patches [B, gh, gw, p*p*3], in (row, column, channel) order, to an image [B, 3, gh*p, gw*p]."""
        b, gh, gw, _ = patches.shape
        p = self.sizes.patch_size
        image = patches.view(b, gh, gw, p, p, 3).permute(0, 5, 1, 3, 2, 4)
        return image.reshape(b, 3, gh * p, gw * p)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        task: str,
        *,
        scale: float | Tensor = 1.0,
        shift: float | Tensor = 0.0,
        routers: Sequence[str] | None = None,
    ) -> FusionOutput:
        """Fuse two RGB images in 0..1; of color, models that weigh the sources see the luma only.

        Args:
            x: First source, [B, 3, H, W] with H and W multiples of `window_pixels`.
            y: Second source, of the same shape.
            task: `vif`, `mef` or `mff`.
            scale: alpha of Eq. 8, a number or maps that broadcast to [B, gh, gw].
            shift: beta of Eq. 8, a number or maps that broadcast to [B, gh, gw].
            routers: The task whose router each TC-MoA uses, instead of `task` ("router controllability").

        Raises:
            InputError: The shapes differ or are not multiples of `window_pixels`, or a task is unknown.
        """
        if x.shape != y.shape or x.shape[-2] % self.window_pixels or x.shape[-1] % self.window_pixels:
            raise InputError(
                f"x is {tuple(x.shape)} and y {tuple(y.shape)}; expected equal shapes [B, 3, H, W], "
                f"H and W multiples of {self.window_pixels}"
            )
        indices = self.router_indices(task, routers)
        split = self.sizes.encoder_moas
        control = PromptControl(scale, shift)
        if self.sizes.output == SOURCE_WEIGHTS:
            x, y = (to_luma(source.float()).expand(-1, 3, -1, -1) for source in (x, y))

        # Under autocast only the blocks run in 16 bits. These layers handle pixels, whose last digits are visible.
        exact = partial(torch.autocast, x.device.type, enabled=False)
        with exact():
            tx, ty = self.embed(x), self.embed(y)
        tx, ty, encoder_outputs = self.encoder(tx, ty, indices[:split], control)
        with exact():
            tx, ty = self.decoder_embed(self.norm(tx.float())), self.decoder_embed(self.norm(ty.float()))
        positions = positions_on_grid(
            self.decoder_pos_embed, (tx.shape[1], tx.shape[2]), as_published=self.as_published
        )
        tx, _, decoder_outputs = self.decoder(tx + positions, ty + positions, indices[split:], control)
        with exact():
            decoded = self.unpatchify(self.decoder_pred(self.decoder_norm(tx.float())))

        # Nearest x1/2 keeps every second row and column.
        kept = decoded[:, :, ::2, ::2] if self.upsample else decoded
        mean, std = kept.new_tensor(IMAGE_MEAN).view(3, 1, 1), kept.new_tensor(IMAGE_STD).view(3, 1, 1)
        image = kept * std + mean
        if self.sizes.output == SOURCE_WEIGHTS:
            with exact():
                planes = (to_luma(image.float()), x[:, :1], y[:, :1])
                image = blend_sources(*planes, cast("Task", task)).expand(-1, 3, -1, -1)
        outputs = encoder_outputs + decoder_outputs
        return FusionOutput(
            image=image,
            decoded=decoded,
            prompts=[(o.prompt_x, o.prompt_y) for o in outputs],
            imbalance=torch.stack([o.imbalance for o in outputs]).mean(),
        )
