"""Reading and writing weights: published checkpoints, MAE backbones, and safetensors files of this project.

Files are written in the published names. `tcmoa.checkpoint_files` reads them, `tcmoa.checkpoint_names` translates
other names, and `tcmoa.checkpoint_sizes` finds the sizes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tcmoa.checkpoint_files import SIZES_KEY, read_checkpoint
from tcmoa.checkpoint_names import (
    ADAPTED,
    SOURCE_EMBEDDING,
    PublishedState,
    from_published,
    printable_name,
    to_published,
    translate_names,
)
from tcmoa.checkpoint_sizes import UnnamedTaskError, choose_sizes, is_backbone
from tcmoa.model import TCMoA
from tcmoa.presets import PRESETS, Sizes, preset_name
from tcmoa_runtime.contract import Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.partial import partial_file

# Tensors of published files that are not needed: the index is derived, mean and std are the constants 0 and 1 of a
# normal distribution, and only MAE uses the mask token.
_IGNORED = re.compile(r"relative_position_index$|\.MoA\.(mean|std)$|^mask_token$")
_DERIVED = ("cls_token", "pos_embed", "decoder_pos_embed")
"""Tensors that every model has from the start: the class token is unused, and the positions are constants."""


def _read_published(path: Path) -> tuple[PublishedState, dict[str, str]]:
    """Read the tensors of a file by published name, without those that are not needed, and its text metadata."""
    checkpoint = read_checkpoint(path)
    published = translate_names(checkpoint.tensors, str(path))
    needed = {key: value for key, value in published.tensors.items() if not _IGNORED.search(key)}
    return replace(published, tensors=needed), checkpoint.metadata


def _long_axes(tensor: Tensor) -> list[int]:
    """Return the shape without axes of length 1, which files may or may not contain."""
    return [length for length in tensor.shape if length > 1]


def _check_fit(state: Mapping[str, Tensor], sizes: Sizes, source: str) -> None:
    """Compare the tensors with those of a model of these sizes, before memory for the model is allocated.

    Raises:
        InputError: Tensors are missing, unexpected or misshapen.
    """
    with torch.device("meta"):
        expected = to_published(TCMoA(sizes))
    optional = set(_DERIVED)
    if is_backbone(state):
        optional |= {key for key in expected if ADAPTED.search(key)}
    elif not any(SOURCE_EMBEDDING.search(key) for key in state):
        optional |= {key for key in expected if SOURCE_EMBEDDING.search(key)}
    missing = [key for key in expected if key not in state and key not in optional]
    unexpected = [printable_name(key) for key in state if key not in expected]
    misshapen = [
        f"'{key}' is {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and _long_axes(state[key]) != _long_axes(value)
    ]
    faults = []
    for label, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)):
        if names:
            rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
            faults.append(f"{label}: {', '.join(names[:3])}{rest}")
    if faults:
        raise InputError(f"does not fit a {preset_name(sizes)} TC-MoA; {'; '.join(faults)}", subject=source)


def _build_model(
    published: PublishedState, sizes: Sizes, source: str, *, upsample: bool = True, warn: bool = True
) -> TCMoA:
    """Build a model of a file's tensors, with a warning about those that the file lacks.

    Raises:
        InputError: Tensors are missing, unexpected or misshapen.
    """
    state = published.tensors
    _check_fit(state, sizes, source)
    model = TCMoA(sizes, upsample=upsample)
    values = to_published(model)
    if is_backbone(state):
        if warn:
            warnings.warn(
                f"{source}: an MAE backbone; routers, adapters, fusion and position biases are untrained",
                stacklevel=3,
            )
    elif model.encoder.moas and not any(SOURCE_EMBEDDING.search(key) for key in state):
        reason = (
            "no source embeddings (published files lack them)"
            if published.unread_embedding is None
            else f"source embeddings of an unknown form ({published.unread_embedding})"
        )
        warnings.warn(f"{source}: {reason}; zeros are used", stacklevel=3)
        values |= {
            key: torch.zeros_like(value) for key, value in values.items() if SOURCE_EMBEDDING.search(key)
        }
    values |= {key: state[key].to(torch.float32).reshape(values[key].shape) for key in values if key in state}
    model.load_state_dict(from_published(values, model))
    return model


def bundled_weights(name: str = "tiny") -> Path:
    """Return the path of weights that are included in the package; the file may not exist."""
    return Path(str(resources.files("tcmoa") / "weights_data" / f"{name}.safetensors"))


def load_weights(path: str | os.PathLike[str], *, upsample: bool = True, task: Task | None = None) -> TCMoA:
    """Load weights into a model in eval mode; the sizes are inferred from the file.

    The file may be a published checkpoint, in the authors' older names too, an MAE backbone, a state dict of `TCMoA`, a
    file that `save_weights` wrote, or the checkpoint of a training run, whose averaged weights are used. Dictionaries
    around the state dict and the prefixes `module.` and `_orig_mod.` are removed.

    Values are converted to float32. Missing source embeddings become zeros, with a warning.

    Args:
        path: The file (.pth, .safetensors), or `tiny` or `nano` for the weights in the package.
        upsample: Resize images x2 before patch embedding, as published.
        task: Task of a checkpoint that was trained for one task only (`task_num: 1`) and does not name it. It becomes
            the model's only task. It has no effect on other checkpoints.

    Raises:
        InputError: The file is missing, unreadable or not a checkpoint, or tensors are missing, unexpected or
            misshapen, or the checkpoint was trained for one task and `task` is None.
    """
    file = bundled_weights(str(path)) if str(path) in PRESETS and not Path(path).is_file() else Path(path)
    if str(path) in PRESETS and file.parent.name == "weights_data" and not file.is_file():
        raise InputError(
            f"no weights of '{path}' are included in this package",
            remedy="Give a checkpoint file, or 'tiny' or 'nano'",
        )
    published, metadata = _read_published(file)
    sizes = choose_sizes(published.tensors, metadata, str(file), task)
    return _build_model(published, sizes, str(file), upsample=upsample).eval()


def load_start(
    path: str | os.PathLike[str],
    changes: Mapping[str, object],
    *,
    backbone: Sizes | None = None,
    task: Task | None = None,
) -> tuple[TCMoA, bool]:
    """Load a model to train from a weights file.

    Parameters that the file lacks are drawn from torch's generator.

    Args:
        path: The file.
        changes: Sizes of the configuration, by field of `Sizes`. They apply to what is added to an MAE backbone; the
            file of a TC-MoA must have them already.
        backbone: Accept only an MAE backbone of these sizes.
        task: Task of a checkpoint that was trained for one task only and does not name it.

    Returns:
        The model, and whether the file was an MAE backbone.

    Raises:
        InputError: As `load_weights`; or the file is not a backbone, or the sizes do not fit it.
    """
    file = Path(path)
    published, metadata = _read_published(file)
    fresh = is_backbone(published.tensors)
    if backbone is not None and not fresh:
        raise InputError(
            "a TC-MoA; expected an MAE backbone", subject=file, remedy="Write start without 'mae:'"
        )
    try:
        sizes = backbone or choose_sizes(published.tensors, metadata, str(file), task)
    except UnnamedTaskError as error:
        raise InputError(
            error.problem,
            subject=file,
            remedy="Write the task as the only one of 'tasks' in the configuration",
        ) from error
    different = {name: value for name, value in changes.items() if getattr(sizes, name) != value}
    if different and not fresh:
        name, value = next(iter(different.items()))
        raise InputError(
            f"trained with {name} = {getattr(sizes, name)!r}, but the configuration has {value!r}",
            subject=file,
            remedy=f"Remove {name} from the configuration, or start from an MAE backbone",
        )
    try:
        sizes = replace(sizes, **different)  # type: ignore[arg-type]  # checked in `Sizes.__post_init__`
    except InputError as error:
        raise InputError(f"[sizes] does not fit: {error.render_problem()}", subject=file) from error
    return _build_model(published, sizes, str(file), warn=not fresh), fresh


def save_weights(
    model: TCMoA,
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write a model as a safetensors file with published names.

    The file is written under a temporary name and renamed, so that an incomplete file is never visible.

    Args:
        model: The model.
        path: The file to write.
        dtype: Type of the stored values.
        notes: Entries of the file's text metadata.
    """
    target = Path(path)
    state = {key: value.to(dtype).contiguous().clone() for key, value in to_published(model).items()}
    metadata = {SIZES_KEY: json.dumps(model.sizes.to_dict()), **(notes or {})}
    with partial_file(target) as partial:
        save_file(state, partial, metadata=metadata)


def weights_hash(model: TCMoA) -> str:
    """Return the SHA-256 of the names, shapes and float32 bytes of all parameters."""
    digest = hashlib.sha256()
    for key, value in sorted(to_published(model).items()):
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
