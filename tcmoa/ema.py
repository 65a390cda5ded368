"""The exponential moving average of a run's weights, which is what a run writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class ExponentialMovingAverage:
    """Average of the trainable parameters over training steps, initialized with their first values.

    Args:
        model: The model whose trainable parameters are averaged.
        decay: Weight of the previous average in an update, 0 to below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average toward the model's current parameters."""
        for name, parameter in model.named_parameters():
            if name in self.values:
                self.values[name].lerp_(parameter, 1 - self.decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Use the averages as the model's parameters inside a with-block."""
        own = {n: p.detach().clone() for n, p in model.named_parameters() if n in self.values}
        model.load_state_dict(self.values, strict=False)
        try:
            yield
        finally:
            model.load_state_dict(own, strict=False)
