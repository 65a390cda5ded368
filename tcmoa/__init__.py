"""TC-MoA image fusion: the training-side model, its weights, losses and training."""

from tcmoa.model import TCMoA
from tcmoa.presets import PRESETS, Sizes
from tcmoa.weights import load_weights, save_weights

__all__ = ["PRESETS", "Sizes", "TCMoA", "load_weights", "save_weights"]
