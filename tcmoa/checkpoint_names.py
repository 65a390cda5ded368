"""Names of tensors in checkpoints: the published ones, the authors' older ones, and those of `TCMoA`.

The published names are the common form. All others are translated into them, and files of this project use them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from tcmoa.model import TCMoA
from tcmoa_runtime.errors import InputError

WRAPPERS: Final = ("model", "state_dict", "model_state_dict")
"""Keys under which checkpoints hold a state dict."""

_PREFIXES: Final = frozenset({"module", "_orig_mod"})
"""Parts of names that `DataParallel` and `torch.compile` insert."""

_OWN_TO_PUBLISHED: Final = (
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
_OWN_MIX = re.compile(r"(encoder|decoder)\.moas\.(\d{1,6})\.mix")

_OLDER = re.compile(r"blocks_SSF_rgb|en_projAdapter|de_projAdapter")
_INSIDE_OLDER: Final = (
    ("mlp", "MoA"),
    ("SE_en_linear", "dimReduction"),
    ("SSF_beta", "modal_shifts"),
    ("blocks_SSF_rgb", "blocks_MoA"),
)
_GATE: Final = ".MoA.w_gate"

ADAPTED: Final = re.compile(r"(_MoA\.|FusionLayer\.|relative_position\.|^Alpha_|\.adapter\.)")
"""Published names of tensors that an MAE backbone does not have."""
SOURCE_EMBEDDING: Final = re.compile(r"\.modal_shifts\.\d+$")
"""Published names of source embeddings."""


def printable_name(name: str, max_characters: int = 80) -> str:
    """Return a name from a file for a message: without control characters, and cut at a maximum length."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return shown if len(shown) <= max_characters else f"{shown[: max_characters - 3]}..."


@dataclass(frozen=True)
class PublishedState:
    """The tensors of a checkpoint by published name.

    Attributes:
        tensors: The tensors.
        unread_embedding: Description of source embeddings in older names whose form is unknown; they are left out.
    """

    tensors: dict[str, Tensor]
    unread_embedding: str | None = None


def translate_names(state: Mapping[str, Tensor], source: str) -> PublishedState:
    """Translate the names of any checkpoint that is in circulation into the published ones.

    Args:
        state: Tensors by the names of the file: published, older, or those of `TCMoA`, with or without prefixes.
        source: The file, for messages.

    Raises:
        InputError: Two tensors have the same name.
    """
    plain = _renamed(state, _without_prefixes, source)
    if any(name.startswith("encoder.blocks.") for name in plain):
        return PublishedState(publish_own_names(plain))
    if any(_OLDER.search(name) for name in plain):
        return PublishedState(*_split_older_embeddings(_renamed(plain, _newer_name, source)))
    return PublishedState(plain)


def _renamed(state: Mapping[str, Tensor], rename: Callable[[str], str], source: str) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        new = rename(name)
        if new in renamed:
            raise InputError(
                f"two tensors are called '{printable_name(new)}', one of them as '{printable_name(name)}'; "
                "expected the tensors of one model",
                subject=source,
            )
        renamed[new] = value
    return renamed


def _without_prefixes(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _PREFIXES)


def _newer_name(name: str) -> str:
    """Translate a name of the authors' older files."""
    if "blocks_SSF" in name:  # the backbone has an `mlp` too, which keeps its name
        for old, new in _INSIDE_OLDER:
            name = name.replace(old, new)
    return name.replace("en_projAdapter", "FusionLayer").replace("de_projAdapter", "de_FusionLayer")


def _split_older_embeddings(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str | None]:
    """Split stacked source embeddings of an older file, whose names are translated already.

    They are read where they are 2 * tasks vectors [C], or one stack of them. Nobody has described their form in older
    files, so all are left out if one does not fit.

    Returns:
        The tensors, and a description of what does not fit.
    """
    others = {name: value for name, value in state.items() if "modal_shifts" not in name}
    gates = {
        name.removesuffix(_GATE): value
        for name, value in others.items()
        if name.endswith(_GATE) and value.dim() == 3
    }
    embeddings: dict[str, Tensor] = {}
    for name in state.keys() - others.keys():
        prefix, _, rest = name.partition(".modal_shifts")
        norm = others.get(f"{prefix}.norm1.weight")
        if prefix not in gates or norm is None:
            return others, _describe(name, state[name])
        rows = _embedding_rows(state[name], rest.removeprefix("."), len(gates[prefix]), norm.numel() // 2)
        if not rows:
            return others, _describe(name, state[name])
        embeddings |= {f"{prefix}.modal_shifts.{row}": vector for row, vector in rows.items()}
    expected = sum(2 * len(gate) for gate in gates.values())
    if len(embeddings) not in (0, expected):
        return others, f"{len(embeddings)} vectors; expected {expected}"
    return others | embeddings, None


def _describe(name: str, value: Tensor) -> str:
    return f"'{printable_name(name)}' is {tuple(value.shape)}"


def _embedding_rows(value: Tensor, rest: str, tasks: int, dim: int) -> dict[int, Tensor]:
    """Return the embeddings in `value` by row, 2 * task + source; none if it has another form."""
    if re.fullmatch(r"\d{1,3}", rest):
        return {int(rest): value.flatten()} if value.numel() == dim and int(rest) < 2 * tasks else {}
    axes = [length for length in value.shape if length > 1]
    if rest or axes not in ([2 * tasks, dim], [length for length in (tasks, 2, dim) if length > 1]):
        return {}
    return dict(enumerate(value.reshape(2 * tasks, dim)))


def published_name(name: str) -> str:
    """Return the published name of a parameter of `TCMoA`; mixes and source embeddings are arranged differently."""
    for pattern, replacement in _OWN_TO_PUBLISHED:
        name = re.sub(pattern, replacement, name)
    return name


def publish_own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a state dict of `TCMoA` by published name, with split embeddings and stacked mixes."""
    published: dict[str, Tensor] = {}
    mixes: dict[str, dict[int, Tensor]] = {}
    for name, value in state.items():
        match = _OWN_MIX.fullmatch(name)
        if name.endswith(".source_embedding") and value.dim() == 3:
            prefix = published_name(name).removesuffix("source_embedding") + "modal_shifts."
            for row, embedding in enumerate(value.flatten(0, 1)):  # row = 2 * task + source
                published[f"{prefix}{row}"] = embedding
        elif match and value.numel() == 1:
            mixes.setdefault(match[1], {})[int(match[2])] = value
        else:
            published[published_name(name)] = value
    for stage, values in mixes.items():
        published[f"Alpha_{stage}"] = torch.stack([values[k].detach().reshape(()) for k in sorted(values)])
    return published


def to_published(model: TCMoA) -> dict[str, Tensor]:
    """Return the model's parameters by published name, including source embeddings and stacked mixes."""
    return publish_own_names(model.state_dict())


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
