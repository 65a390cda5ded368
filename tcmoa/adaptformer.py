"""AdaptFormer (Chen et al., NeurIPS 2022), one of the two baselines in Table 5 of the paper; for training only."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

BOTTLENECK = 64
"""Width of the bottleneck, as in AdaptFormer."""

SCALE = 0.1
"""Weight of the adapter's output, as in AdaptFormer."""


class ParallelAdapter(nn.Module):
    """A bottleneck parallel to the MLP of a block, with the same normalized input.

    AdaptFormer, Sec. 3.2: x~ = ReLU(LN(x') W_down) W_up, added to MLP(LN(x')) + x' with weight 0.1. W_up and the biases
    start at zero, W_down as Kaiming (normal), so that the adapted model first computes what the original one computes.
    """

    def __init__(self, dim: int, bottleneck: int = BOTTLENECK) -> None:
        super().__init__()
        self.down = nn.Linear(dim, bottleneck)
        self.up = nn.Linear(bottleneck, dim)
        nn.init.kaiming_normal_(self.down.weight, nonlinearity="relu")
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, normed: Tensor) -> Tensor:
        """Map normalized tokens [..., C] to the addend of the block's output [..., C]."""
        return SCALE * self.up(F.relu(self.down(normed)))  # type: ignore[no-any-return]
