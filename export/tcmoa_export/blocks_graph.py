"""Backbone blocks as ONNX: tokens are a 2-D [M, C] matrix in window order everywhere but inside attention.

That is the form in which attention kernels read q, k and v through strides, without a copy. These are three products:
TensorRT makes one of them again (same kernels, same bytes), and CPUs are spared the copies of a Split (5 to 7 % of a
frame). Attention is decomposed: in ONNX Runtime on two CPU cores opset 23's Attention was no faster on base 448x448
(2019 against 2007 ms) and 4 % faster on tiny 640x480 (1362 against 1422 ms); this one form is also what TensorRT fuses
with least traffic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tcmoa.blocks import Attention, Block, Mlp, RelativePositionBias
from tcmoa_export.emit import Graph
from tcmoa_export.folds import fold_qkv, linear_after_norm, plain_linear, position_bias
from tcmoa_export.layout import Layout


def move_blocks(graph: Graph, tokens: str, layout: Layout, direction: int, images: int, channels: int) -> str:
    """Roll each image's tokens [images*tokens, C] by half a window: one gather of quadrants."""
    blocks = images * layout.tokens // layout.block
    shape, axis = ((layout.block, blocks), 1) if layout.places_first else ((blocks, layout.block), 0)
    grouped = graph.reshape(tokens, *shape, channels)
    moved = graph.gather(grouped, layout.shifted_blocks(direction, images), axis)
    return graph.reshape(moved, images * layout.tokens, channels)


def attend(
    graph: Graph,
    parts: Sequence[str],
    attention: Attention,
    bias: RelativePositionBias,
    layout: Layout,
    images: int,
) -> str:
    """Softmax(q k^T + bias) v of each window, from the products q, k and v, each [M, C], to [M, C]."""
    window = layout.window_tokens
    count = images * layout.tokens // window
    channels = attention.proj.in_features
    depth = channels // attention.heads
    # To [window, head, token, channel], and k to [window, head, channel, token].
    token, of_window = (0, 1) if layout.places_first else (1, 0)
    shape = (window, count) if layout.places_first else (count, window)
    heads = [graph.reshape(part, *shape, attention.heads, depth) for part in parts]
    q = graph.transpose(heads[0], of_window, 2, token, 3)
    k = graph.transpose(heads[1], of_window, 2, 3, token)
    v = graph.transpose(heads[2], of_window, 2, token, 3)
    table = graph.real(position_bias(bias, layout.window_index_in_attention), "position_bias")
    # Each product alone in float32, its result in 16 bits again: TensorRT reads this as 16-bit operands that are
    # accumulated in float32, and still fuses the whole. In fp16 it may otherwise accumulate in fp16; one float32
    # stretch over both products and the softmax would not be fused.
    with graph.float32():
        logits = graph.op("MatMul", q, k)
    weights = graph.op("Softmax", graph.add(logits, table), axis=-1)
    with graph.float32():
        product = graph.op("MatMul", weights, v)
    mixed = graph.transpose(product, *((2, 0) if layout.places_first else (0, 2)), 1, 3)
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
    return graph.residual(tokens, graph.matmul(hidden, second.weight, second.bias))


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

    The tokens themselves stay where they are: the shift is in what the norm reads, and undone in what is added.
    `keep` lists the rows to go on with, in the order wanted; without it all stay.
    """
    channels = block.attn.proj.in_features
    source = move_blocks(graph, tokens, layout, 1, images, channels) if block.shift else tokens
    weight, offset = fold_qkv(block.norm1, block.attn)
    normed = graph.normalise(source, channels, block.norm1.eps, offset)
    parts = [graph.matmul(normed, np.ascontiguousarray(part)) for part in np.split(weight, 3, axis=1)]
    proj = plain_linear(block.attn.proj)
    mixed = attend(graph, parts, block.attn, bias, layout, images)
    change = graph.matmul(mixed, proj.weight, proj.bias)
    if keep is not None:
        places = layout.shifted_rows(-1, images)[keep] if block.shift else keep
        return graph.residual(graph.gather(tokens, keep, 0), graph.gather(change, places, 0))
    if block.shift:
        change = move_blocks(graph, change, layout, -1, images, channels)
    return graph.residual(tokens, change)
