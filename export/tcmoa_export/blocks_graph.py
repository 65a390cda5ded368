"""Backbone blocks as ONNX: tokens are a 2-D [M, C] matrix in window order everywhere but inside attention.

That is the form in which attention kernels read the one qkv product through strides, without a copy. Attention is
decomposed: in ONNX Runtime on two CPU cores opset 23's Attention was no faster on base 448x448 (2019 against 2007 ms)
and 4 % faster on tiny 640x480 (1362 against 1422 ms); this one form is also what TensorRT fuses with least traffic.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tcmoa.blocks import Attention, Block, Mlp, RelativePositionBias
from tcmoa_export.emit import Graph
from tcmoa_export.folds import fold_qkv, linear_after_norm, null_scale, plain_linear, position_bias
from tcmoa_export.layout import Layout


def move_blocks(graph: Graph, tokens: str, layout: Layout, direction: int, images: int, channels: int) -> str:
    """Roll each image's tokens [images*tokens, C] by half a window: one gather of quadrants."""
    blocks = layout.tokens // layout.block
    grouped = graph.reshape(tokens, images, blocks, layout.block * channels)
    moved = graph.gather(grouped, layout.shifted_blocks(direction), 1)
    return graph.reshape(moved, images * layout.tokens, channels)


def attend(
    graph: Graph, qkv: str, attention: Attention, bias: RelativePositionBias, layout: Layout, images: int
) -> str:
    """Softmax(q k^T + bias) v of each window, from the qkv product [M, 3C] to [M, C]."""
    window = layout.window**2
    count = images * layout.tokens // window
    channels = attention.proj.in_features
    depth = channels // attention.heads
    parts = graph.split_op("Split", 3, qkv, axis=1, num_outputs=3)
    heads = [graph.reshape(part, count, window, attention.heads, depth) for part in parts]
    q = graph.transpose(heads[0], 0, 2, 1, 3)
    k = graph.transpose(heads[1], 0, 2, 3, 1)
    v = graph.transpose(heads[2], 0, 2, 1, 3)
    table = graph.real(position_bias(bias, layout.window_index_in_attention), "position_bias")
    weights = graph.op("Softmax", graph.add(graph.op("MatMul", q, k), table), axis=-1)
    mixed = graph.transpose(graph.op("MatMul", weights, v), 0, 2, 1, 3)
    return graph.reshape(mixed, count * window, channels)


def gelu(graph: Graph, a: str) -> str:
    """x/2 * (1 + erf(x / sqrt 2)), the chain that every runtime's fusion knows."""
    erf = graph.op("Erf", graph.op("Div", a, graph.scalar(math.sqrt(2))))
    return graph.mul(graph.mul(a, graph.add(erf, graph.scalar(1.0))), graph.scalar(0.5))


def mlp(graph: Graph, tokens: str, block: Block) -> str:
    """Tokens [M, C] plus their MLP."""
    layer: Mlp = block.mlp
    first, second = linear_after_norm(block.norm2, layer.fc1), plain_linear(layer.fc2)
    normed = graph.normalise(tokens, layer.fc1.in_features, block.norm2.eps)
    hidden = gelu(graph, graph.matmul(normed, first.weight, first.bias))
    return graph.add(tokens, graph.matmul(hidden, second.weight, second.bias))


def attention_part(
    graph: Graph,
    tokens: str,
    block: Block,
    bias: RelativePositionBias,
    layout: Layout,
    images: int,
    *,
    keep: NDArray[np.int64] | None = None,
) -> str:
    """Tokens [M, C] plus their windowed attention, shifted where the block is.

    `keep` lists the window-order tokens of an image to go on with, in the order wanted; the gather that
    picks them is also the one that undoes the shift. Without it all stay, in window order.
    """
    channels = block.attn.proj.in_features
    if block.shift:
        tokens = move_blocks(graph, tokens, layout, 1, images, channels)
    normed = graph.normalise(tokens, channels, block.norm1.eps, null_scale(block.norm1))
    qkv = graph.matmul(normed, fold_qkv(block.norm1, block.attn))
    proj = plain_linear(block.attn.proj)
    mixed = attend(graph, qkv, block.attn, bias, layout, images)
    tokens = graph.add(tokens, graph.matmul(mixed, proj.weight, proj.bias))
    if keep is not None:
        places = layout.shifted_tokens(-1)[keep] if block.shift else keep
        return keep_tokens(graph, tokens, places, layout, images, channels)
    if block.shift:
        tokens = move_blocks(graph, tokens, layout, -1, images, channels)
    return tokens


def keep_tokens(
    graph: Graph, tokens: str, places: NDArray[np.int64], layout: Layout, images: int, channels: int
) -> str:
    """Some tokens of each image [images*tokens, C], in a given order: [images*len(places), C]."""
    grouped = graph.reshape(tokens, images, layout.tokens, channels)
    return graph.reshape(graph.gather(grouped, places, 1), images * len(places), channels)
