"""Which parameters of a model are trained: names, counts, and parameter groups of AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from torch import nn

from tcmoa.config import TrainConfig
from tcmoa.model import TCMoA
from tcmoa.presets import ADAPTFORMER, FROZEN, TC_MOA

ADAPTED: Final = (".moas.", ".biases.")
"""Parts of the names of parameters that an MAE checkpoint lacks; they are trained with a frozen backbone."""

PROMPTING: Final = ".prompts."
"""Part of the names of the parameters that compute prompts: routers, adapters, and the layers before them."""

TRAINED_WITH_FROZEN_BACKBONE: Final = MappingProxyType(
    {
        TC_MOA: ADAPTED,
        # Table 5: "freezing the entire backbone and only unfreezing the final linear layer". AdaptFormer trains its
        # adapters and, as in its paper, the head.
        ADAPTFORMER: (".adapter.", "decoder_pred."),
        FROZEN: ("decoder_pred.",),
    }
)
"""Parts of the names of parameters that are trained with a frozen backbone, by adaptation."""

_NEVER = ("cls_token", "pos_embed", "decoder_pos_embed")


def is_adapted(name: str) -> bool:
    """Return whether a parameter does not belong to the backbone."""
    return any(part in name for part in (*ADAPTED, ".adapter."))


def set_trainable(model: TCMoA, *, freeze_backbone: bool) -> None:
    """Set `requires_grad` of all parameters but MAE's fixed tables, or of those that adapt a frozen backbone only."""
    parts = TRAINED_WITH_FROZEN_BACKBONE[model.sizes.adaptation]
    for name, parameter in model.named_parameters():
        chosen = not freeze_backbone or any(part in name for part in parts)
        parameter.requires_grad_(name not in _NEVER and chosen)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, object]]:
    """Return AdamW's parameter groups.

    Biases, norms and scalars have no weight decay. `factor` multiplies the learning rate of a group.
    """
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            adapted = is_adapted(name)
            factor = config.moa_lr_factor if adapted else 1.0
            if config.prompt_lr_factor and PROMPTING in name:
                factor = config.prompt_lr_factor
            groups.setdefault((parameter.dim() > 1, factor, adapted), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if decays else 0.0,
            "factor": factor,
        }
        for (decays, factor, _), parameters in groups.items()
    ]


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters, with source embeddings apart: the released code neither counts nor saves them."""

    backbone: int
    adapted: int
    source_embeddings: int
    trainable: int

    @property
    def total(self) -> int:
        """All parameters without source embeddings: 115.77 M for base, 340.89 M for large."""
        return self.backbone + self.adapted

    def __str__(self) -> str:
        embeddings = (
            f"; {self.source_embeddings:,} more in source embeddings" if self.source_embeddings else ""
        )
        return (
            f"{self.total:,} parameters, {self.adapted:,} of them outside the backbone{embeddings}; "
            f"{self.trainable:,} are trained"
        )


def parameter_counts(model: nn.Module) -> ParameterCounts:
    """Count the parameters of a model on any device, `meta` included."""
    numbers: Mapping[str, int] = {name: parameter.numel() for name, parameter in model.named_parameters()}
    embeddings = sum(n for name, n in numbers.items() if name.endswith("source_embedding"))
    adapted = sum(n for name, n in numbers.items() if is_adapted(name)) - embeddings
    return ParameterCounts(
        backbone=sum(numbers.values()) - adapted - embeddings,
        adapted=adapted,
        source_embeddings=embeddings,
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )
