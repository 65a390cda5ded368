"""Mixed precision: the blocks in 16 bits under autocast; weights, TC-MoAs and losses stay float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn

AMP: Final = MappingProxyType({"none": None, "bf16": torch.bfloat16, "fp16": torch.float16})
"""Types of the blocks' products by the configuration's `amp`."""


class MixedPrecision:
    """Autocast for the forward pass and, for fp16, a loss scale: its gradients would vanish below 6e-8 without one.

    The residual stream stays float32 (norms and additions are not cast); TC-MoAs, the patch embedding and both linear
    layers around the decoder disable autocast themselves. Tested on a CPU in both types; not run on a GPU yet.
    """

    def __init__(self, amp: str, device: torch.device) -> None:
        self.dtype, self.device = AMP[amp], device
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def step(self, loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer, clip: float) -> None:
        """Backward pass, clipping by the norm of all gradients, and the optimiser's step.

        A step with gradients that are not finite in fp16 is left out, and the loss scale halved.
        """
        optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_((p for p in model.parameters() if p.requires_grad), clip)
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """The loss scale and how long it has held; empty but for fp16."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the loss scale of a checkpoint."""
        if state:
            self._scaler.load_state_dict(state)
