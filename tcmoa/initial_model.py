"""The model of a run before its first step: of a preset, from a weights file, or grown from a smaller model."""

from __future__ import annotations

from dataclasses import replace

import torch

from tcmoa.config import GROW_PREFIX, MAE_PREFIX, TrainConfig
from tcmoa.grow import grow
from tcmoa.model import TCMoA
from tcmoa.presets import PRESETS, preset_name
from tcmoa.start import FUSIONS, start_as_fusion
from tcmoa.trainable import parameter_counts, set_trainable
from tcmoa.weights import load_start
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.log import log_step
from tcmoa_runtime.typing import OnMessage


def build_model(config: TrainConfig, on_message: OnMessage = log_step) -> TCMoA:
    """Build the model of a configuration before its first step, with `requires_grad` set for what is trained.

    Args:
        config: The configuration.
        on_message: Called with the parameters that were loaded and the number of parameters.

    Raises:
        InputError: `start` is unreadable or does not fit, or no model can have the sizes.
    """
    torch.manual_seed(config.seed)
    if config.start in (*FUSIONS, "random"):
        model = _preset_model(config)
        if config.start in FUSIONS:
            try:
                start_as_fusion(model, config.seed, FUSIONS[config.start])
            except InputError as error:
                raise InputError(
                    f"does not fit preset '{config.preset}': {error.render_problem()}",
                    subject=f"start '{config.start}'",
                ) from error
    elif config.start.startswith(GROW_PREFIX):
        model = _grow_model(config, on_message)
    else:
        file = config.start.removeprefix(MAE_PREFIX)
        backbone = PRESETS[config.preset] if file != config.start else None
        model, fresh = load_start(file, config.size_changes, backbone=backbone, task=config.only_task)
        counts = parameter_counts(model)
        if fresh:
            added = counts.adapted + counts.source_embeddings
            on_message(
                f"{file}: {counts.backbone:,} parameters of the backbone; "
                f"{added:,} added parameters are initialized from seed {config.seed}"
            )
        else:
            on_message(f"{file}: all parameters")
    model.train_for(config.train_for)
    set_trainable(model, freeze_backbone=config.freeze_backbone)
    on_message(str(parameter_counts(model)))
    return model


def _preset_model(config: TrainConfig) -> TCMoA:
    try:
        # `Sizes.__post_init__` checks the types.
        return TCMoA(replace(PRESETS[config.preset], **config.size_changes))  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(
            f"does not fit preset '{config.preset}': {error.render_problem()}", subject="[sizes]"
        ) from error


def _grow_model(config: TrainConfig, on_message: OnMessage) -> TCMoA:
    """Build the preset's model and initialize it from the smaller trained model in `start`."""
    file, model = config.start.removeprefix(GROW_PREFIX), _preset_model(config)
    small, is_backbone = load_start(file, {}, task=config.only_task)
    if is_backbone:
        raise InputError(
            "an MAE backbone; expected a trained TC-MoA",
            subject=file,
            remedy=f"Write '{MAE_PREFIX}' before the file name",
        )
    try:
        grow(small, model, config.seed)
    except InputError as error:
        raise InputError(
            f"does not grow to preset '{config.preset}': {error.render_problem()}", subject=file
        ) from error
    on_message(f"{file}: {preset_name(small.sizes)}, grown to {preset_name(model.sizes)}")
    return model
