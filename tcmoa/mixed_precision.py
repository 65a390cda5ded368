"""Mixed precision training: blocks run in 16 bits under autocast; weights, TC-MoAs and losses stay float32."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn

AmpType: TypeAlias = Literal["none", "bf16", "fp16"]
"""Type of the matrix products in the blocks during training; `none` is float32."""

AMP: Final[Mapping[AmpType, torch.dtype | None]] = MappingProxyType(
    {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}
)
"""Type of the matrix products in the blocks, by the value of `amp` in the configuration."""


class MixedPrecision:
    """Autocast for the forward pass and, for fp16, a loss scale (fp16 gradients below 6e-8 would become zero).

    The residual stream stays float32: normalization and additions are not cast. TC-MoAs, the patch embedding and the
    linear layers before and after the decoder disable autocast themselves. Both types are tested on a CPU; neither was
    run on a GPU yet.
    """

    def __init__(self, amp: AmpType, device: torch.device) -> None:
        self.dtype, self.device = AMP[amp], device
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def step(self, loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer, clip: float) -> None:
        """Run the backward pass, clip the norm of all gradients, and run the optimizer's step.

        In fp16 a step whose gradients are not finite is skipped, and the loss scale is halved.
        """
        optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_((p for p in model.parameters() if p.requires_grad), clip)
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return the loss scale and the number of steps since it changed; empty unless `amp` is fp16."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the loss scale of a checkpoint."""
        if state:
            self._scaler.load_state_dict(state)
