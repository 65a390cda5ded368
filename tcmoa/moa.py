"""The task-customized mixture of adapters: routers, adapters, prompts, prompt-driven fusion (Sec. 3 of the paper).

Everything works on two token grids [B, gh, gw, C], one per source, and stays float32 under autocast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tcmoa.blocks import round_through

PROMPT_MEAN = 0.5
"""mu of Eq. 8."""

GATE_FLOOR = 1e-4
"""Gates at or below this become zero; the others are not renormalized."""

NOISE_FLOOR = 0.1
"""Minimum standard deviation of the routers' noise during training (Eq. 3)."""


@dataclass
class PromptControl:
    """alpha (`scale`) and beta (`shift`) of Eq. 8: numbers, or maps that broadcast to [B, gh, gw]."""

    scale: float | Tensor = 1.0
    shift: float | Tensor = 0.0

    def apply(self, prompt_x: Tensor, prompt_y: Tensor) -> tuple[Tensor, Tensor]:
        """Apply Eq. 8 to prompts [B, gh, gw].

        mu + alpha*(p - mu) +- beta is computed as alpha*p + (mu*(1 - alpha) +- beta), so that alpha 1 and beta 0
        change no bit.
        """
        center = PROMPT_MEAN * (1.0 - self.scale)
        return self.scale * prompt_x + (center + self.shift), self.scale * prompt_y + (center - self.shift)


def squared_variation(values: Tensor) -> Tensor:
    """Return the squared coefficient of variation of a vector, variance / mean**2 (Shazeer 2017, Eq. 7)."""
    if values.numel() < 2:
        return values.new_zeros(())
    return values.var() / (values.mean() ** 2 + 1e-10)


class RouterBank(nn.Module):
    """One router per task: noisy top-K gating over the shared adapters (Eq. 2 and 3; Shazeer 2017)."""

    def __init__(self, dim: int, tasks: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.gate = nn.Parameter(torch.empty(tasks, dim, experts))
        self.noise = nn.Parameter(torch.zeros(tasks, dim, experts))
        # Not zeros: with equal logits the first K adapters would win every tie, and the others would never be used.
        nn.init.normal_(self.gate, std=0.02)

    def forward(self, u: Tensor, task: int) -> tuple[Tensor, Tensor]:
        """Return the gates [..., N] of features u [..., C/4], and the load-balancing loss (0 in eval mode)."""
        clean = u @ self.gate[task]
        logits, spread = clean, None
        if self.training:
            spread = F.softplus(u @ self.noise[task]) + NOISE_FLOOR
            logits = clean + torch.randn_like(clean) * spread
        top, chosen = logits.topk(self.top_k, dim=-1)
        weights = top.softmax(-1)
        weights = torch.where(weights > GATE_FLOOR, weights, torch.zeros_like(weights))
        gates = torch.zeros_like(logits).scatter(-1, chosen, weights)
        if spread is None:
            return gates, logits.new_zeros(())
        return gates, self._imbalance(clean, logits, spread, gates)

    def _imbalance(self, clean: Tensor, noisy: Tensor, spread: Tensor, gates: Tensor) -> Tensor:
        """Return CV^2 of the importance plus CV^2 of the smooth load estimate (Shazeer 2017, appendix A)."""
        experts = gates.shape[-1]
        importance = squared_variation(gates.reshape(-1, experts).sum(0))
        if self.top_k == experts:
            return importance
        ranked = noisy.topk(self.top_k + 1, dim=-1).values
        inside = noisy >= ranked[..., self.top_k - 1, None]
        # The K-th largest noisy logit of the OTHER adapters, which this adapter has to exceed.
        threshold = torch.where(inside, ranked[..., self.top_k, None], ranked[..., self.top_k - 1, None])
        chance = torch.special.ndtr((clean - threshold) / spread)
        return importance + squared_variation(chance.reshape(-1, experts).sum(0))


class Adapter(nn.Module):
    """Linear down, ReLU, Linear up, on the reduced features."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, u: Tensor) -> Tensor:
        """Map features [..., C/4] to the same shape."""
        return self.fc2(F.relu(self.fc1(u)))  # type: ignore[no-any-return]


class AdapterBank(nn.Module):
    """The N adapters that all tasks share, mixed in log space: log(sum_i g_i exp(A_i(u))).

    Eq. 4 of the paper is a plain sum; the published weights were trained with the log-space form.
    """

    adapters: Sequence[Adapter]

    def __init__(self, dim: int, experts: int) -> None:
        super().__init__()
        adapters = nn.ModuleList(Adapter(dim, dim // 8) for _ in range(experts))
        self.adapters = cast("Sequence[Adapter]", adapters)

    def forward(self, u: Tensor, gates: Tensor) -> Tensor:
        """Mix the adapters' outputs for features u [..., C/4] by gates [..., N] into [..., C/4]."""
        outputs = torch.stack([adapter(u) for adapter in self.adapters], dim=-2)  # [..., N, C/4]
        mixed = (gates[..., None] * outputs.exp()).sum(-2)
        return torch.where(mixed == 0, torch.finfo(torch.float64).eps, mixed).log()


class PromptGenerator(nn.Module):
    """Computes one prompt per token and source (Eq. 2 to 4)."""

    def __init__(self, dim: int, tasks: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(2 * dim)
        self.reduce = nn.Linear(2 * dim, dim // 4, bias=False)
        self.norm2 = nn.LayerNorm(dim // 4)
        self.routers = RouterBank(dim // 4, tasks, experts, top_k)
        self.bank = AdapterBank(dim // 4, experts)

    def forward(self, x: Tensor, y: Tensor, task: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return prompt_x and prompt_y in (0, 1) [B, gh, gw], and the load-balancing loss."""
        u = self.norm2(self.reduce(self.norm1(torch.cat((x, y), -1))))
        gates, imbalance = self.routers(u, task)
        half_x, half_y = self.bank(u, gates).chunk(2, dim=-1)
        return half_x.mean(-1).sigmoid(), half_y.mean(-1).sigmoid(), imbalance


class PromptDrivenFusion(nn.Module):
    """Convolutions 1x1 to C/4 channels, 3x3, and 1x1 back to C; no biases, no activations (Eq. 5)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(dim // 4, dim // 4, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(dim // 4, dim, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """Map a token grid [B, gh, gw, C] to the same shape."""
        return self.conv3(self.conv2(self.conv1(h.permute(0, 3, 1, 2)))).permute(0, 2, 3, 1)  # type: ignore[no-any-return]


def restandardize(tokens: Tensor, before: Tensor) -> Tensor:
    """Give each item of `tokens` [B, gh, gw, C] the mean and the unbiased standard deviation of that of `before`."""
    over = (1, 2, 3)
    spread = before.std(over, keepdim=True) / (tokens.std(over, keepdim=True) + 1e-12)
    return (tokens - tokens.mean(over, keepdim=True)) * spread + before.mean(over, keepdim=True)


@dataclass
class MoAOutput:
    """Mixed sources [B, gh, gw, C], prompts after Eq. 8 [B, gh, gw], and load-balancing loss []."""

    x: Tensor
    y: Tensor
    prompt_x: Tensor
    prompt_y: Tensor
    imbalance: Tensor


class TaskCustomizedMoA(nn.Module):
    """A TC-MoA: prompts, sources weighted by them plus source embeddings, fusion, and a learned mix (Eq. 2 to 6).

    `restandardizes` is set in the decoder: mean and standard deviation of each source are restored afterwards.
    """

    def __init__(self, dim: int, tasks: int, experts: int, top_k: int, *, restandardizes: bool) -> None:
        super().__init__()
        self.restandardizes = restandardizes
        self.rounding: torch.dtype | None = None  # see TCMoA.train_for
        self.prompts = PromptGenerator(dim, tasks, experts, top_k)
        self.source_embedding = nn.Parameter(torch.empty(tasks, 2, dim))  # S_x, S_y of each task
        nn.init.normal_(self.source_embedding, std=0.02)
        self.fusion = PromptDrivenFusion(dim)
        self.mix = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, y: Tensor, task: int, control: PromptControl) -> MoAOutput:
        """Fuse two token grids [B, gh, gw, C] by the prompts of `task` and the alpha and beta of `control`."""
        with torch.autocast(x.device.type, enabled=False):
            x, y = x.float(), y.float()
            prompt_x, prompt_y, imbalance = self.prompts(x, y, task)
            prompt_x, prompt_y = control.apply(prompt_x, prompt_y)
            embedding_x, embedding_y = self.source_embedding[task]
            h = prompt_x[..., None] * x + embedding_x + prompt_y[..., None] * y + embedding_y
            fused = self.mix * self.fusion(h)
            new_x = fused + (1 - self.mix) * x
            new_y = fused + (1 - self.mix) * y
            if self.restandardizes:
                new_x, new_y = restandardize(new_x, x), restandardize(new_y, y)
            new_x, new_y = (round_through(new, self.rounding) for new in (new_x, new_y))
            return MoAOutput(new_x, new_y, prompt_x, prompt_y, imbalance)


EVEN_MIX = 0.5
"""Mix of `even_mixture`: the initial value of lambda_f in Eq. 6."""


def even_mixture(x: Tensor, y: Tensor, control: PromptControl, *, restandardizes: bool) -> MoAOutput:
    """Mix two token grids [B, gh, gw, C] without parameters, in place of a TC-MoA in the baselines of Table 5.

    It is a TC-MoA with prompts of 0.5 (before `control`), the identity as its fusion layer, no source embeddings, and a
    mix of 0.5. The paper does not describe how its baselines combine the sources, but "FrozenBackbone" has no more
    parameters than the MAE (Table 6).
    """
    with torch.autocast(x.device.type, enabled=False):
        x, y = x.float(), y.float()
        half = torch.full_like(x[..., 0], PROMPT_MEAN)
        prompt_x, prompt_y = control.apply(half, half)
        fused = EVEN_MIX * (prompt_x[..., None] * x + prompt_y[..., None] * y)
        new_x, new_y = fused + (1 - EVEN_MIX) * x, fused + (1 - EVEN_MIX) * y
        if restandardizes:
            new_x, new_y = restandardize(new_x, x), restandardize(new_y, y)
        return MoAOutput(new_x, new_y, prompt_x, prompt_y, x.new_zeros(()))
