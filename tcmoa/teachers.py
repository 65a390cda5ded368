"""Learning from a teacher: a model imitates the picture that a fusion rule makes of a pair (distillation).

The picture is luma only. Two distances are taken: that of the result, and that of the network's own prediction, which
for models that weigh the sources (`tcmoa.source_weights`) is another image, of half the resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tcmoa.model import IMAGE_MEAN, IMAGE_STD, FusionOutput, to_luma
from tcmoa.presets import SOURCE_WEIGHTS, Sizes
from tcmoa_runtime.images import LUMA
from tcmoa_runtime.typing import Teacher

Teachers: TypeAlias = Mapping[str, Teacher]
"""Teachers by the name that a configuration uses."""

NO_TEACHERS: Final[Teachers] = MappingProxyType({})

RESULT: Final = "teacher"
PREDICTION: Final = "teacher_prediction"

TEACHER_TERMS: Final[Mapping[str, float]] = MappingProxyType({RESULT: 10.0, PREDICTION: 3.0})
"""Weights of the distances to the teacher's picture, by name in [losses] and in the log."""

GRADIENT_WEIGHT: Final = 8.0
"""Weight of the distance of gradients, relative to that of levels: small detail would else be learned last."""

BLOCK: Final = 8
"""Side in pixels of the squares whose means are compared: errors of one sign add up there."""

_SOBEL: Final = ((-0.125, 0.0, 0.125), (-0.25, 0.0, 0.25), (-0.125, 0.0, 0.125))


def picture_distance(image: Tensor, target: Tensor) -> Tensor:
    """Return the distance of two lumas [B, 1, H, W]: L1 of levels, of gradients, and of the means of 8x8 pixels."""
    error = image - target
    kernel = error.new_tensor(_SOBEL)
    gradients = F.conv2d(error, torch.stack((kernel, kernel.T))[:, None])
    return (
        error.abs().mean()
        + GRADIENT_WEIGHT * gradients.abs().mean()
        + F.avg_pool2d(error, BLOCK).abs().mean()
    )


def teacher_terms(
    weights: Mapping[str, float], output: FusionOutput, target: Tensor, sizes: Sizes
) -> dict[str, Tensor]:
    """Return the weighted distances to the teacher's picture.

    Args:
        weights: Weights of `TEACHER_TERMS` by name.
        output: The output of the model.
        target: The teacher's picture, luma [B, 1, H, W] in 0..1.
        sizes: The sizes of the model; without `source-weights`, prediction and result are the same image.
    """
    images = {RESULT: (to_luma(output.image.float()), target)}
    images[PREDICTION] = images[RESULT]
    if sizes.output == SOURCE_WEIGHTS:
        mean, std = (output.decoded.new_tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
        predicted = to_luma(output.decoded.float() * std + mean)
        images[PREDICTION] = (F.avg_pool2d(predicted, 2), F.avg_pool2d(target, 2))
    return {name: weight * picture_distance(*images[name]) for name, weight in weights.items()}


def teach(teacher: Teacher, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the teacher's picture of two RGB images [H, W, 3] in 0..1: luma [H, W] in 0..1."""
    lumas = [np.asarray(image @ np.asarray(LUMA, np.float32) * 255, np.float32) for image in (x, y)]
    return np.asarray(teacher(*lumas) / 255, np.float32)
