"""Blocks of the backbone: MAE's ViT blocks with attention in Swin's windows.

Token grids are [B, gh, gw, C]; windows are [B * windows, window * window, C].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tcmoa.adaptformer import ParallelAdapter


def partition_windows(tokens: Tensor, window: int) -> Tensor:
    """Cut a token grid [B, gh, gw, C] into windows [B*n, window*window, C], rows of windows first."""
    b, gh, gw, c = tokens.shape
    tokens = tokens.view(b, gh // window, window, gw // window, window, c)
    return tokens.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, c)


def merge_windows(windows: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """Undo `partition_windows`: windows [B*n, window*window, C] to a token grid [B, gh, gw, C]."""
    gh, gw = grid
    tokens = windows.view(-1, gh // window, gw // window, window, window, windows.shape[-1])
    return tokens.permute(0, 1, 3, 2, 4, 5).reshape(-1, gh, gw, windows.shape[-1])


def relative_position_index(window: int) -> Tensor:
    """Return the row of the bias table for each (query, key) pair of a window: int64 [window**2, window**2] (Swin)."""
    axis = torch.arange(window)
    rows, cols = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    dy = rows[:, None] - rows[None, :] + window - 1
    dx = cols[:, None] - cols[None, :] + window - 1
    return dy * (2 * window - 1) + dx


class RelativePositionBias(nn.Module):
    """A learned bias per head and token offset (Swin, Liu et al. 2021), shared by two consecutive blocks."""

    index: Tensor

    def __init__(self, window: int, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.register_buffer("index", relative_position_index(window), persistent=False)

    def forward(self) -> Tensor:
        """Return the bias of the attention logits, [heads, window**2, window**2]."""
        return self.table[self.index].permute(2, 0, 1)


class Attention(nn.Module):
    """Multi-head self-attention inside windows."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, windows: Tensor, bias: Tensor) -> Tensor:
        """Attend within each window [n, tokens, C], with `bias` [heads, tokens, tokens] added to the logits."""
        n, tokens, c = windows.shape
        q, k, v = self.qkv(windows).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q * self.scale @ k.transpose(-2, -1) + bias).softmax(-1)  # [n, heads, tokens, tokens]
        return self.proj((weights @ v).transpose(1, 2).reshape(n, tokens, c))  # type: ignore[no-any-return]


def round_through(values: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Round values to `dtype` with the gradient of the identity (straight-through estimator).

    A model that is trained with it does not depend on digits that the deployed precision lacks.
    """
    return values if dtype is None else values + (values.detach().to(dtype).float() - values.detach())


class Mlp(nn.Module):
    """Linear, GELU (erf), Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map each token [..., C] independently."""
        return self.fc2(self.act(self.fc1(tokens)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm transformer block with attention in windows, which are shifted when `shift` > 0.

    Shifted windows are NOT masked: tokens that wrap around the border take part, as in the published weights.

    Args:
        dim: Channels C.
        heads: Attention heads.
        mlp_ratio: Hidden width of the MLP, in multiples of C.
        window: Side of a window in tokens.
        shift: Tokens by which the windows are shifted.
        has_adapter: Add a `ParallelAdapter` to the MLP.
    """

    def __init__(
        self, dim: int, heads: int, mlp_ratio: int, window: int, shift: int, *, has_adapter: bool = False
    ) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.rounding: torch.dtype | None = None  # see TCMoA.train_for
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, dim * mlp_ratio)
        self.adapter = ParallelAdapter(dim) if has_adapter else None

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """Map a token grid [B, gh, gw, C] to the same shape; gh and gw are multiples of the window."""
        grid = (tokens.shape[1], tokens.shape[2])
        if self.shift:
            tokens = tokens.roll((-self.shift, -self.shift), (1, 2))
        windows = partition_windows(tokens, self.window)
        normed = round_through(self.norm1(windows), self.rounding)
        windows = round_through(windows + self.attn(normed, bias), self.rounding)
        tokens = merge_windows(windows, grid, self.window)
        if self.shift:
            tokens = tokens.roll((self.shift, self.shift), (1, 2))
        normed = round_through(self.norm2(tokens), self.rounding)
        branch = self.mlp(normed)
        if self.adapter is not None:
            branch = branch + self.adapter(normed)
        return round_through(tokens + branch, self.rounding)
