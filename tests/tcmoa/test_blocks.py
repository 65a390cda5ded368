"""Windows and blocks against slow, obvious references."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tcmoa.blocks import Block, RelativePositionBias, merge_windows, partition_windows


@settings(max_examples=30)
@given(
    batch=st.integers(1, 3),
    rows=st.integers(1, 3),
    cols=st.integers(1, 4),
    window=st.integers(1, 5),
    channels=st.integers(1, 3),
)
def test_merging_undoes_partitioning(batch, rows, cols, window, channels):
    grid = (rows * window, cols * window)
    tokens = torch.arange(batch * grid[0] * grid[1] * channels).view(batch, *grid, channels)
    windows = partition_windows(tokens, window)
    assert torch.equal(merge_windows(windows, grid, window), tokens)
    # The last window is the lower right corner of the last image.
    corner = tokens[-1, -window:, -window:].reshape(window * window, channels)
    assert torch.equal(windows[-1], corner)


def attend_slowly(block, tokens, table):
    """Attention of one token grid [gh, gw, C]: token by token, each over those in its shifted window."""
    gh, gw, c = tokens.shape
    w, s, heads = block.window, block.shift, block.attn.heads
    size = c // heads
    qkv = block.attn.qkv(block.norm1(tokens)).view(gh, gw, 3, heads, size)
    places = [((r - s) % gh, (q - s) % gw, r, q) for r in range(gh) for q in range(gw)]
    result = torch.zeros_like(tokens)
    for r, q, here_r, here_q in places:
        # No mask: tokens that wrapped around the border are attended to as any other.
        seen = [p for p in places if p[0] // w == r // w and p[1] // w == q // w]
        mixed = []
        for head in range(heads):
            logits = torch.stack(
                [
                    qkv[here_r, here_q, 0, head] @ qkv[there_r, there_q, 1, head] / math.sqrt(size)
                    + table[(r - kr + w - 1) * (2 * w - 1) + q - kq + w - 1, head]
                    for kr, kq, there_r, there_q in seen
                ]
            )
            values = torch.stack([qkv[there_r, there_q, 2, head] for _, _, there_r, there_q in seen])
            mixed.append(logits.softmax(0) @ values)
        result[here_r, here_q] = block.attn.proj(torch.cat(mixed))
    return tokens + result


@pytest.mark.parametrize("shift", [0, 2])
def test_block_equals_attention_token_by_token(shift):
    torch.manual_seed(0)
    block, bias = Block(32, 2, 2, window=4, shift=shift), RelativePositionBias(4, 2)
    tokens = torch.randn(1, 8, 12, 32)
    with torch.no_grad():
        bias.table.normal_()
        attended = attend_slowly(block, tokens[0], bias.table)
        expected = attended + block.mlp(block.norm2(attended))
        got = block(tokens, bias())[0]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
