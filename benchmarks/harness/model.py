"""The unfolded PyTorch model of a case with uint8 frames, for the baseline and the naive export."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.plan import MICRO, Case
from tcmoa import PRESETS, Sizes, TCMoA, load_weights
from tcmoa.reference import fuse_frames
from tcmoa_runtime.errors import InputError

RANDOM_WEIGHTS = "random, seed 0"


class FrameModel(nn.Module):
    """Fuses frames [B, H, W, 3] as the parity check of the exporter does."""

    def __init__(self, model: TCMoA, task: str) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Fuse uint8 frames into uint8 frames."""
        return fuse_frames(self.model, x, y, self.task).fused.round().to(torch.uint8)


def load_model(case: Case) -> tuple[TCMoA, str]:
    """Return the model of a case in eval mode, and a description of its weights.

    Raises:
        InputError: Bundled weights that the case requires are missing.
    """
    if case.weights:
        try:
            return load_weights(case.weights, upsample=case.upsample).eval(), f"bundled {case.weights}"
        except InputError:
            if case.needs_weights:
                raise
    torch.manual_seed(0)
    sizes = Sizes(**MICRO) if case.preset == "micro" else PRESETS[case.preset]
    return TCMoA(sizes, upsample=case.upsample).eval(), RANDOM_WEIGHTS
