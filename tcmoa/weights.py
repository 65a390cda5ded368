"""Reading and writing weights: published checkpoints, MAE backbones, our own safetensors.

Files use the published key names throughout; `published_name` is the one place that knows both spellings.
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
from torch import Tensor, nn

from tcmoa.model import TCMoA, sincos_positions
from tcmoa.presets import PRESETS, Sizes, preset_name
from tcmoa_runtime.errors import InputError

SIZES_KEY = "tcmoa.sizes"
"""Key of the sizes, as JSON, in the metadata of our safetensors files."""

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

# In published files and of no use here: the index is derived, mean and std are the constants 0 and 1 of a
# normal distribution, the mask token is MAE's.
_IGNORED = re.compile(r"relative_position_index$|\.MoA\.(mean|std)$|^mask_token$")
_ADAPTED = re.compile(r"(_MoA\.|FusionLayer\.|relative_position\.|^Alpha_|\.adapter\.)")
_SOURCE_EMBEDDING = re.compile(r"\.modal_shifts\.\d+$")


def published_name(name: str) -> str:
    """The published spelling of a parameter of `TCMoA`; mixes and source embeddings are laid out anew elsewhere."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def to_published(model: TCMoA) -> dict[str, Tensor]:
    """The model's parameters under their published names, source embeddings and stacked mixes included."""
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


def mix_of(moa: nn.Module) -> Tensor:
    """The learned mix scalar a of a TC-MoA, detached."""
    mix = moa.mix
    assert isinstance(mix, Tensor)
    return mix.detach()


def from_published(state: Mapping[str, Tensor], model: TCMoA) -> dict[str, Tensor]:
    """`state` in published names, complete, as a state_dict for `model`."""
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
    """Sizes from the shapes of published tensors; `source` names the file in errors.

    Head counts come from the position-bias tables; an MAE backbone has none and uses ViT's 64 channels a head
    in the encoder and MAE's 32 in the decoder. Raises InputError naming the tensor that is missing or odd.
    """

    def shape(key: str, rank: int) -> tuple[int, ...]:
        if key not in state:
            raise InputError(
                f"{source}: tensor '{key}' is missing; expected a TC-MoA checkpoint or an MAE backbone"
            )
        if state[key].dim() != rank:
            raise InputError(
                f"{source}: tensor '{key}' has shape {tuple(state[key].shape)}, expected {rank} axes"
            )
        if 0 in state[key].shape:
            raise InputError(f"{source}: tensor '{key}' has shape {tuple(state[key].shape)}: it is empty")
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
                f"{source}: {tasks} tasks in 'blocks_MoA.0.MoA.w_gate', expected 3 (vif, mef, mff)"
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
    except ValueError as error:
        raise InputError(f"{source}: not a TC-MoA this code can hold: {error}") from error


def _stored_sizes(metadata: Mapping[str, str], source: str) -> Sizes | None:
    if SIZES_KEY not in metadata:
        return None
    try:
        values: dict[str, Any] = json.loads(metadata[SIZES_KEY])
        known = {f.name for f in fields(Sizes)}
        kept: dict[str, Any] = {k: v for k, v in values.items() if k in known}
        return Sizes(**kept | {"tasks": tuple(kept.get("tasks", Sizes.tasks))})
    except (AttributeError, ValueError, TypeError) as error:  # AttributeError: JSON, but no object
        raise InputError(f"{source}: its '{SIZES_KEY}' entry is not readable: {error}") from error


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by published name and the file's text metadata, from a .safetensors or a torch file.

    Pickles are opened with `weights_only=True`: no code of the file runs. A `{"model": ...}` wrapping and
    `module.` prefixes are removed. Raises InputError on a file that is missing, unreadable or no checkpoint.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such weights file; give a .pth or .safetensors file, or 'tiny' or 'nano'"
        )
    metadata: dict[str, str] = {}
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
                loaded: Any = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: not a readable safetensors file ({_first_line(error)})") from error
    else:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=None)
        except Exception as error:  # damaged pickles end in any of them: IndexError, struct.error, ...
            raise InputError(
                f"{path}: not a readable PyTorch checkpoint of plain tensors ({_first_line(error)})"
            ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("model"), Mapping):
        loaded = loaded["model"]
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path}: holds a {type(loaded).__name__}, expected a dictionary of tensors")
    state = {
        str(key).removeprefix("module."): value for key, value in loaded.items() if isinstance(value, Tensor)
    }
    if not state:
        raise InputError(f"{path}: holds no tensors, expected a TC-MoA checkpoint or an MAE backbone")
    return state, metadata


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__


def _long_axes(tensor: Tensor) -> list[int]:
    """The shape without axes of length 1, which files may hold or leave out."""
    return [length for length in tensor.shape if length > 1]


def _is_backbone(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of an MAE: nothing in them adapts it."""
    return not any(_ADAPTED.search(key) for key in state)


def _complete(state: dict[str, Tensor], model: TCMoA, source: str, *, warn: bool = True) -> dict[str, Tensor]:
    """`state` with what a file may lack filled in from `model`, each gap told in a warning; else InputError."""
    state = {key: value for key, value in state.items() if not _IGNORED.search(key)}
    expected = to_published(model)
    if "cls_token" not in state:
        state["cls_token"] = expected["cls_token"]
    if _is_backbone(state):
        if warn:
            warnings.warn(
                f"{source}: an MAE backbone; routers, adapters, fusion and position biases start untrained",
                stacklevel=3,
            )
        state |= {key: value for key, value in expected.items() if _ADAPTED.search(key)}
    elif model.encoder.moas and not any(_SOURCE_EMBEDDING.search(key) for key in state):
        warnings.warn(
            f"{source}: holds no source embeddings (published files never do); zeros are used", stacklevel=3
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
        raise InputError(f"{source}: does not fit a {preset_name(model.sizes)} TC-MoA; {'; '.join(faults)}")
    return {key: state[key].to(torch.float32).reshape(value.shape) for key, value in expected.items()}


def bundled_weights(name: str = "tiny") -> Path:
    """Path of the weights that ship in the package."""
    return Path(str(resources.files("tcmoa") / "weights_data" / f"{name}.safetensors"))


def load_weights(path: str | os.PathLike[str], *, upsample: bool = True) -> TCMoA:
    """Read weights into a model in eval mode, sizes inferred from the file.

    `path`: a published checkpoint or MAE backbone (.pth), our safetensors, or `tiny` or `nano` for the bundled weights.
    Values are converted to float32. Absent source embeddings become zeros, with a warning. Raises InputError
    on a file that is missing, unreadable, or names of tensors that are missing, unexpected or misshapen.
    """
    file = bundled_weights(str(path)) if str(path) in PRESETS and not Path(path).is_file() else Path(path)
    if str(path) in PRESETS and file.parent.name == "weights_data" and not file.is_file():
        raise InputError(
            f"no weights for '{path}' ship with this package; give a checkpoint file, or 'tiny' or 'nano'"
        )
    state, metadata = read_state(file)
    sizes = _stored_sizes(metadata, str(file)) or infer_sizes(state, str(file))
    model = TCMoA(sizes, upsample=upsample)
    model.load_state_dict(from_published(_complete(state, model, str(file)), model))
    return model.eval()


def load_start(
    path: str | os.PathLike[str], changes: Mapping[str, Any], *, backbone: Sizes | None = None
) -> tuple[TCMoA, bool]:
    """A model to train from a weights file, and whether the file was an MAE backbone, all else in the model fresh.

    `changes` are sizes that the configuration asks for, by field of `Sizes`: around an MAE backbone the rest is built
    so; the file of a TC-MoA has to have them. `backbone` takes an MAE backbone of those sizes only. Fresh parameters
    are drawn from torch's generator. Raises InputError as `load_weights` does, on a file that is not what was asked
    for, and on sizes that do not fit it.
    """
    file = Path(path)
    state, metadata = read_state(file)
    fresh = _is_backbone(state)
    if backbone is not None and not fresh:
        raise InputError(f"{file}: holds a TC-MoA, expected an MAE backbone; write start without 'mae:'")
    sizes = backbone or _stored_sizes(metadata, str(file)) or infer_sizes(state, str(file))
    different = {name: value for name, value in changes.items() if getattr(sizes, name) != value}
    if different and not fresh:
        name, value = next(iter(different.items()))
        raise InputError(
            f"{file}: was trained with {name} = {getattr(sizes, name)!r}, the configuration says {value!r}; "
            f"leave it out, or start from an MAE backbone"
        )
    try:
        sizes = replace(sizes, **different)
    except ValueError as error:
        raise InputError(f"{file}: [sizes] does not fit it: {error}") from error
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
    """Write the model as safetensors in published names; `notes` goes into the file's text metadata.

    The file is written beside its place and renamed, so that no half file is ever seen.
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
    """SHA-256 over names, shapes and float32 bytes of all parameters: the same weights give the same hash."""
    digest = hashlib.sha256()
    for key, value in sorted(to_published(model).items()):
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
