"""A larger model that starts as a smaller trained one: wider, deeper, with windows of another size.

Function-preserving growth (Net2Net, Chen, Goodfellow and Shlens 2016): every channel is there several times, every
weight that reads it is shared out between its copies in unequal parts, so that the copies learn different things, and
blocks that are added end in zero. LayerNorm sees the same mean and variance, attention has more heads of the same size.
Windows of another size change the picture a little: an offset between two tokens keeps its bias, but other tokens
compete, and borders lie elsewhere. Adam moves each weight by about the learning rate, and twice as many move a result:
a model twice as wide wants half the rate.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tcmoa.blocks import Block, RelativePositionBias
from tcmoa.moa import TaskCustomisedMoA
from tcmoa.model import Stage, TCMoA, positions_on_grid
from tcmoa.presets import TC_MOA, Sizes

UNEVEN = 0.5
"""How far the parts of a weight that is shared out are from equal ones: 0 not at all, below 1 all keep their sign."""

GROWS = (
    "embed_dim",
    "decoder_embed_dim",
    "num_heads",
    "decoder_num_heads",
    "depth",
    "decoder_depth",
    "window",
)
"""The sizes that may differ; all others must be equal."""


def grow(small: TCMoA, large: TCMoA, seed: int = 0) -> None:
    """Set the parameters of `large` in place so that it fuses as `small` does; `seed` draws the unequal parts.

    Encoder and decoder may each be wider by a whole factor, with the heads wider by the same one, and deeper as long as
    no TC-MoA is added; windows may be of any size. Raises ValueError, naming the size, where they differ otherwise.
    """
    old, new = small.sizes, large.sizes
    encoder, decoder = _factors(old, new)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        large.cls_token.copy_(_repeated(small.cls_token, encoder, 2))
        large.pos_embed.copy_(_positions(small.pos_embed, encoder, new.window))
        large.decoder_pos_embed.copy_(_positions(small.decoder_pos_embed, decoder, new.window))
        _grow_weights(small.patch_embed.proj, large.patch_embed.proj, encoder, 1, generator)
        _grow_stage(small.encoder, large.encoder, encoder, generator)
        _grow_norm(small.norm, large.norm, encoder)
        _grow_weights(small.decoder_embed, large.decoder_embed, decoder, encoder, generator)
        _grow_stage(small.decoder, large.decoder, decoder, generator)
        _grow_norm(small.decoder_norm, large.decoder_norm, decoder)
        _grow_weights(small.decoder_pred, large.decoder_pred, 1, decoder, generator)


def _factors(old: Sizes, new: Sizes) -> tuple[int, int]:
    """How many times wider encoder and decoder are. Raises ValueError where `new` cannot start as `old`."""
    for field in fields(Sizes):
        if field.name not in GROWS and getattr(old, field.name) != getattr(new, field.name):
            raise ValueError(
                f"{field.name} is {getattr(old, field.name)!r} in the small model and "
                f"{getattr(new, field.name)!r} in the large one, expected the same"
            )
    if new.adaptation != TC_MOA:
        raise ValueError(f"adaptation is {new.adaptation!r}, expected {TC_MOA!r}")
    found = []
    for width, heads, depth in (
        ("embed_dim", "num_heads", "depth"),
        ("decoder_embed_dim", "decoder_num_heads", "decoder_depth"),
    ):
        factor, rest = divmod(getattr(new, width), getattr(old, width))
        if rest:
            raise ValueError(
                f"{width} is {getattr(new, width)}, expected a multiple of {getattr(old, width)}"
            )
        if getattr(new, heads) != factor * getattr(old, heads):
            raise ValueError(
                f"{heads} is {getattr(new, heads)}, expected {factor * getattr(old, heads)}: heads keep their size"
            )
        depths = getattr(old, depth), getattr(new, depth)
        if depths[1] < depths[0] or new.moa_positions(depths[0]) != new.moa_positions(depths[1]):
            raise ValueError(
                f"{depth} is {depths[1]}, expected {depths[0]} or more without another TC-MoA among the added blocks"
            )
        found.append(factor)
    return found[0], found[1]


def _repeated(values: Tensor, factor: int, axis: int = 0, parts: int = 1) -> Tensor:
    """`values` with each of `parts` equal stretches of `axis` there `factor` times: abcd as abab cdcd for 2 parts."""
    axes = [1] * (values.dim() + 1)
    axes[axis + 1] = factor
    split: Tensor = values.unflatten(axis, (parts, -1))
    return split.repeat(axes).flatten(axis, axis + 1)


def _shared_out(weight: Tensor, factor: int, parts: int, generator: torch.Generator) -> Tensor:
    """`weight` [out, in, ...] for `factor` copies of each input: parts of unequal size that add up to it."""
    if factor == 1:
        return weight
    wide = _repeated(weight, factor, 1, parts)
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
    """A layer whose outputs are there `out` times and whose inputs `into` times, part by part of each."""
    weight = _repeated(small.weight, out, 0, out_parts)
    large.weight.copy_(_shared_out(weight, into, in_parts, generator))
    if large.bias is not None and small.bias is not None:
        large.bias.copy_(_repeated(small.bias, out, 0, out_parts))


def _grow_norm(small: nn.LayerNorm, large: nn.LayerNorm, factor: int, parts: int = 1) -> None:
    large.weight.copy_(_repeated(small.weight, factor, 0, parts))
    large.bias.copy_(_repeated(small.bias, factor, 0, parts))


def _positions(table: Tensor, factor: int, window: int) -> Tensor:
    """A position table [1, 1 + side*side, C] for the side `window` and C times `factor`."""
    square = positions_on_grid(table, (window, window)).flatten(1, 2)
    return _repeated(torch.cat((table[:, :1], square), 1), factor, 2)


def _grow_stage(small: Stage, large: Stage, factor: int, generator: torch.Generator) -> None:
    for i, block in enumerate(large.blocks):
        added = i >= len(small.blocks)
        # One that is added looks at what the last one of the same shift looks at.
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
    # q, k and v; within each, channels of a head stand together, so that copies of all channels are more heads.
    _grow_weights(small.attn.qkv, large.attn.qkv, factor, factor, generator, out_parts=3)
    _grow_weights(small.attn.proj, large.attn.proj, factor, factor, generator)
    _grow_norm(small.norm2, large.norm2, factor)
    _grow_weights(small.mlp.fc1, large.mlp.fc1, factor, factor, generator)
    _grow_weights(small.mlp.fc2, large.mlp.fc2, factor, factor, generator)


def _grow_bias(small: RelativePositionBias, large: RelativePositionBias, factor: int) -> None:
    """Offsets keep their bias; those beyond the small window take that of the nearest one within."""
    sides = [round(bias.table.shape[0] ** 0.5) for bias in (small, large)]
    beyond = (sides[1] - sides[0]) // 2  # negative: cut off
    square = small.table.T.unflatten(1, (sides[0], sides[0]))[None]
    square = F.pad(square, (beyond,) * 4, mode="replicate")[0]
    large.table.copy_(_repeated(square.flatten(1).T, factor, 1))


def _grow_moa(
    small: TaskCustomisedMoA, large: TaskCustomisedMoA, factor: int, generator: torch.Generator
) -> None:
    narrow, wide = small.prompts, large.prompts
    _grow_norm(narrow.norm1, wide.norm1, factor, parts=2)  # x and y side by side
    _grow_weights(narrow.reduce, wide.reduce, factor, factor, generator, in_parts=2)
    _grow_norm(narrow.norm2, wide.norm2, factor)
    for table, into in ((narrow.routers.gate, wide.routers.gate), (narrow.routers.noise, wide.routers.noise)):
        for task, rows in enumerate(table):
            into[task].copy_(_shared_out(rows.T, factor, 1, generator).T)
    for expert, larger in zip(narrow.bank.adapters, wide.bank.adapters, strict=True):
        _grow_weights(expert.fc1, larger.fc1, factor, factor, generator)
        # The first half of what an adapter says is about x, the second about y.
        _grow_weights(expert.fc2, larger.fc2, factor, factor, generator, out_parts=2)
    large.source_embedding.copy_(_repeated(small.source_embedding, factor, 2))
    for conv, larger_conv in (
        (small.fusion.conv1, large.fusion.conv1),
        (small.fusion.conv2, large.fusion.conv2),
        (small.fusion.conv3, large.fusion.conv3),
    ):
        _grow_weights(conv, larger_conv, factor, factor, generator)
    large.mix.copy_(small.mix)
