"""Folding: exact algebra on weights, each step a small function with a test against the unfolded model.

Everything is computed in float64 and returned as float32 NumPy arrays. Linear weights come out as ONNX's
MatMul wants them, [in, out]: y = x @ weight + bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tcmoa.blocks import Attention, RelativePositionBias
from tcmoa.frames import ColorMode
from tcmoa.moa import AdapterBank, RouterBank, TaskCustomisedMoA
from tcmoa.model import IMAGE_MEAN, IMAGE_STD, positions_on_grid
from tcmoa_runtime.images import LUMA

Array = NDArray[np.float32]
ChannelOrder = Literal["rgb", "bgr"]


@dataclass(frozen=True)
class Linear:
    """y = x @ weight + bias; weight [in, out], bias [out]."""

    weight: Array
    bias: Array


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().double()


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.float().numpy())


def fold_norm(norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """LayerNorm's gamma and beta into the linear behind it: float64 weight [out, in] and bias [out].

    W (gamma * n + beta) + b = (W gamma) n + (W beta + b). The weight then is centred (`centre_weight`).
    """
    weight = _double(weight)
    gamma, beta = _double(norm.weight), _double(norm.bias)
    folded_bias = weight @ beta
    if bias is not None:
        folded_bias = folded_bias + _double(bias)
    return centre_weight(weight * gamma, gamma), folded_bias


def centre_weight(weight: Tensor, gamma: Tensor) -> Tensor:
    """Take a multiple of the all-ones vector off each row of a weight [out, in] behind a LayerNorm: W - m 1^T.

    A normalised token is orthogonal to it, so no result changes; but every number that is rounded to 16 bits
    errs in proportion to its size, and m can be chosen so that the weights of large channels are small. A
    channel that training gave a small gamma is a large one: m is the mean with weights 1/gamma^2, cut to
    1e-6..1 of the largest.
    """
    inverse = 1 / gamma.square().clamp(min=1e-12)
    share = (inverse / inverse.max()).clamp(min=1e-6)
    return weight - (weight @ share / share.sum())[:, None]


OFFSETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Root mean squares of `null_offset` to choose from."""


def null_offset(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> Tensor:
    """a [C]: what the LayerNorm in front of `weight` [out, C] adds to its result, to carry `bias` (below).

    Exact whatever it is; chosen for 16 bits, where every number errs in proportion to its size. It follows the
    sizes that the normalised channels are thought to have (large where training made gamma small, as in
    `centre_weight`), so that no channel's number drowns in its own offset, and its own size is the one of
    `OFFSETS` with the least sum of squared terms of the product: a small offset needs large weights.
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

    return min(OFFSETS, key=terms) * sizes


def linear_after_norm(norm: nn.LayerNorm, linear: nn.Linear) -> Linear:
    """`fold_norm` for a torch Linear."""
    weight, bias = fold_norm(norm, linear.weight, linear.bias)
    return Linear(_array(weight.T), _array(bias))


def plain_linear(linear: nn.Linear) -> Linear:
    """A Linear as it is, weight transposed for MatMul."""
    return Linear(_array(_double(linear.weight).T), _array(_double(linear.bias)))


def ride_on_null_direction(weight: Tensor, bias: Tensor, offset: Tensor) -> Tensor:
    """Put a linear's bias into its weight [out, in], for inputs n + a with n normalised and a = `offset` [in].

    A normalised token n is orthogonal to the all-ones vector, so W' = W + ((b - W a) / sum(a)) 1^T gives
    W'(n + a) = W n + b exactly. The product then needs no bias, and attention can read it without a copy.
    """
    return weight + ((bias - weight @ offset) / offset.sum())[:, None]


def fold_qkv(norm: nn.LayerNorm, attention: Attention) -> tuple[Array, Array]:
    """LayerNorm's affine, 1/sqrt(d) of the logits (into q) and all biases, in one weight [C, 3C].

    Its input is the normalised token plus the second result, the offset [C] that carries the biases.
    """
    weight, bias = fold_norm(norm, attention.qkv.weight, attention.qkv.bias)
    dim = weight.shape[1]
    offset = null_offset(norm, weight, bias)
    scale = torch.ones(3 * dim, dtype=torch.float64)
    scale[:dim] = attention.scale
    folded = ride_on_null_direction(weight * scale[:, None], bias * scale, offset)
    return _array(folded.T), _array(offset)


def position_bias(bias: RelativePositionBias, order: NDArray[np.int64]) -> Array:
    """Relative position bias [1, heads, tokens, tokens] for window tokens in the given raster `order`."""
    table = bias().detach()[:, order][:, :, order]
    return _array(table[None])


def fold_positions(
    table: Tensor, bias: Tensor, grid: tuple[int, int], order: NDArray[np.int64], *, as_published: bool
) -> Array:
    """Position embedding on `grid` plus a bias [C], as one constant [tokens, C] in the given raster `order`.

    A table of equal rows (ours are zero: the relative bias tells positions apart) gives one row [1, C].
    """
    if bool((table[:, 1:] == table[:, 1:2]).all()):
        return _array(_double(table[:, 1]) + _double(bias))
    positions = positions_on_grid(table.detach(), grid, as_published=as_published)
    return _array((_double(positions).flatten(0, 2) + _double(bias))[order])


def upsampled_kernel(kernel: Tensor) -> Tensor:
    """A [C, 3, p, p] patch kernel on a x2 bilinear image as one on the image itself: [C, 3, p/2+2, p/2+2].

    Its stride is p/2, on an image with one replicated pixel around it (align_corners=False).
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
    """0..255 to 0..1, ImageNet normalisation, luma, x2 upsampling, patch embedding: ONE convolution.

    Returns the kernel [C, 3, k, k] for frames in `channel_order` and the float64 bias [C]. All the folded
    steps are linear and keep constants, so edge replication commutes with them.
    """
    assert conv.bias is not None
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
) -> Linear:
    """Final norm, prediction, nearest x1/2, de-normalisation to 0..255, luma: one linear.

    Its outputs are the pixels that a token keeps, (row, column, channel): 8*8*3 of 16*16*3 with upsampling,
    one channel with `luma`.
    """
    weight, bias = fold_norm(norm, linear.weight, linear.bias)
    mean, std = _mean_std()
    weight = weight.unflatten(0, (patch, patch, 3)) * std[:, None] * 255
    bias = (bias.unflatten(0, (patch, patch, 3)) * std + mean) * 255
    if upsample:
        weight, bias = weight[::2, ::2], bias[::2, ::2]
    if color == "luma":
        weights = torch.tensor(LUMA, dtype=torch.float64)
        weight = (weight * weights[:, None]).sum(2, keepdim=True)
        bias = (bias * weights).sum(2, keepdim=True)
    elif channel_order == "bgr":
        weight, bias = weight.flip(2), bias.flip(2)
    return Linear(_array(weight.flatten(0, 2).T), _array(bias.flatten()))


def fold_reduction(norm: nn.LayerNorm, linear: nn.Linear) -> Linear:
    """The prompt generator's first norm, over both sources, into its reduction: [2C, C/4]."""
    weight, bias = fold_norm(norm, linear.weight, None)
    return Linear(_array(weight.T), _array(bias))


def fold_router(norm: nn.LayerNorm, routers: RouterBank, task: int) -> Linear:
    """One task's router and the norm before it: [C/4, N]; its noise is training's and gone."""
    weight, bias = fold_norm(norm, routers.gate[task].T, None)
    return Linear(_array(weight.T), _array(bias))


def fold_adapters(norm: nn.LayerNorm, bank: AdapterBank, router: Linear) -> tuple[Linear, Linear]:
    """The N adapters and the router as two products around one ReLU: [C/4, H] and [H, N*C/4 + N].

    The norm before the adapters goes into the first, the second is block-diagonal. The router's logits l ride
    along as relu(l) - relu(-l), so that no product of their own is needed: H is N*C/32 + 2N.
    """
    downs = [fold_norm(norm, adapter.fc1.weight, adapter.fc1.bias) for adapter in bank.adapters]
    ups = [adapter.fc2 for adapter in bank.adapters]
    experts = len(ups)
    down = Linear(
        np.concatenate(
            [_array(torch.cat([weight for weight, _ in downs]).T), router.weight, -router.weight], axis=1
        ),
        np.concatenate([_array(torch.cat([bias for _, bias in downs])), router.bias, -router.bias]),
    )
    identity = torch.eye(experts, dtype=torch.float64)
    up = Linear(
        _array(torch.block_diag(*[_double(up.weight).T for up in ups], torch.cat([identity, -identity]))),
        np.concatenate([_array(torch.cat([_double(up.bias) for up in ups])), np.zeros(experts, np.float32)]),
    )
    return down, up


@dataclass(frozen=True)
class Fusion:
    """Prompt-driven fusion: `down` [C, C/4], 3x3 `kernel` [C/4, C/4, 3, 3], `up` [C/4, C] times the mix scalar.

    `keep` is 1 - a, the share that each source keeps of itself.
    """

    down: Linear
    kernel: Array
    up: Array
    keep: float


def fold_fusion(moa: TaskCustomisedMoA, task: int) -> Fusion:
    """S_x + S_y as a bias of the first convolution, the mix scalar a in the last one."""
    conv1, conv2, conv3 = (
        _double(conv.weight) for conv in (moa.fusion.conv1, moa.fusion.conv2, moa.fusion.conv3)
    )
    embedding = _double(moa.source_embedding[task]).sum(0)
    mix = _double(moa.mix)
    down = conv1[:, :, 0, 0]
    return Fusion(
        Linear(_array(down.T), _array(down @ embedding)),
        _array(conv2),
        _array((conv3[:, :, 0, 0] * mix).T),
        float(1 - mix),
    )
