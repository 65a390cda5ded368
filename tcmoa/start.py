"""Initialize a model so that it already fuses, so that training on a CPU only has to improve it.

After the x2 upsampling a token represents 8x8x3 = 192 pixels. With C > 192 the patch embedding stores the DCT
coefficients of those pixels, in three opponent colors and scaled to about unit variance, exactly in channels 0 to 191.
The other channels, the carriers, hold a large constant: every LayerNorm then divides by nearly the same number, and the
network is nearly linear at first. Narrower models keep all of luma and the low frequencies of the two chroma
components: 64 + 16 + 16 for C = 128. Residual branches start at zero. TC-MoA k fuses the kth third of the coefficients
(for C = 256 the kth color component) by prompts that initially compare local contrast: the source with more contrast
dominates. The prediction head inverts the DCT.

With this layout, `third_by_third`, the luma of the two sources is fused once, after two blocks, into one sum weighted
by two prompts per token, and no later block knows both sources. The layout `held_apart` (for C of 256 and more) writes
that sum to channels beside the source's own luma, in place of the finer half of the chroma coefficients, and fuses luma
a second time in the decoder. The blocks in between can weigh the sources pixel by pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor, nn

from tcmoa.moa import TaskCustomizedMoA
from tcmoa.model import TCMoA
from tcmoa_runtime.errors import InputError

TOKEN = 8
COEFFICIENTS = TOKEN * TOKEN
CARRIER = 50.0
"""Value of the constant channels: large compared with scaled DCT coefficients (about 1, at most about 10)."""
CARRIER_WEIGHT = 0.25
"""LayerNorm weight of the constant channels. It is small, because a change of any weight that reads a constant channel
shifts the result everywhere."""
GAIN = 4.0
"""Weight of the fused signal after a TC-MoA, relative to the source: x + GAIN*(prompt_x*x + prompt_y*y)."""
MIX = 0.5
"""Initial mix scalar of the TC-MoAs (lambda_f of Eq. 6)."""
CONTRAST = 0.25
"""How strongly the initial prompts depend on local contrast."""


def dct_matrix(n: int) -> Tensor:
    """Return the orthonormal DCT-II matrix [n, n], float64; rows are frequencies."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
    matrix = torch.cos(math.pi * (2 * i + 1) * k / (2 * n)) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def upsampling_matrix() -> Tensor:
    """Return the bilinear x2 upsampling of 10 neighboring pixels to the 16 values of one patch: float64 [16, 10]."""
    matrix = torch.zeros(2 * TOKEN, TOKEN + 2, dtype=torch.float64)
    for i in range(TOKEN):
        matrix[2 * i, i], matrix[2 * i, i + 1] = 0.25, 0.75
        matrix[2 * i + 1, i + 1], matrix[2 * i + 1, i + 2] = 0.75, 0.25
    return matrix


def opponent_colors() -> Tensor:
    """Return an orthonormal color transform, float64 [3, 3]: luma, red minus blue, red and blue minus green."""
    rows = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    return rows / rows.square().sum(1, keepdim=True).sqrt()


def frequency_order() -> list[tuple[int, int]]:
    """Return the 64 (row, column) frequencies in ascending order."""
    pairs = [(u, v) for u in range(TOKEN) for v in range(TOKEN)]
    return sorted(pairs, key=lambda p: (p[0] ** 2 + p[1] ** 2, p))


def list_coefficients(count: int) -> list[tuple[int, int, int]]:
    """Return (color, row, column) of all of luma and of the `count` lowest frequencies of each chroma component."""
    order = frequency_order()
    return [(c, u, v) for c, number in enumerate((COEFFICIENTS, count, count)) for u, v in order[:number]]


def kept_coefficients(dim: int) -> list[tuple[int, int, int]]:
    """Return (color, row, column) of the coefficients that three TC-MoAs of rank C/4 can fuse, with C = `dim`.

    All of luma, and as many low frequencies of both chroma components as fit.
    """
    return list_coefficients(min(COEFFICIENTS, (3 * dim // 4 - COEFFICIENTS) // 2))


def coefficient_spread(kept: list[tuple[int, int, int]]) -> Tensor:
    """Return the approximate standard deviation of each coefficient in photographs, [kept]; it falls with frequency."""
    radius = torch.tensor([math.hypot(u, v) for _, u, v in kept])
    return torch.where(radius == 0, torch.tensor(6.0), 1.6 / radius.clamp(min=1.0) ** 1.3).float()


@dataclass(frozen=True)
class FusionStep:
    """The initial function of one TC-MoA.

    Attributes:
        reads: Channels whose coefficients are fused.
        writes: Channels that the fused coefficients are added to.
        gain: Weight of the fused signal, relative to the content of `writes`.
        has_brightness: Whether the first of `reads` is brightness. Prompts compare contrast and saturation, not
            brightness.
    """

    reads: range
    writes: range
    gain: float
    has_brightness: bool


@dataclass(frozen=True)
class ChannelLayout:
    """The use of the channels: the coefficients `kept`, then `num_empty` channels, then carriers."""

    kept: list[tuple[int, int, int]]
    num_empty: int
    steps: tuple[FusionStep, FusionStep, FusionStep]

    @property
    def num_signals(self) -> int:
        """Number of channels that are not carriers."""
        return len(self.kept) + self.num_empty


def third_by_third(dim: int) -> ChannelLayout:
    """Return the layout in which TC-MoA k fuses the kth third of the coefficients, in place."""
    kept = kept_coefficients(dim)
    third = len(kept) // 3
    ranges = [range(third * k, third * (k + 1)) for k in range(3)]
    first, second, last = (FusionStep(own, own, GAIN, own.start == 0) for own in ranges)
    return ChannelLayout(kept, 0, (first, second, last))


def held_apart(dim: int) -> ChannelLayout:
    """Return the layout in which the first TC-MoA writes the fused luma beside the source's own.

    The second TC-MoA fuses chroma. The last one fuses luma a second time, after the blocks in between.

    Raises:
        InputError: `dim` is too small.
    """
    rank = dim // 4
    chroma = min(COEFFICIENTS, rank // 2, (3 * rank - 2 * COEFFICIENTS) // 2)
    if rank < COEFFICIENTS or chroma < 1:
        raise InputError(f"C = {dim}; expected 256 or more")
    luma, others = range(COEFFICIENTS), range(COEFFICIENTS, COEFFICIENTS + 2 * chroma)
    added = range(others.stop, others.stop + COEFFICIENTS)
    return ChannelLayout(
        list_coefficients(chroma),
        COEFFICIENTS,
        (
            FusionStep(luma, added, 1.0, True),
            FusionStep(others, others, GAIN, False),
            FusionStep(luma, luma, GAIN, True),
        ),
    )


FUSIONS: Final = MappingProxyType({"fusion": third_by_third, "fusion-held": held_apart})
"""Layouts by the value of `start` in a configuration."""


def start_as_fusion(
    model: TCMoA, seed: int = 0, layout: Callable[[int], ChannelLayout] = third_by_third
) -> None:
    """Set the parameters of `model` in place, as described above; position biases keep their small noise.

    Args:
        model: A model with upsampling, 16-pixel patches, C a multiple of 128 and equal in encoder and decoder, and
            three TC-MoAs, the last one in the decoder.
        seed: Seed of the initial noise.
        layout: One of `FUSIONS`.

    Raises:
        InputError: The model has other sizes, or C is too small for the layout.
    """
    sizes = model.sizes
    dim = sizes.embed_dim
    if not (
        model.upsample
        and sizes.patch_size == 2 * TOKEN
        and dim == sizes.decoder_embed_dim
        and dim % (2 * COEFFICIENTS) == 0  # the hidden units of the adapters are a multiple of four
        and (len(model.encoder.moas), len(model.decoder.moas)) == (2, 1)
    ):
        raise InputError(
            f"{sizes}; expected upsampling, patches of 16, equal widths of a multiple of 128 and 2 + 1 TC-MoAs"
        )
    plan = layout(dim)
    pixels = plan.num_signals
    generator = torch.Generator().manual_seed(seed)
    carrier = torch.where(torch.arange(dim) % 2 == 0, CARRIER, -CARRIER)
    carrier[:pixels] = 0
    # LayerNorm maps a carrier of any size to this value.
    normalized = math.sqrt(dim / (dim - pixels))

    with torch.no_grad():
        _embedding_and_head(model, carrier, normalized, plan)
        for stage in (model.encoder, model.decoder):
            for block in stage.blocks:
                for branch in (block.attn.qkv, block.mlp.fc1):
                    nn.init.xavier_uniform_(branch.weight, generator=generator)
                    nn.init.zeros_(branch.bias)
                for end in (block.attn.proj, block.mlp.fc2):
                    nn.init.zeros_(end.weight)
                    nn.init.zeros_(end.bias)
        steps = iter(plan.steps)
        for stage, halves in ((model.encoder, True), (model.decoder, False)):
            level = CARRIER
            for i, block in enumerate(stage.blocks):
                for norm in (block.norm1, block.norm2):
                    norm.weight.fill_(CARRIER_WEIGHT)
                    norm.weight[:pixels] = level / normalized
                    norm.bias.zero_()
                if i in stage.moa_after:
                    moa = stage.moas[stage.moa_after[i]]
                    _fuse(moa, next(steps), level / normalized, pixels, generator)
                    # The mix scales the carrier and all channels that are not fused; the decoder restandardizes them.
                    level *= (1 - MIX) if halves else 1.0


def _embedding_and_head(model: TCMoA, carrier: Tensor, normalized: float, plan: ChannelLayout) -> None:
    dct, colors, pixels, kept = dct_matrix(TOKEN), opponent_colors(), plan.num_signals, plan.kept
    inverse = torch.linalg.pinv(upsampling_matrix())[
        1 : TOKEN + 1
    ]  # from the 16 values of a patch to its 8 pixels
    analysis = dct @ inverse  # [8, 16]
    embed = torch.stack(
        [colors[c][:, None, None] * torch.outer(analysis[u], analysis[v]) for c, u, v in kept]
    )
    proj = model.patch_embed.proj
    assert proj.bias is not None
    proj.weight.zero_()
    spread = coefficient_spread(kept)
    proj.weight[: len(kept)] = embed.float() / spread[:, None, None, None]
    proj.bias.copy_(carrier)
    for table in (model.pos_embed, model.decoder_pos_embed):
        table.zero_()  # inside a window the relative bias distinguishes positions

    # After the two TC-MoAs of the encoder, the carrier and all unfused channels are scaled by (1 - MIX)^2.
    shrunk = (1 - MIX) ** 2
    fused = _signal_gains(plan, plan.steps[:2])
    model.norm.weight.fill_(CARRIER_WEIGHT)
    model.norm.weight[:pixels] = CARRIER * shrunk / normalized / (shrunk * fused)
    model.norm.bias.zero_()
    model.decoder_embed.weight.copy_(torch.eye(model.sizes.embed_dim))
    model.decoder_embed.weight[pixels:] *= CARRIER / normalized / CARRIER_WEIGHT
    _undo_centering(model.decoder_embed.weight, model.norm.weight, pixels)
    model.decoder_embed.bias.zero_()

    fused = _signal_gains(plan, plan.steps[2:])
    model.decoder_norm.weight.fill_(CARRIER_WEIGHT)
    model.decoder_norm.weight[:pixels] = CARRIER / normalized / fused
    model.decoder_norm.bias.zero_()
    synthesis = torch.stack(
        [torch.einsum("i,j,k->ijk", dct[u], dct[v], colors[c]) for c, u, v in kept], -1
    )  # [8, 8, 3, kept]
    doubled = synthesis.repeat_interleave(2, 0).repeat_interleave(
        2, 1
    )  # repeat each pixel for its four sub-pixels
    head = doubled.reshape(-1, len(kept)).float() * spread
    model.decoder_pred.weight.zero_()
    model.decoder_pred.weight[:, : len(kept)] = head
    for step in plan.steps:
        if step.writes != step.reads:  # each of the two channel ranges contributes half of the result
            half = head[:, step.reads] / 2
            model.decoder_pred.weight[:, step.reads] = half
            model.decoder_pred.weight[:, step.writes] = half
    model.decoder_pred.bias.zero_()
    _undo_centering(model.decoder_pred.weight, model.decoder_norm.weight, pixels)


def _signal_gains(plan: ChannelLayout, steps: Sequence[FusionStep]) -> Tensor:
    """Return the factor by which `steps` scale each signal channel, relative to channels that they do not fuse."""
    size = torch.ones(plan.num_signals)
    for step in steps:
        if step.writes == step.reads:
            size[step.writes] *= 1 + step.gain
    return size


def _undo_centering(weight: Tensor, scale: Tensor, pixels: int) -> None:
    """Adjust the linear layer after a LayerNorm with weights `scale` so that it restores the mean.

    The carriers add up to zero, so after the norm their average is minus the mean that was subtracted. Without this,
    the large mean coefficient of a dark patch would leak into all channels.
    """
    total = (weight[:, :pixels] * scale[:pixels]).sum(1, keepdim=True)
    if weight.shape[0] == weight.shape[1]:
        total[pixels:] = (weight[pixels:] * scale).sum(1, keepdim=True)
    weight[:, pixels:] -= total / (scale.numel() - pixels) / scale[pixels:]


def _fuse(
    moa: TaskCustomizedMoA, step: FusionStep, unit: float, pixels: int, generator: torch.Generator
) -> None:
    """Set the parameters of `moa` so that it fuses the coefficients of `step` by their local contrast.

    `unit` undoes LayerNorm: it is the ratio of a coefficient to its normalized value. `pixels` is the number of signal
    channels.
    """
    dim = moa.fusion.conv1.in_channels
    rank = dim // 4
    own, written = torch.tensor(step.reads), torch.tensor(step.writes)
    first = 1 if step.has_brightness else 0
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
        _undo_centering(own_weights[:, source], scale[source], pixels)
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
    fusion.conv1.weight[:, pixels:] = 0  # noise times the carrier would add an offset
    index = torch.arange(len(own))
    fusion.conv1.weight[index, own, 0, 0] += 1.0
    fusion.conv2.weight[torch.arange(rank), torch.arange(rank), 1, 1] += 1.0
    fusion.conv3.weight[written, index, 0, 0] += step.gain * (1 - MIX) / MIX
    moa.source_embedding.normal_(std=0.02, generator=generator)
    moa.mix.fill_(MIX)
