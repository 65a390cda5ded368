"""Initialize a larger model from a smaller trained one: wider, deeper, or with windows of another size.

Function-preserving growth (Net2Net; Chen, Goodfellow and Shlens 2016): each channel is copied, and each weight that
reads it is divided among the copies in unequal parts, so that they learn different things. The residual branches of
added blocks end in zeros. LayerNorm sees the same mean and variance; attention gets more heads of the same size.
Windows of another size change the image a little: an offset between two tokens keeps its bias, but attention covers
other tokens, and the borders are in other places. Adam moves each weight by about the learning rate, and in a model
twice as wide twice as many weights change a result: it needs half the learning rate.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tcmoa.blocks import Block, RelativePositionBias
from tcmoa.moa import TaskCustomizedMoA
from tcmoa.model import Stage, TCMoA, positions_on_grid
from tcmoa.presets import TC_MOA, Sizes
from tcmoa_runtime.errors import InputError

UNEVEN = 0.5
"""How unequal the parts of a divided weight are: 0 makes them equal, values below 1 preserve their sign."""

GROWABLE = (
    "embed_dim",
    "decoder_embed_dim",
    "num_heads",
    "decoder_num_heads",
    "depth",
    "decoder_depth",
    "window",
)
"""The sizes that may differ between the two models."""


def grow(small: TCMoA, large: TCMoA, seed: int = 0) -> None:
    """Set the parameters of `large` in place so that it computes what `small` computes.

    Encoder and decoder may each be wider by a whole factor, with as many times the heads, and deeper as long as no
    TC-MoA is added. Windows may have any size.

    Args:
        small: The trained model.
        large: The model to initialize.
        seed: Seed of the unequal parts.

    Raises:
        InputError: The sizes differ in another way; the message names the size.
    """
    old, new = small.sizes, large.sizes
    encoder, decoder = _factors(old, new)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        large.cls_token.copy_(_repeat(small.cls_token, encoder, 2))
        large.pos_embed.copy_(_grow_positions(small.pos_embed, encoder, new.window))
        large.decoder_pos_embed.copy_(_grow_positions(small.decoder_pos_embed, decoder, new.window))
        _grow_weights(small.patch_embed.proj, large.patch_embed.proj, encoder, 1, generator)
        _grow_stage(small.encoder, large.encoder, encoder, generator)
        _grow_norm(small.norm, large.norm, encoder)
        _grow_weights(small.decoder_embed, large.decoder_embed, decoder, encoder, generator)
        _grow_stage(small.decoder, large.decoder, decoder, generator)
        _grow_norm(small.decoder_norm, large.decoder_norm, decoder)
        _grow_weights(small.decoder_pred, large.decoder_pred, 1, decoder, generator)


def _factors(old: Sizes, new: Sizes) -> tuple[int, int]:
    """Return how many times wider encoder and decoder are; raises InputError if `old` cannot grow to `new`."""
    for field in fields(Sizes):
        if field.name not in GROWABLE and getattr(old, field.name) != getattr(new, field.name):
            raise InputError(
                f"{field.name} is {getattr(old, field.name)!r} in the small model and "
                f"{getattr(new, field.name)!r} in the large one; expected the same"
            )
    if new.adaptation != TC_MOA:
        raise InputError(f"adaptation is {new.adaptation!r}; expected {TC_MOA!r}")
    found = []
    for width, heads, depth in (
        ("embed_dim", "num_heads", "depth"),
        ("decoder_embed_dim", "decoder_num_heads", "decoder_depth"),
    ):
        factor, rest = divmod(getattr(new, width), getattr(old, width))
        if rest:
            raise InputError(
                f"{width} is {getattr(new, width)}; expected a multiple of {getattr(old, width)}"
            )
        if getattr(new, heads) != factor * getattr(old, heads):
            raise InputError(
                f"{heads} is {getattr(new, heads)}; expected {factor * getattr(old, heads)}, as heads keep their size"
            )
        depths = getattr(old, depth), getattr(new, depth)
        if depths[1] < depths[0] or new.moa_positions(depths[0]) != new.moa_positions(depths[1]):
            raise InputError(
                f"{depth} is {depths[1]}; expected {depths[0]} or more without another TC-MoA among the added blocks"
            )
        found.append(factor)
    return found[0], found[1]


def _repeat(values: Tensor, factor: int, axis: int = 0, parts: int = 1) -> Tensor:
    """Repeat each of `parts` equal sections of an axis `factor` times: with 2 parts, abcd becomes abab cdcd."""
    axes = [1] * (values.dim() + 1)
    axes[axis + 1] = factor
    split: Tensor = values.unflatten(axis, (parts, -1))
    return split.repeat(axes).flatten(axis, axis + 1)


def _divide(weight: Tensor, factor: int, parts: int, generator: torch.Generator) -> Tensor:
    """Divide `weight` [out, in, ...] among `factor` copies of each input, in unequal parts that add up to it."""
    if factor == 1:
        return weight
    wide = _repeat(weight, factor, 1, parts)
    uneven = torch.rand(weight.shape[0], parts, factor, weight.shape[1] // parts, generator=generator)
    shares = (1 + UNEVEN * (uneven - uneven.mean(2, keepdim=True))) / factor
    return wide * shares.flatten(1).view(*wide.shape[:2], *[1] * (wide.dim() - 2))


def _grow_weights(
    small: nn.Linear | nn.Conv2d,
    large: nn.Linear | nn.Conv2d,
    out: int,
    into: int,
    generator: torch.Generator,
    *,
    out_parts: int = 1,
    in_parts: int = 1,
) -> None:
    """Grow a layer whose outputs are repeated `out` times and whose inputs `into` times, section by section."""
    weight = _repeat(small.weight, out, 0, out_parts)
    large.weight.copy_(_divide(weight, into, in_parts, generator))
    if large.bias is not None and small.bias is not None:
        large.bias.copy_(_repeat(small.bias, out, 0, out_parts))


def _grow_norm(small: nn.LayerNorm, large: nn.LayerNorm, factor: int, parts: int = 1) -> None:
    large.weight.copy_(_repeat(small.weight, factor, 0, parts))
    large.bias.copy_(_repeat(small.bias, factor, 0, parts))


def _grow_positions(table: Tensor, factor: int, window: int) -> Tensor:
    """Resize a position table [1, 1 + side*side, C] to the side `window` and to `factor` times C channels."""
    square = positions_on_grid(table, (window, window)).flatten(1, 2)
    return _repeat(torch.cat((table[:, :1], square), 1), factor, 2)


def _grow_stage(small: Stage, large: Stage, factor: int, generator: torch.Generator) -> None:
    for i, block in enumerate(large.blocks):
        added = i >= len(small.blocks)
        # An added block starts with the attention of the last block of the same shift.
        _grow_block(small.blocks[len(small.blocks) - 2 + i % 2 if added else i], block, factor, generator)
        if added:
            for end in (block.attn.proj, block.mlp.fc2):
                nn.init.zeros_(end.weight)
                nn.init.zeros_(end.bias)
    for i, bias in enumerate(large.biases):
        _grow_bias(small.biases[min(i, len(small.biases) - 1)], bias, factor)
    for narrow, wide in zip(small.moas, large.moas, strict=True):
        _grow_moa(narrow, wide, factor, generator)


def _grow_block(small: Block, large: Block, factor: int, generator: torch.Generator) -> None:
    _grow_norm(small.norm1, large.norm1, factor)
    # q, k and v each; the channels of a head are adjacent, so copies of all channels are additional heads.
    _grow_weights(small.attn.qkv, large.attn.qkv, factor, factor, generator, out_parts=3)
    _grow_weights(small.attn.proj, large.attn.proj, factor, factor, generator)
    _grow_norm(small.norm2, large.norm2, factor)
    _grow_weights(small.mlp.fc1, large.mlp.fc1, factor, factor, generator)
    _grow_weights(small.mlp.fc2, large.mlp.fc2, factor, factor, generator)


def _grow_bias(small: RelativePositionBias, large: RelativePositionBias, factor: int) -> None:
    """Keep the bias of each offset; offsets beyond the small window take the bias of the nearest one within."""
    sides = [round(bias.table.shape[0] ** 0.5) for bias in (small, large)]
    beyond = (sides[1] - sides[0]) // 2  # negative: cropped
    square = small.table.T.unflatten(1, (sides[0], sides[0]))[None]
    square = F.pad(square, (beyond,) * 4, mode="replicate")[0]
    large.table.copy_(_repeat(square.flatten(1).T, factor, 1))


def _grow_moa(
    small: TaskCustomizedMoA, large: TaskCustomizedMoA, factor: int, generator: torch.Generator
) -> None:
    narrow, wide = small.prompts, large.prompts
    _grow_norm(narrow.norm1, wide.norm1, factor, parts=2)  # channels of x, then channels of y
    _grow_weights(narrow.reduce, wide.reduce, factor, factor, generator, in_parts=2)
    _grow_norm(narrow.norm2, wide.norm2, factor)
    for table, into in ((narrow.routers.gate, wide.routers.gate), (narrow.routers.noise, wide.routers.noise)):
        for task, rows in enumerate(table):
            into[task].copy_(_divide(rows.T, factor, 1, generator).T)
    for expert, larger in zip(narrow.bank.adapters, wide.bank.adapters, strict=True):
        _grow_weights(expert.fc1, larger.fc1, factor, factor, generator)
        # The first half of an adapter's outputs belongs to x, the second half to y.
        _grow_weights(expert.fc2, larger.fc2, factor, factor, generator, out_parts=2)
    large.source_embedding.copy_(_repeat(small.source_embedding, factor, 2))
    for conv, larger_conv in (
        (small.fusion.conv1, large.fusion.conv1),
        (small.fusion.conv2, large.fusion.conv2),
        (small.fusion.conv3, large.fusion.conv3),
    ):
        _grow_weights(conv, larger_conv, factor, factor, generator)
    large.mix.copy_(small.mix)
