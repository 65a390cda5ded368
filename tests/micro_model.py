"""A small model in which every parameter matters, and frames to fuse with it."""

import numpy as np
import torch

from tcmoa import Sizes, TCMoA

MICRO = Sizes(64, 6, 2, 64, 4, 2)

MICRO_WEIGHTS = Sizes(64, 4, 2, 64, 2, 2, mlp_ratio=2, window=4, tau=2, output="source-weights")
"""A model that weighs the sources, with windows of 64 pixels and 2 + 1 TC-MoAs."""


def scrambled(sizes=MICRO, *, upsample=True, seed=0):
    """Return a model with random parameters, none of them neutral."""
    generator = torch.Generator().manual_seed(seed)
    model = TCMoA(sizes, upsample=upsample).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("pos_embed") or name == "cls_token":
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith(".mix"):
                parameter.copy_(0.4 + 0.2 * torch.rand((), generator=generator))
            elif ".routers." in name:
                parameter.copy_(0.5 * noise)
            elif "table" in name:
                parameter.copy_(0.3 * noise)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.dim() < 2 or name.endswith("source_embedding"):
                parameter.copy_(0.1 * noise)
            else:
                fan_in = parameter[0].numel()
                parameter.copy_(noise * fan_in**-0.5)
        # Keep the image within 0..255, so that clipping hides no difference.
        model.decoder_pred.weight.mul_(0.3)
    return model


def frames(height, width, count=1, seed=0):
    """Return smooth random frames with some structure: uint8 [count, H, W, 3]."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width] / 40
    phase = rng.uniform(0, 6, (count, 1, 1, 3, 2))
    waves = np.sin(rows[None, ..., None] + phase[..., 0]) + np.cos(cols[None, ..., None] + phase[..., 1])
    return np.clip(128 + 45 * waves + rng.normal(0, 8, waves.shape), 0, 255).astype(np.uint8)
