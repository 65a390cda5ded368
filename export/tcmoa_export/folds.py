"""Folding: exact algebra on weights. Each step is a small function with a test against the unfolded model.

Everything is computed in float64 and returned as float32 NumPy arrays. Linear weights are returned as ONNX's MatMul
takes them, [in, out]: y = x @ weight + bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tcmoa.blocks import Attention, RelativePositionBias
from tcmoa.moa import AdapterBank, RouterBank, TaskCustomizedMoA
from tcmoa.model import IMAGE_MEAN, IMAGE_STD, positions_on_grid
from tcmoa_runtime.images import LUMA
from tcmoa_runtime.typing import ChannelOrder, ColorMode

Array = NDArray[np.float32]


@dataclass(frozen=True)
class FoldedLinear:
    """A linear layer y = x @ weight + bias; weight [in, out], bias [out]."""

    weight: Array
    bias: Array


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().double()


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.float().numpy())


def fold_norm(norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Fold LayerNorm's gamma and beta into the linear layer after it: float64 weight [out, in] and bias [out].

    W (gamma * n + beta) + b = (W gamma) n + (W beta + b). The weight is then centered (`center_weight`).
    """
    weight = _double(weight)
    gamma, beta = _double(norm.weight), _double(norm.bias)
    folded_bias = weight @ beta
    if bias is not None:
        folded_bias = folded_bias + _double(bias)
    return center_weight(weight * gamma, gamma), folded_bias


def center_weight(weight: Tensor, gamma: Tensor) -> Tensor:
    """Subtract a multiple of the all-ones vector from each row of a weight [out, in] after a LayerNorm: W - m 1^T.

    A normalized token is orthogonal to that vector, so no result changes. But the rounding error of a 16-bit number is
    proportional to its size, and m can be chosen so that the weights of large channels are small. A channel with a
    small trained gamma is a large one: m is the mean with weights 1/gamma^2, clamped to 1e-6..1 of the largest.
    """
    inverse = 1 / gamma.square().clamp(min=1e-12)
    share = (inverse / inverse.max()).clamp(min=1e-6)
    return weight - (weight @ share / share.sum())[:, None]


OFFSET_SCALES: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Root mean squares that `choose_offset` tries."""


def choose_offset(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> Tensor:
    """Choose the offset a [C] that is added to the normalized tokens so that `weight` [out, C] can carry `bias`.

    See `carry_bias`, which is exact for every offset. This one is chosen for 16 bits, where the rounding error of a
    number is proportional to its size. It follows the expected sizes of the normalized channels (large where the
    trained gamma is small, as in `center_weight`), so that no channel drowns in its own offset. Its scale is the one of
    `OFFSET_SCALES` with the smallest sum of squared terms of the product: a small offset needs large weights.
    """
    inverse = 1 / _double(norm.weight).abs().clamp(min=1e-6)
    sizes = (inverse / inverse.max()).clamp(min=1e-2)
    sizes = sizes / sizes.square().mean().sqrt()

    # The sum of (1 + scale^2) * sizes^2 * (weight + u)^2, expanded so that a scale costs no pass over the weight.
    squares = sizes.square()
    fixed, mixed = (weight.square() @ squares).sum(), weight @ squares

    def terms(scale: float) -> float:
        offset = scale * sizes
        u = (bias - weight @ offset) / offset.sum()
        return float((1 + scale**2) * (fixed + 2 * (u @ mixed) + u.square().sum() * squares.sum()))

    return min(OFFSET_SCALES, key=terms) * sizes


def linear_after_norm(norm: nn.LayerNorm, linear: nn.Linear) -> FoldedLinear:
    """Fold a LayerNorm into the linear layer after it."""
    weight, bias = fold_norm(norm, linear.weight, linear.bias)
    return FoldedLinear(_array(weight.T), _array(bias))


def plain_linear(linear: nn.Linear) -> FoldedLinear:
    """Convert a linear layer, its weight transposed for MatMul."""
    return FoldedLinear(_array(_double(linear.weight).T), _array(_double(linear.bias)))


def carry_bias(weight: Tensor, bias: Tensor, offset: Tensor) -> Tensor:
    """Fold a linear layer's bias into its weight [out, in], for inputs n + a with n normalized and a = `offset` [in].

    A normalized token n is orthogonal to the all-ones vector, so W' = W + ((b - W a) / sum(a)) 1^T gives
    W'(n + a) = W n + b exactly. The product needs no bias, and attention can read it without a copy.
    """
    return weight + ((bias - weight @ offset) / offset.sum())[:, None]


def fold_qkv(norm: nn.LayerNorm, attention: Attention) -> tuple[Array, Array]:
    """Fold LayerNorm's affine, the factor 1/sqrt(d) of the logits (into q) and all biases into one weight [C, 3C].

    Returns:
        The weight, and the offset [C] to add to the normalized tokens, which carries the biases.
    """
    weight, bias = fold_norm(norm, attention.qkv.weight, attention.qkv.bias)
    dim = weight.shape[1]
    offset = choose_offset(norm, weight, bias)
    scale = torch.ones(3 * dim, dtype=torch.float64)
    scale[:dim] = attention.scale
    folded = carry_bias(weight * scale[:, None], bias * scale, offset)
    return _array(folded.T), _array(offset)


def position_bias(bias: RelativePositionBias, order: NDArray[np.int64]) -> Array:
    """Return the relative position bias [1, heads, tokens, tokens] of a window's tokens in `order`."""
    table = bias().detach()[:, order][:, :, order]
    return _array(table[None])


def fold_positions(
    table: Tensor, bias: Tensor, grid: tuple[int, int], order: NDArray[np.int64], *, as_published: bool
) -> Array:
    """Fold the position embeddings on `grid` and a bias [C] into one constant [tokens, C].

    Args:
        table: Position embeddings [1, 1 + n, C]; the first row is the class token's.
        bias: Bias [C].
        grid: Size (gh, gw) of the image in tokens.
        order: Raster index of each row of the result.
        as_published: Whether to interpolate as the authors do; see `positions_on_grid`.

    Returns:
        [tokens, C]; [1, C] if all positions are equal, e.g. zero, as in the weights of this package.
    """
    if bool((table[:, 1:] == table[:, 1:2]).all()):
        return _array(_double(table[:, 1]) + _double(bias))
    positions = positions_on_grid(table.detach(), grid, as_published=as_published)
    return _array((_double(positions).flatten(0, 2) + _double(bias))[order])


def upsampled_kernel(kernel: Tensor) -> Tensor:
    """Fold x2 bilinear upsampling (align_corners=False) into a patch kernel [C, 3, p, p] of stride p.

    Returns:
        A kernel [C, 3, p/2 + 2, p/2 + 2] of stride p/2, for an image padded by one replicated pixel on each side.
    """
    side = kernel.shape[-1] // 2
    matrix = torch.zeros(2 * side, side + 2, dtype=torch.float64)
    for i in range(side):
        matrix[2 * i, i : i + 2] = torch.tensor([0.25, 0.75], dtype=torch.float64)
        matrix[2 * i + 1, i + 1 : i + 3] = torch.tensor([0.75, 0.25], dtype=torch.float64)
    return torch.einsum("oihw,hy,wx->oiyx", kernel.double(), matrix, matrix)


def _mean_std() -> tuple[Tensor, Tensor]:
    return torch.tensor(IMAGE_MEAN, dtype=torch.float64), torch.tensor(IMAGE_STD, dtype=torch.float64)


def fold_head(
    conv: nn.Conv2d, *, upsample: bool, channel_order: ChannelOrder, color: ColorMode
) -> tuple[Array, Tensor]:
    """Fold the scaling to 0..1, ImageNet normalization, luma, x2 upsampling and patch embedding into one convolution.

    All folded steps are linear and map constant images to constant images, so edge replication commutes with them.

    Returns:
        The kernel [C, 3, k, k] for frames in `channel_order`, 0..255, and the float64 bias [C].
    """
    if conv.bias is None:
        raise ValueError("the patch embedding has no bias")
    mean, std = _mean_std()
    kernel = _double(conv.weight)
    if upsample:
        kernel = upsampled_kernel(kernel)
    kernel = kernel / std[:, None, None]
    bias = _double(conv.bias) - (kernel.sum((2, 3)) * mean).sum(1)
    if color == "luma":
        weights = torch.tensor(LUMA, dtype=torch.float64)
        kernel = kernel.sum(1, keepdim=True) * weights[:, None, None]
    if channel_order == "bgr":
        kernel = kernel.flip(1)
    return _array(kernel / 255), bias


def fold_tail(
    norm: nn.LayerNorm,
    linear: nn.Linear,
    patch: int,
    *,
    upsample: bool,
    channel_order: ChannelOrder,
    color: ColorMode,
    at_half: bool = False,
) -> FoldedLinear:
    """Fold the final norm, prediction, nearest x1/2 downsampling, scaling to 0..255 and luma into one linear layer.

    Its outputs are the pixels that a token keeps, (row, column, channel): 8*8*3 of 16*16*3 with upsampling, one channel
    with `luma`; with `at_half` the means of 2x2 of these pixels.
    """
    weight, bias = fold_norm(norm, linear.weight, linear.bias)
    mean, std = _mean_std()
    weight = weight.unflatten(0, (patch, patch, 3)) * std[:, None] * 255
    bias = (bias.unflatten(0, (patch, patch, 3)) * std + mean) * 255
    if upsample:
        weight, bias = weight[::2, ::2], bias[::2, ::2]
    if at_half:
        weight, bias = (v.unflatten(0, (-1, 2)).mean(1).unflatten(1, (-1, 2)).mean(2) for v in (weight, bias))
    if color == "luma":
        weights = torch.tensor(LUMA, dtype=torch.float64)
        weight = (weight * weights[:, None]).sum(2, keepdim=True)
        bias = (bias * weights).sum(2, keepdim=True)
    elif channel_order == "bgr":
        weight, bias = weight.flip(2), bias.flip(2)
    return FoldedLinear(_array(weight.flatten(0, 2).T), _array(bias.flatten()))


def fold_reduction(norm: nn.LayerNorm, linear: nn.Linear) -> FoldedLinear:
    """Fold the prompt generator's first norm, over both sources, into its reduction: [2C, C/4]."""
    weight, bias = fold_norm(norm, linear.weight, None)
    return FoldedLinear(_array(weight.T), _array(bias))


def fold_router(norm: nn.LayerNorm, routers: RouterBank, task: int) -> FoldedLinear:
    """Fold the norm into one task's router: [C/4, N]. The noise is for training only."""
    weight, bias = fold_norm(norm, routers.gate[task].T, None)
    return FoldedLinear(_array(weight.T), _array(bias))


def fold_adapters(
    norm: nn.LayerNorm, bank: AdapterBank, router: FoldedLinear
) -> tuple[FoldedLinear, FoldedLinear]:
    """Fold the N adapters and the router into two linear layers around one ReLU: [C/4, H] and [H, N*C/4 + N].

    The first includes the norm before the adapters, the second is block-diagonal. The router's logits l pass through
    the ReLU as relu(l) - relu(-l), so that they need no product of their own: H is N*C/32 + 2N.
    """
    downs = [fold_norm(norm, adapter.fc1.weight, adapter.fc1.bias) for adapter in bank.adapters]
    ups = [adapter.fc2 for adapter in bank.adapters]
    experts = len(ups)
    down = FoldedLinear(
        np.concatenate(
            [_array(torch.cat([weight for weight, _ in downs]).T), router.weight, -router.weight], axis=1
        ),
        np.concatenate([_array(torch.cat([bias for _, bias in downs])), router.bias, -router.bias]),
    )
    identity = torch.eye(experts, dtype=torch.float64)
    up = FoldedLinear(
        _array(torch.block_diag(*[_double(up.weight).T for up in ups], torch.cat([identity, -identity]))),
        np.concatenate([_array(torch.cat([_double(up.bias) for up in ups])), np.zeros(experts, np.float32)]),
    )
    return down, up


@dataclass(frozen=True)
class FoldedFusion:
    """Prompt-driven fusion.

    Attributes:
        down: First convolution [C, C/4].
        kernel: 3x3 kernel [C/4, C/4, 3, 3].
        up: Last convolution [C/4, C], times the mix scalar a.
        keep: 1 - a, the share that each source keeps of itself.
    """

    down: FoldedLinear
    kernel: Array
    up: Array
    keep: float


def fold_fusion(moa: TaskCustomizedMoA, task: int) -> FoldedFusion:
    """Fold the source embeddings S_x + S_y into the bias of the first convolution, the mix scalar into the last."""
    conv1, conv2, conv3 = (
        _double(conv.weight) for conv in (moa.fusion.conv1, moa.fusion.conv2, moa.fusion.conv3)
    )
    embedding = _double(moa.source_embedding[task]).sum(0)
    mix = _double(moa.mix)
    down = conv1[:, :, 0, 0]
    return FoldedFusion(
        FoldedLinear(_array(down.T), _array(down @ embedding)),
        _array(conv2),
        _array((conv3[:, :, 0, 0] * mix).T),
        float(1 - mix),
    )
