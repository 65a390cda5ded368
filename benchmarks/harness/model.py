"""The unfolded PyTorch model of a case, taking and giving uint8 frames: the baseline's and the naive export's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.plan import MICRO, Case
from tcmoa import PRESETS, Sizes, TCMoA, load_weights
from tcmoa.reference import fuse_frames
from tcmoa_runtime.errors import InputError

RANDOM = "random, seed 0"


class Frames(nn.Module):
    """Frames [B, H, W, 3] to a fused one, as the parity gate runs the model."""

    def __init__(self, model: TCMoA, task: str) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """uint8 in, uint8 out."""
        return fuse_frames(self.model, x, y, self.task).fused.round().to(torch.uint8)


def load_model(case: Case) -> tuple[TCMoA, str]:
    """The case's model in eval mode, and what its weights are.

    Raises InputError where bundled weights that the case cannot do without are not there.
    """
    if case.weights:
        try:
            return load_weights(case.weights, upsample=case.upsample).eval(), f"bundled {case.weights}"
        except InputError:
            if case.wanted:
                raise
    torch.manual_seed(0)
    sizes = Sizes(**MICRO) if case.preset == "micro" else PRESETS[case.preset]
    return TCMoA(sizes, upsample=case.upsample).eval(), RANDOM
