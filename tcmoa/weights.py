"""Reading and writing weights: published checkpoints, MAE backbones, and safetensors files of this project.

All files use the published key names; `published_name` translates the parameter names of `TCMoA` into them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tcmoa.moa import TaskCustomizedMoA
from tcmoa.model import TCMoA, sincos_positions
from tcmoa.presets import PRESETS, Sizes, preset_name
from tcmoa_runtime.errors import InputError, first_line

SIZES_KEY = "tcmoa.sizes"
"""Key of the sizes, as JSON, in the metadata of safetensors files."""

_RENAMES = (
    (r"^encoder\.blocks\.", "blocks."),
    (r"^decoder\.blocks\.", "decoder_blocks."),
    (r"^encoder\.biases\.(\d+)\.table$", r"en_relative_position.\1.relative_position_bias_table"),
    (r"^decoder\.biases\.(\d+)\.table$", r"de_relative_position.\1.relative_position_bias_table"),
    (r"^encoder\.moas\.(\d+)\.fusion\.", r"FusionLayer.\1."),
    (r"^decoder\.moas\.(\d+)\.fusion\.", r"de_FusionLayer.\1."),
    (r"^encoder\.moas\.", "blocks_MoA."),
    (r"^decoder\.moas\.", "decoder_blocks_MoA."),
    (r"\.prompts\.(norm1|norm2)\.", r".\1."),
    (r"\.prompts\.reduce\.", ".dimReduction."),
    (r"\.prompts\.bank\.adapters\.", ".MoA.experts."),
    (r"\.prompts\.routers\.gate$", ".MoA.w_gate"),
    (r"\.prompts\.routers\.noise$", ".MoA.w_noise"),
)

# Tensors of published files that are not needed: the index is derived, mean and std are the constants 0 and 1 of a
# normal distribution, and only MAE uses the mask token.
_IGNORED = re.compile(r"relative_position_index$|\.MoA\.(mean|std)$|^mask_token$")
_ADAPTED = re.compile(r"(_MoA\.|FusionLayer\.|relative_position\.|^Alpha_|\.adapter\.)")
_SOURCE_EMBEDDING = re.compile(r"\.modal_shifts\.\d+$")


def published_name(name: str) -> str:
    """Return the published name of a parameter of `TCMoA`; mixes and source embeddings are arranged differently."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def to_published(model: TCMoA) -> dict[str, Tensor]:
    """Return the model's parameters by published name, including source embeddings and stacked mixes."""
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if name.endswith(".source_embedding"):
            prefix = published_name(name).removesuffix("source_embedding") + "modal_shifts."
            for row, embedding in enumerate(value.flatten(0, 1)):  # row = 2 * task + source
                state[f"{prefix}{row}"] = embedding
        elif not name.endswith(".mix"):
            state[published_name(name)] = value
    for stage, key in ((model.encoder, "Alpha_encoder"), (model.decoder, "Alpha_decoder")):
        if stage.moas:
            state[key] = torch.stack([mix_of(moa) for moa in stage.moas])
    return state


def mix_of(moa: TaskCustomizedMoA) -> Tensor:
    """Return the learned mix scalar of a TC-MoA (lambda_f of Eq. 6), detached."""
    return moa.mix.detach()


def from_published(state: Mapping[str, Tensor], model: TCMoA) -> dict[str, Tensor]:
    """Convert a complete `state` in published names into a state_dict of `model`."""
    own: dict[str, Tensor] = {}
    for name in model.state_dict():
        if name.endswith(".source_embedding"):
            prefix = published_name(name).removesuffix("source_embedding") + "modal_shifts."
            rows = [state[f"{prefix}{row}"].flatten() for row in range(2 * len(model.sizes.tasks))]
            own[name] = torch.stack(rows).unflatten(0, (-1, 2))
        elif name.endswith(".mix"):
            stage, _, index, _ = name.split(".")
            own[name] = state[f"Alpha_{stage}"][int(index)]
        else:
            own[name] = state[published_name(name)]
    return own


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    found = [int(match[1]) for key in state if (match := re.match(pattern, key))]
    return max(found) + 1 if found else 0


def infer_sizes(state: Mapping[str, Tensor], source: str) -> Sizes:
    """Infer the sizes of a model from the shapes of published tensors.

    The numbers of heads come from the position-bias tables. An MAE backbone has none; it uses ViT's 64 channels per
    head in the encoder and MAE's 32 in the decoder.

    Args:
        state: Tensors by published name.
        source: The file, for messages.

    Raises:
        InputError: A tensor is missing or has an impossible shape.
    """

    def shape(key: str, rank: int) -> tuple[int, ...]:
        if key not in state:
            raise InputError(
                f"tensor '{key}' is missing; expected a TC-MoA checkpoint or an MAE backbone", subject=source
            )
        if state[key].dim() != rank:
            raise InputError(
                f"tensor '{key}' has shape {tuple(state[key].shape)}; expected {rank} axes", subject=source
            )
        if 0 in state[key].shape:
            raise InputError(
                f"tensor '{key}' has shape {tuple(state[key].shape)}, which is empty", subject=source
            )
        return tuple(state[key].shape)

    dim, _, patch, _ = shape("patch_embed.proj.weight", 4)
    decoder_dim = shape("decoder_embed.weight", 2)[0]
    depth, decoder_depth = _count(state, r"blocks\.(\d+)\."), _count(state, r"decoder_blocks\.(\d+)\.")
    mlp_ratio = shape("blocks.0.mlp.fc1.weight", 2)[0] // dim
    values: dict[str, Any] = {"patch_size": patch, "mlp_ratio": mlp_ratio}
    heads, decoder_heads = max(dim // 64, 1), max(decoder_dim // 32, 1)
    if not _is_backbone(state):
        table, heads = shape("en_relative_position.0.relative_position_bias_table", 2)
        decoder_heads = shape("de_relative_position.0.relative_position_bias_table", 2)[1]
        tasks, _, experts = shape("blocks_MoA.0.MoA.w_gate", 3)
        if tasks != len(Sizes.tasks):
            raise InputError(
                f"{tasks} tasks in 'blocks_MoA.0.MoA.w_gate'; expected 3 (vif, mef, mff)", subject=source
            )
        values |= {
            "window": (round(table**0.5) + 1) // 2,
            "experts": experts,
            "top_k": min(Sizes.top_k, experts),
        }
        moas = _count(state, r"blocks_MoA\.(\d+)\.")
        values["tau"] = next(
            (tau for tau in (4, 2, 6, 8, 12) if len(range(tau // 2 - 1, depth, tau)) == moas), 4
        )
    try:
        return Sizes(dim, depth, heads, decoder_dim, decoder_depth, decoder_heads, **values)
    except InputError as error:
        raise InputError(f"not a supported TC-MoA: {error.render_problem()}", subject=source) from error


def _stored_sizes(metadata: Mapping[str, str], source: str) -> Sizes | None:
    if SIZES_KEY not in metadata:
        return None
    try:
        values: dict[str, Any] = json.loads(metadata[SIZES_KEY])
        known = {f.name for f in fields(Sizes)}
        kept: dict[str, Any] = {k: v for k, v in values.items() if k in known}
        return Sizes(**kept | {"tasks": tuple(kept.get("tasks", Sizes.tasks))})
    except (AttributeError, ValueError, TypeError) as error:  # AttributeError: JSON, but no object
        raise InputError(f"its '{SIZES_KEY}' entry is not readable: {error}", subject=source) from error


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors or PyTorch file.

    Pickles are opened with `weights_only=True`, so that no code of the file runs. A `{"model": ...}` wrapper and
    `module.` prefixes are removed.

    Returns:
        The tensors by published name, and the text metadata of the file.

    Raises:
        InputError: The file is missing, unreadable or not a checkpoint.
    """
    if not path.is_file():
        raise InputError(
            "no such weights file",
            subject=path,
            remedy="Give a .pth or .safetensors file, or 'tiny' or 'nano'",
        )
    metadata: dict[str, str] = {}
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
                loaded: Any = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"not a readable safetensors file ({first_line(error, 160)})", subject=path
            ) from error
    else:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=None)
        except Exception as error:  # damaged pickles raise various types: IndexError, struct.error, ...
            raise InputError(
                f"not a readable PyTorch checkpoint of plain tensors ({first_line(error, 160)})", subject=path
            ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("model"), Mapping):
        loaded = loaded["model"]
    if not isinstance(loaded, Mapping):
        raise InputError(f"holds a {type(loaded).__name__}; expected a dictionary of tensors", subject=path)
    state = {
        str(key).removeprefix("module."): value for key, value in loaded.items() if isinstance(value, Tensor)
    }
    if not state:
        raise InputError("holds no tensors; expected a TC-MoA checkpoint or an MAE backbone", subject=path)
    return state, metadata


def _long_axes(tensor: Tensor) -> list[int]:
    """Return the shape without axes of length 1, which files may or may not contain."""
    return [length for length in tensor.shape if length > 1]


def _is_backbone(state: Mapping[str, Tensor]) -> bool:
    """Return whether these are the tensors of an MAE, without any that adapt it."""
    return not any(_ADAPTED.search(key) for key in state)


def _complete(state: dict[str, Tensor], model: TCMoA, source: str, *, warn: bool = True) -> dict[str, Tensor]:
    """Fill in the tensors that a file may lack from `model`, with a warning; raises InputError for other faults."""
    state = {key: value for key, value in state.items() if not _IGNORED.search(key)}
    expected = to_published(model)
    if "cls_token" not in state:
        state["cls_token"] = expected["cls_token"]
    if _is_backbone(state):
        if warn:
            warnings.warn(
                f"{source}: an MAE backbone; routers, adapters, fusion and position biases are untrained",
                stacklevel=3,
            )
        state |= {key: value for key, value in expected.items() if _ADAPTED.search(key)}
    elif model.encoder.moas and not any(_SOURCE_EMBEDDING.search(key) for key in state):
        warnings.warn(
            f"{source}: no source embeddings (published files lack them); zeros are used", stacklevel=3
        )
        state |= {
            key: torch.zeros_like(value) for key, value in expected.items() if _SOURCE_EMBEDDING.search(key)
        }
    for key, table in (("pos_embed", model.pos_embed), ("decoder_pos_embed", model.decoder_pos_embed)):
        state.setdefault(key, sincos_positions(table.shape[-1], model.sizes.window))
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
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
        raise InputError(
            f"does not fit a {preset_name(model.sizes)} TC-MoA; {'; '.join(faults)}", subject=source
        )
    return {key: state[key].to(torch.float32).reshape(value.shape) for key, value in expected.items()}


def bundled_weights(name: str = "tiny") -> Path:
    """Return the path of weights that are included in the package; the file may not exist."""
    return Path(str(resources.files("tcmoa") / "weights_data" / f"{name}.safetensors"))


def load_weights(path: str | os.PathLike[str], *, upsample: bool = True) -> TCMoA:
    """Load weights into a model in eval mode; the sizes are inferred from the file.

    Values are converted to float32. Missing source embeddings become zeros, with a warning.

    Args:
        path: A published checkpoint or an MAE backbone (.pth), a safetensors file written by `save_weights`, or `tiny`
            or `nano` for the weights in the package.
        upsample: Resize images x2 before patch embedding, as published.

    Raises:
        InputError: The file is missing or unreadable, or tensors are missing, unexpected or misshapen.
    """
    file = bundled_weights(str(path)) if str(path) in PRESETS and not Path(path).is_file() else Path(path)
    if str(path) in PRESETS and file.parent.name == "weights_data" and not file.is_file():
        raise InputError(
            f"no weights of '{path}' are included in this package",
            remedy="Give a checkpoint file, or 'tiny' or 'nano'",
        )
    state, metadata = read_state(file)
    sizes = _stored_sizes(metadata, str(file)) or infer_sizes(state, str(file))
    model = TCMoA(sizes, upsample=upsample)
    model.load_state_dict(from_published(_complete(state, model, str(file)), model))
    return model.eval()


def load_start(
    path: str | os.PathLike[str], changes: Mapping[str, object], *, backbone: Sizes | None = None
) -> tuple[TCMoA, bool]:
    """Load a model to train from a weights file.

    Parameters that the file lacks are drawn from torch's generator.

    Args:
        path: The file.
        changes: Sizes of the configuration, by field of `Sizes`. They apply to what is added to an MAE backbone; the
            file of a TC-MoA must have them already.
        backbone: Accept only an MAE backbone of these sizes.

    Returns:
        The model, and whether the file was an MAE backbone.

    Raises:
        InputError: As `load_weights`; or the file is not a backbone, or the sizes do not fit it.
    """
    file = Path(path)
    state, metadata = read_state(file)
    fresh = _is_backbone(state)
    if backbone is not None and not fresh:
        raise InputError(
            "a TC-MoA; expected an MAE backbone", subject=file, remedy="Write start without 'mae:'"
        )
    sizes = backbone or _stored_sizes(metadata, str(file)) or infer_sizes(state, str(file))
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
    model = TCMoA(sizes)
    model.load_state_dict(from_published(_complete(state, model, str(file), warn=not fresh), model))
    return model, fresh


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
    handle, partial = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    try:
        save_file(state, partial, metadata=metadata)
        Path(partial).chmod(0o644)
        Path(partial).replace(target)
    finally:
        Path(partial).unlink(missing_ok=True)


def weights_hash(model: TCMoA) -> str:
    """Return the SHA-256 of the names, shapes and float32 bytes of all parameters."""
    digest = hashlib.sha256()
    for key, value in sorted(to_published(model).items()):
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
