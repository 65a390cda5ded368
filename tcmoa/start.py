"""A start that is already a fusion, so that training on a CPU only has to improve it.

Behind the x2 upsampling a token holds 8x8x3 = 192 pixels. With C > 192 the patch embedding can put the DCT
coefficients of those pixels, in three opponent colours and scaled to about unit variance, into channels
0..191 exactly; the other channels carry a large constant, so that every LayerNorm divides by nearly the
same number and the network starts near linear. Narrower models keep all of luma and the low frequencies of the
two other colours, as video does: 64 + 16 + 16 of C = 128. Residual branches start at zero. TC-MoA k fuses the kth
third of the coefficients (for C = 256 that is colour component k), by prompts that start as a comparison of local
contrast: the source with more of it dominates. The prediction head inverts the DCT.

Thus luma meets once, after two blocks, as one sum by prompts of a token each; no block after that knows both sources
of it. `held_apart` (C of 256 and more) writes that sum beside the source's own luma instead, in the place of the finer
half of the two other colours, and lets luma meet again in the decoder: the blocks between can weigh it pixel by pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor, nn

from tcmoa.moa import TaskCustomisedMoA
from tcmoa.model import TCMoA

TOKEN = 8
COEFFICIENTS = TOKEN * TOKEN
CARRIER = 50.0
"""Size of the constant channels: large against scaled DCT coefficients (about 1, up to about 10)."""
CARRIER_WEIGHT = 0.25
"""LayerNorm weight of the constant channels: small, as every weight behind them that an optimiser moves a little
moves the result by its share of all of them at once."""
GAIN = 4.0
"""Share of the fused signal against the source's own after a TC-MoA: x + GAIN*(prompt_x*x + prompt_y*y)."""
MIX = 0.5
CONTRAST = 0.25
"""How strongly the first prompts follow local contrast."""


def dct_matrix(n: int) -> Tensor:
    """Orthonormal DCT-II matrix [n, n], float64, rows are frequencies."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
    matrix = torch.cos(math.pi * (2 * i + 1) * k / (2 * n)) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def upsampling_matrix() -> Tensor:
    """Bilinear x2 of 10 neighbouring pixels to the 16 values of one patch: float64 [16, 10]."""
    matrix = torch.zeros(2 * TOKEN, TOKEN + 2, dtype=torch.float64)
    for i in range(TOKEN):
        matrix[2 * i, i], matrix[2 * i, i + 1] = 0.25, 0.75
        matrix[2 * i + 1, i + 1], matrix[2 * i + 1, i + 2] = 0.75, 0.25
    return matrix


def opponent_colours() -> Tensor:
    """Orthonormal [3, 3] float64: luma, red against blue, green against both."""
    rows = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    return rows / rows.square().sum(1, keepdim=True).sqrt()


def frequency_order() -> list[tuple[int, int]]:
    """The 64 (row, column) frequencies, low ones first."""
    pairs = [(u, v) for u in range(TOKEN) for v in range(TOKEN)]
    return sorted(pairs, key=lambda p: (p[0] ** 2 + p[1] ** 2, p))


def with_chroma(count: int) -> list[tuple[int, int, int]]:
    """(colour, row, column) of all of luma and of the `count` lowest frequencies of the two other colours."""
    order = frequency_order()
    return [(c, u, v) for c, number in enumerate((COEFFICIENTS, count, count)) for u, v in order[:number]]


def kept_coefficients(dim: int) -> list[tuple[int, int, int]]:
    """(colour, row, column) of the coefficients that C = `dim` holds in three TC-MoAs of rank C/4, colour by colour.

    All of luma, and of the two others the low frequencies for which there is room.
    """
    return with_chroma(min(COEFFICIENTS, (3 * dim // 4 - COEFFICIENTS) // 2))


def coefficient_spread(kept: list[tuple[int, int, int]]) -> Tensor:
    """Rough standard deviation of each coefficient in photographs (amplitude falls with frequency): [kept]."""
    radius = torch.tensor([math.hypot(u, v) for _, u, v in kept])
    return torch.where(radius == 0, torch.tensor(6.0), 1.6 / radius.clamp(min=1.0) ** 1.3).float()


@dataclass(frozen=True)
class Meeting:
    """What one TC-MoA of a start does: coefficients of the channels `reads` are fused into the channels `writes`.

    `gain`: the fused signal's share against what stands in `writes` already. `brightness`: whether the first of
    `reads` is brightness, which prompts do not compare: it is no merit, but more colour wins.
    """

    reads: range
    writes: range
    gain: float
    brightness: bool


@dataclass(frozen=True)
class Layout:
    """Which channel holds what: the coefficients `kept`, then `empty` channels, then carriers."""

    kept: list[tuple[int, int, int]]
    empty: int
    meetings: tuple[Meeting, Meeting, Meeting]

    @property
    def signals(self) -> int:
        """Channels that are no carriers."""
        return len(self.kept) + self.empty


def third_by_third(dim: int) -> Layout:
    """TC-MoA k fuses the kth third of the coefficients, in place."""
    kept = kept_coefficients(dim)
    third = len(kept) // 3
    ranges = [range(third * k, third * (k + 1)) for k in range(3)]
    first, second, last = (Meeting(own, own, GAIN, own.start == 0) for own in ranges)
    return Layout(kept, 0, (first, second, last))


def held_apart(dim: int) -> Layout:
    """The first TC-MoA writes the fused luma beside the source's own, so that both stay known to all blocks after it.

    The second fuses the two other colours, the last one luma again, as the blocks between have left it. Raises
    ValueError where `dim` has no room.
    """
    rank = dim // 4
    chroma = min(COEFFICIENTS, rank // 2, (3 * rank - 2 * COEFFICIENTS) // 2)
    if rank < COEFFICIENTS or chroma < 1:
        raise ValueError(f"C = {dim}, expected 256 or more")
    luma, others = range(COEFFICIENTS), range(COEFFICIENTS, COEFFICIENTS + 2 * chroma)
    beside = range(others.stop, others.stop + COEFFICIENTS)
    return Layout(
        with_chroma(chroma),
        COEFFICIENTS,
        (
            Meeting(luma, beside, 1.0, True),
            Meeting(others, others, GAIN, False),
            Meeting(luma, luma, GAIN, True),
        ),
    )


FUSIONS: Final = MappingProxyType({"fusion": third_by_third, "fusion-held": held_apart})
"""Layouts by the names that a configuration's `start` gives them."""


def start_as_fusion(model: TCMoA, seed: int = 0, layout: Callable[[int], Layout] = third_by_third) -> None:
    """Set the parameters of `model` in place to a start as described above; position biases keep their small noise.

    `layout`: one of `FUSIONS`. Needs upsampling, 16-pixel patches, equal widths C, a multiple of 128, in encoder
    and decoder and three TC-MoAs, the last one in the decoder; raises ValueError otherwise, and where the layout
    has no room.
    """
    sizes = model.sizes
    dim = sizes.embed_dim
    if not (
        model.upsample
        and sizes.patch_size == 2 * TOKEN
        and dim == sizes.decoder_embed_dim
        and dim % (2 * COEFFICIENTS) == 0  # the adapters' units, in fours
        and (len(model.encoder.moas), len(model.decoder.moas)) == (2, 1)
    ):
        raise ValueError(
            f"this start needs upsampling, patches of 16, equal widths of a multiple of 128 and 2 + 1 TC-MoAs; "
            f"got {sizes}"
        )
    plan = layout(dim)
    pixels = plan.signals
    generator = torch.Generator().manual_seed(seed)
    carrier = torch.where(torch.arange(dim) % 2 == 0, CARRIER, -CARRIER)
    carrier[:pixels] = 0
    # LayerNorm turns a carrier of size c into this number, whatever c is.
    normalised = math.sqrt(dim / (dim - pixels))

    with torch.no_grad():
        _embedding_and_head(model, carrier, normalised, plan)
        for stage in (model.encoder, model.decoder):
            for block in stage.blocks:
                for branch in (block.attn.qkv, block.mlp.fc1):
                    nn.init.xavier_uniform_(branch.weight, generator=generator)
                    nn.init.zeros_(branch.bias)
                for end in (block.attn.proj, block.mlp.fc2):
                    nn.init.zeros_(end.weight)
                    nn.init.zeros_(end.bias)
        meetings = iter(plan.meetings)
        for stage, halves in ((model.encoder, True), (model.decoder, False)):
            level = CARRIER
            for i, block in enumerate(stage.blocks):
                for norm in (block.norm1, block.norm2):
                    norm.weight.fill_(CARRIER_WEIGHT)
                    norm.weight[:pixels] = level / normalised
                    norm.bias.zero_()
                if i in stage.moa_after:
                    moa = stage.moas[stage.moa_after[i]]
                    _fuse(moa, next(meetings), level / normalised, pixels, generator)
                    # The mix shrinks the carrier with all that is not fused; the decoder's is put right after.
                    level *= (1 - MIX) if halves else 1.0


def _embedding_and_head(model: TCMoA, carrier: Tensor, normalised: float, plan: Layout) -> None:
    dct, colours, pixels, kept = dct_matrix(TOKEN), opponent_colours(), plan.signals, plan.kept
    inverse = torch.linalg.pinv(upsampling_matrix())[1 : TOKEN + 1]  # patch of 16 back to its own 8 pixels
    analysis = dct @ inverse  # [8, 16]
    embed = torch.stack(
        [colours[c][:, None, None] * torch.outer(analysis[u], analysis[v]) for c, u, v in kept]
    )
    proj = model.patch_embed.proj
    assert proj.bias is not None
    proj.weight.zero_()
    spread = coefficient_spread(kept)
    proj.weight[: len(kept)] = embed.float() / spread[:, None, None, None]
    proj.bias.copy_(carrier)
    for table in (model.pos_embed, model.decoder_pos_embed):
        table.zero_()  # inside a window the relative bias tells positions apart

    # After two encoder TC-MoAs the carrier and all unfused channels stand at (1 - MIX)^2.
    shrunk = (1 - MIX) ** 2
    fused = _grown(plan, plan.meetings[:2])
    model.norm.weight.fill_(CARRIER_WEIGHT)
    model.norm.weight[:pixels] = CARRIER * shrunk / normalised / (shrunk * fused)
    model.norm.bias.zero_()
    model.decoder_embed.weight.copy_(torch.eye(model.sizes.embed_dim))
    model.decoder_embed.weight[pixels:] *= CARRIER / normalised / CARRIER_WEIGHT
    _undo_centring(model.decoder_embed.weight, model.norm.weight, pixels)
    model.decoder_embed.bias.zero_()

    fused = _grown(plan, plan.meetings[2:])
    model.decoder_norm.weight.fill_(CARRIER_WEIGHT)
    model.decoder_norm.weight[:pixels] = CARRIER / normalised / fused
    model.decoder_norm.bias.zero_()
    synthesis = torch.stack(
        [torch.einsum("i,j,k->ijk", dct[u], dct[v], colours[c]) for c, u, v in kept], -1
    )  # [8, 8, 3, kept]
    doubled = synthesis.repeat_interleave(2, 0).repeat_interleave(2, 1)  # each pixel to its four sub-pixels
    head = doubled.reshape(-1, len(kept)).float() * spread
    model.decoder_pred.weight.zero_()
    model.decoder_pred.weight[:, : len(kept)] = head
    for meeting in plan.meetings:
        if meeting.writes != meeting.reads:  # what stands beside is half of the result
            half = head[:, meeting.reads] / 2
            model.decoder_pred.weight[:, meeting.reads] = half
            model.decoder_pred.weight[:, meeting.writes] = half
    model.decoder_pred.bias.zero_()
    _undo_centring(model.decoder_pred.weight, model.decoder_norm.weight, pixels)


def _grown(plan: Layout, meetings: Sequence[Meeting]) -> Tensor:
    """How many times its own size each signal channel has after `meetings`, beside those that met nothing."""
    size = torch.ones(plan.signals)
    for meeting in meetings:
        if meeting.writes == meeting.reads:
            size[meeting.writes] *= 1 + meeting.gain
    return size


def _undo_centring(weight: Tensor, scale: Tensor, pixels: int) -> None:
    """Let the linear layer behind a LayerNorm of weights `scale` give back the mean that the norm took away.

    The carriers add up to zero, so behind the norm their average is minus that mean. Otherwise a dark
    patch's large mean coefficient would leak into all channels.
    """
    total = (weight[:, :pixels] * scale[:pixels]).sum(1, keepdim=True)
    if weight.shape[0] == weight.shape[1]:
        total[pixels:] = (weight[pixels:] * scale).sum(1, keepdim=True)
    weight[:, pixels:] -= total / (scale.numel() - pixels) / scale[pixels:]


def _fuse(
    moa: TaskCustomisedMoA, meeting: Meeting, unit: float, pixels: int, generator: torch.Generator
) -> None:
    """Let `moa` fuse some of the coefficients by their local contrast.

    `unit` undoes LayerNorm: a normalised coefficient times it is the coefficient. `pixels`: all signal channels.
    """
    dim = moa.fusion.conv1.in_channels
    rank = dim // 4
    own, written = torch.tensor(meeting.reads), torch.tensor(meeting.writes)
    first = 1 if meeting.brightness else 0
    compared = torch.arange(first, first + rank // 2)

    prompts = moa.prompts
    prompts.norm1.weight.fill_(CARRIER_WEIGHT)
    prompts.norm1.bias.zero_()
    prompts.reduce.weight.normal_(std=1e-3, generator=generator)
    prompts.reduce.weight.unflatten(1, (2, dim))[:, :, pixels:] = 0
    for source in range(2):
        columns = own[compared] + source * dim
        prompts.norm1.weight[columns] = unit
        prompts.reduce.weight[source * (rank // 2) + torch.arange(rank // 2), columns] = 1.0
    scale = prompts.norm1.weight.unflatten(0, (2, dim))
    own_weights = prompts.reduce.weight.unflatten(1, (2, dim))
    for source in range(2):
        _undo_centring(own_weights[:, source], scale[source], pixels)
    prompts.norm2.weight.fill_(1.0)
    prompts.norm2.bias.zero_()
    prompts.routers.gate.normal_(std=0.05, generator=generator)
    prompts.routers.noise.zero_()
    for adapter in prompts.bank.adapters:
        hidden = adapter.fc1.weight.shape[0]
        signs = torch.randn(hidden // 4, rank // 2, generator=generator) * (2 / rank) ** 0.5
        adapter.fc1.weight.normal_(std=0.02, generator=generator)
        adapter.fc2.weight.normal_(std=0.02, generator=generator)
        adapter.fc1.bias.zero_()
        adapter.fc2.bias.zero_()
        for source, sense in ((0, 1.0), (1, -1.0)):
            units = slice(source * hidden // 2, (source + 1) * hidden // 2)
            inputs = slice(source * rank // 2, (source + 1) * rank // 2)
            adapter.fc1.weight[units, inputs] += torch.cat((signs, -signs))  # relu(s) + relu(-s) = |s|
            adapter.fc2.weight[: rank // 2, units] += sense * CONTRAST
            adapter.fc2.weight[rank // 2 :, units] -= sense * CONTRAST

    fusion = moa.fusion
    for conv in (fusion.conv1, fusion.conv2, fusion.conv3):
        conv.weight.normal_(std=1e-4, generator=generator)
    fusion.conv1.weight[:, pixels:] = 0  # noise times the carrier would be an offset
    index = torch.arange(len(own))
    fusion.conv1.weight[index, own, 0, 0] += 1.0
    fusion.conv2.weight[torch.arange(rank), torch.arange(rank), 1, 1] += 1.0
    fusion.conv3.weight[written, index, 0, 0] += meeting.gain * (1 - MIX) / MIX
    moa.source_embedding.normal_(std=0.02, generator=generator)
    moa.mix.fill_(MIX)
