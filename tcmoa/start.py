"""Initialize a model that weighs the sources so that it already fuses: training on a CPU only has to improve it.

A token is 16x16 pixels of the frame, and such a model predicts the luma at half the frame's resolution: 8x8 = 64
values. The patch embedding stores their DCT coefficients, scaled to about unit variance, exactly in channels 0 to 63,
and the prediction head inverts the DCT. The last channels, the carriers, hold a large constant: every LayerNorm then
divides by nearly the same number, and the network is nearly linear at first. Residual branches start at zero.

The layouts differ in what the TC-MoAs fuse. With `fuse_in_bands`, each fuses its share of the coefficients in place,
the lowest frequencies first. The prompts compare local contrast: the source with more contrast dominates. No later
block knows both sources in these coefficients. With `hold_apart`, for C of 160 and more, the TC-MoAs of the encoder
write the fused coefficients to channels beside the source's own, and the decoder fuses once more: the blocks in between
can weigh the sources coefficient by coefficient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final, TypeAlias

import torch
from torch import Tensor, nn

from tcmoa.moa import TaskCustomizedMoA
from tcmoa.model import IMAGE_STD, TCMoA
from tcmoa.presets import SOURCE_WEIGHTS, TC_MOA, Sizes
from tcmoa_runtime.contract import PATCH
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import LUMA

SIDE: Final = PATCH // 2
"""Side of a token at half the frame's resolution."""

COEFFICIENTS: Final = SIDE * SIDE
CARRIER: Final = 50.0
"""Value of the constant channels: large compared with scaled DCT coefficients (about 1, at most about 10)."""
CARRIER_WEIGHT: Final = 0.25
"""LayerNorm weight of the constant channels. It is small, because a change of any weight that reads a constant channel
shifts the result everywhere."""
MIN_CARRIERS: Final = 32
GAIN: Final = 4.0
"""Weight of the fused signal after a TC-MoA, relative to the source: x + GAIN*(prompt_x*x + prompt_y*y)."""
GAIN_OF_DECODER: Final = 0.5
"""The same in the decoder with `hold_apart`, where the tokens of x already know both sources."""
MIX: Final = 0.5
"""Initial mix scalar of the TC-MoAs (lambda_f of Eq. 6)."""
CONTRAST: Final = 0.25
"""How strongly the initial prompts depend on local contrast."""


def dct_matrix(n: int) -> Tensor:
    """Return the orthonormal DCT-II matrix [n, n], float64; rows are frequencies."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
    matrix = torch.cos(math.pi * (2 * i + 1) * k / (2 * n)) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def frequency_order() -> list[tuple[int, int]]:
    """Return the 64 (row, column) frequencies in ascending order."""
    pairs = [(u, v) for u in range(SIDE) for v in range(SIDE)]
    return sorted(pairs, key=lambda p: (p[0] ** 2 + p[1] ** 2, p))


def coefficient_spread() -> Tensor:
    """Return the approximate standard deviation of each coefficient in photographs, [64]; it falls with frequency.

    In units of the normalized luma (`luma_of_channels`), in `frequency_order`.
    """
    radius = torch.tensor([math.hypot(u, v) for u, v in frequency_order()])
    return torch.where(radius == 0, torch.tensor(3.5), 0.92 / radius.clamp(min=1.0) ** 1.3).float()


def luma_of_channels() -> Tensor:
    """Return the weights of the normalized R, G and B in the normalized luma, float64 [3].

    The normalized luma v of a pixel is (luma - m) / s, where m and s are ImageNet's mean and standard deviation
    weighted like R, G and B. A prediction of v in all three channels has this luma.
    """
    weights = torch.tensor(LUMA, dtype=torch.float64) * torch.tensor(IMAGE_STD, dtype=torch.float64)
    return weights / weights.sum()


@dataclass(frozen=True)
class FusionStep:
    """The initial function of one TC-MoA.

    Attributes:
        reads: Channels whose coefficients are fused.
        writes: Channels that the fused coefficients are added to.
        gain: Weight of the fused signal, relative to the content of `writes`.
    """

    reads: range
    writes: range
    gain: float


@dataclass(frozen=True)
class ChannelLayout:
    """The use of the channels: the 64 coefficients, then `num_empty` channels, then carriers."""

    num_empty: int
    encoder: tuple[FusionStep, ...]
    decoder: tuple[FusionStep, ...]

    @property
    def num_signals(self) -> int:
        """Number of channels that are not carriers."""
        return COEFFICIENTS + self.num_empty


LayoutRule: TypeAlias = Callable[[Sizes], ChannelLayout]


def fuse_in_bands(sizes: Sizes) -> ChannelLayout:
    """Return the layout in which each TC-MoA fuses its share of the coefficients, in place.

    Raises:
        InputError: C is too small.
    """
    shares = _shares(sizes, sizes.encoder_moas + sizes.decoder_moas, num_empty=0)
    steps = [FusionStep(own, own, GAIN) for own in shares]
    return ChannelLayout(0, tuple(steps[: sizes.encoder_moas]), tuple(steps[sizes.encoder_moas :]))


def hold_apart(sizes: Sizes) -> ChannelLayout:
    """Return the layout in which the TC-MoAs of the encoder write the fused coefficients beside the source's own.

    Raises:
        InputError: C is too small.
    """
    shares = _shares(sizes, sizes.encoder_moas, num_empty=COEFFICIENTS)
    steps = [FusionStep(own, range(COEFFICIENTS + own.start, COEFFICIENTS + own.stop), 1.0) for own in shares]
    low = range(min(COEFFICIENTS, sizes.decoder_embed_dim // 4))
    last = FusionStep(low, low, GAIN_OF_DECODER)
    return ChannelLayout(COEFFICIENTS, tuple(steps), (last,) * sizes.decoder_moas)


def _shares(sizes: Sizes, count: int, *, num_empty: int) -> list[range]:
    """Divide the coefficients among `count` TC-MoAs, of which each can fuse C/4; checks that C is large enough."""
    dim = sizes.embed_dim
    # A TC-MoA has C/4 channels inside.
    least = max(COEFFICIENTS + num_empty + MIN_CARRIERS, 4 * math.ceil(COEFFICIENTS / count))
    if dim < least:
        raise InputError(f"C = {dim} with {count} TC-MoAs; expected {least} or more")
    cuts = [round(COEFFICIENTS * k / count) for k in range(count + 1)]
    return [range(start, stop) for start, stop in pairwise(cuts)]


FUSIONS: Final = MappingProxyType[str, LayoutRule]({"fusion": fuse_in_bands, "fusion-held": hold_apart})
"""Layouts by the value of `start` in a configuration."""


def start_as_fusion(model: TCMoA, seed: int = 0, layout: LayoutRule = fuse_in_bands) -> None:
    """Set the parameters of `model` in place, as described above; position biases keep their small noise.

    Args:
        model: A model that weighs the sources, with 16-pixel patches, equal widths of encoder and decoder, and TC-MoAs
            in both.
        seed: Seed of the initial noise.
        layout: One of `FUSIONS`.

    Raises:
        InputError: The model has other sizes, or C is too small for the layout.
    """
    sizes = model.sizes
    dim = sizes.embed_dim
    if not (
        sizes.output == SOURCE_WEIGHTS
        and sizes.adaptation == TC_MOA
        and sizes.patch_size == PATCH
        and dim == sizes.decoder_embed_dim
        and sizes.encoder_moas
        and sizes.decoder_moas
    ):
        raise InputError(
            f"{sizes}; expected the output {SOURCE_WEIGHTS!r}, patches of {PATCH}, equal widths and TC-MoAs in encoder "
            f"and decoder"
        )
    plan = layout(sizes)
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
        for stage, steps, halves in (
            (model.encoder, plan.encoder, True),
            (model.decoder, plan.decoder, False),
        ):
            level = CARRIER
            for i, block in enumerate(stage.blocks):
                for norm in (block.norm1, block.norm2):
                    norm.weight.fill_(CARRIER_WEIGHT)
                    norm.weight[:pixels] = level / normalized
                    norm.bias.zero_()
                if i in stage.moa_after:
                    k = stage.moa_after[i]
                    _fuse(stage.moas[k], steps[k], level / normalized, pixels, generator)
                    # The mix scales the carrier and all channels that are not fused; the decoder restandardizes them.
                    level *= (1 - MIX) if halves else 1.0


def _embedding_and_head(model: TCMoA, carrier: Tensor, normalized: float, plan: ChannelLayout) -> None:
    dct, pixels, order, spread = dct_matrix(SIDE), plan.num_signals, frequency_order(), coefficient_spread()
    halving = torch.eye(SIDE, dtype=torch.float64).repeat_interleave(2, 1) / 2  # [8, 16]: means of two pixels
    analysis, channels = dct @ halving, luma_of_channels()
    embed = torch.stack(
        [channels[:, None, None] * torch.outer(analysis[u], analysis[v]) for u, v in order]
    )  # [64, 3, 16, 16]
    proj = model.patch_embed.proj
    assert proj.bias is not None
    proj.weight.zero_()
    proj.weight[:COEFFICIENTS] = embed.float() / spread[:, None, None, None]
    proj.bias.copy_(carrier)
    for table in (model.pos_embed, model.decoder_pos_embed):
        table.zero_()  # inside a window the relative bias distinguishes positions

    # Each TC-MoA of the encoder scales the carrier and all channels that it does not fuse by 1 - MIX.
    shrunk = (1 - MIX) ** len(plan.encoder)
    fused = _signal_gains(plan, plan.encoder)
    model.norm.weight.fill_(CARRIER_WEIGHT)
    model.norm.weight[:pixels] = CARRIER * shrunk / normalized / (shrunk * fused)
    model.norm.bias.zero_()
    model.decoder_embed.weight.copy_(torch.eye(model.sizes.embed_dim))
    model.decoder_embed.weight[pixels:] *= CARRIER / normalized / CARRIER_WEIGHT
    _undo_centering(model.decoder_embed.weight, model.norm.weight, pixels)
    model.decoder_embed.bias.zero_()

    fused = _signal_gains(plan, plan.decoder)
    model.decoder_norm.weight.fill_(CARRIER_WEIGHT)
    model.decoder_norm.weight[:pixels] = CARRIER / normalized / fused
    model.decoder_norm.bias.zero_()
    synthesis = torch.stack([torch.outer(dct[u], dct[v]) for u, v in order], -1)  # [8, 8, 64]
    doubled = synthesis.repeat_interleave(2, 0).repeat_interleave(2, 1)[:, :, None]
    head = doubled.expand(-1, -1, 3, -1).reshape(-1, COEFFICIENTS).float() * spread  # equal in R, G and B
    model.decoder_pred.weight.zero_()
    model.decoder_pred.weight[:, :COEFFICIENTS] = head
    for step in plan.encoder:
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
    first = 1 if 0 in step.reads else 0  # prompts compare contrast, not brightness
    compared = own[first : first + rank // 2]

    prompts = moa.prompts
    prompts.norm1.weight.fill_(CARRIER_WEIGHT)
    prompts.norm1.bias.zero_()
    prompts.reduce.weight.normal_(std=0.02, generator=generator)
    prompts.reduce.weight.unflatten(1, (2, dim))[:, :, pixels:] = 0
    for source in range(2):
        prompts.norm1.weight[own + source * dim] = unit
        rows = source * (rank // 2) + torch.arange(len(compared))
        prompts.reduce.weight[rows, compared + source * dim] = 1.0
    scale = prompts.norm1.weight.unflatten(0, (2, dim))
    own_weights = prompts.reduce.weight.unflatten(1, (2, dim))
    for source in range(2):
        _undo_centering(own_weights[:, source], scale[source], pixels)
    prompts.norm2.weight.fill_(1.0)
    prompts.norm2.bias.zero_()
    prompts.routers.gate.normal_(std=0.05, generator=generator)
    prompts.routers.noise.zero_()
    for adapter in prompts.bank.adapters:
        half = adapter.fc1.weight.shape[0] // 2  # hidden units of each source
        signs = torch.randn(math.ceil(half / 2), rank // 2, generator=generator) * (2 / rank) ** 0.5
        adapter.fc1.weight.normal_(std=0.1, generator=generator)
        adapter.fc2.weight.normal_(std=0.02, generator=generator)
        adapter.fc1.bias.zero_()
        adapter.fc2.bias.zero_()
        for source, sense in ((0, 1.0), (1, -1.0)):
            units = slice(source * half, (source + 1) * half)
            inputs = slice(source * (rank // 2), (source + 1) * (rank // 2))
            adapter.fc1.weight[units, inputs] += torch.cat((signs, -signs))[:half]  # relu(s) + relu(-s) = |s|
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
