"""The sizes of a model in a checkpoint: inferred from its tensors, and compared with those that the file states."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

from torch import Tensor

from tcmoa.checkpoint_files import SIZES_KEY
from tcmoa.checkpoint_names import ADAPTED, printable_name
from tcmoa.presets import IMAGE, PRESETS, TC_MOA, Sizes
from tcmoa_runtime.contract import TASKS, Task
from tcmoa_runtime.errors import InputError

MAX_WINDOW: Final = 64
"""Maximum side of a window in tokens; the index of a position bias has window**4 entries."""

_TAUS: Final = (4, 2, 6, 8, 12)
"""Values of tau that are inferred, the published one first."""


class UnnamedTaskError(InputError):
    """A checkpoint was trained for one task, and neither the file nor the caller names it."""


def is_backbone(state: Mapping[str, Tensor]) -> bool:
    """Return whether these are the tensors of an MAE, without any that adapt it."""
    return not any(ADAPTED.search(key) for key in state)


def choose_sizes(
    state: Mapping[str, Tensor], metadata: Mapping[str, str], source: str, task: Task | None = None
) -> Sizes:
    """Return the sizes that a file states if they agree with its tensors, or else those inferred from the tensors.

    Args:
        state: Tensors by published name.
        metadata: Text metadata of the file.
        source: The file, for messages.
        task: Task of a checkpoint that was trained for one, if the file does not name it.

    Raises:
        InputError: The stated sizes are unreadable or differ, or a tensor is missing or has an impossible shape.
    """
    if SIZES_KEY not in metadata or is_backbone(state):
        return infer_sizes(state, source, task)
    stored = _stored_sizes(metadata[SIZES_KEY], source)
    measured = _measure(state, source, has_moas=stored.adaptation == TC_MOA)
    stated = {**stored.to_dict(), "tasks": len(stored.tasks)}
    for name, value in measured.items():
        if stated[name] != value:
            raise InputError(
                f"its '{SIZES_KEY}' entry states {name} = {stated[name]}; expected {value} as in its tensors",
                subject=source,
                remedy="Remove the entry, or use the file that `save_weights` wrote",
            )
    return stored


def infer_sizes(state: Mapping[str, Tensor], source: str, task: Task | None = None) -> Sizes:
    """Infer the sizes of a model from the shapes of published tensors.

    The numbers of heads come from the position-bias tables. An MAE backbone has none; it uses ViT's 64 channels per
    head in the encoder and MAE's 32 in the decoder.

    Args:
        state: Tensors by published name.
        source: The file, for messages.
        task: Task of a checkpoint that was trained for one; it has no effect on others.

    Raises:
        UnnamedTaskError: The checkpoint was trained for one task, and `task` is None.
        InputError: A tensor is missing or has an impossible shape.
    """
    measured = _measure(state, source, has_moas=not is_backbone(state))
    values: dict[str, Any] = dict(measured)
    values.setdefault("num_heads", max(measured["embed_dim"] // 64, 1))
    values.setdefault("decoder_num_heads", max(measured["decoder_embed_dim"] // 32, 1))
    if "tasks" in measured:
        values["tasks"] = _task_names(measured["tasks"], source, task)
        values["top_k"] = min(Sizes.top_k, measured["experts"])
        moas = _count(state, "blocks_MoA", source)
        values["tau"] = next(
            (tau for tau in _TAUS if len(range(tau // 2 - 1, measured["depth"], tau)) == moas), 4
        )
    try:
        sizes = Sizes(**values)
    except InputError as error:
        raise InputError(f"not a supported TC-MoA: {error.render_problem()}", subject=source) from error
    # Tensors do not show what the image is for; the sizes of a preset that weighs the sources are its alone.
    return next((preset for preset in PRESETS.values() if replace(preset, output=IMAGE) == sizes), sizes)


def _task_names(count: int, source: str, task: Task | None) -> tuple[str, ...]:
    if count == len(TASKS):
        return TASKS
    if count != 1:
        raise InputError(
            f"{count} tasks in 'blocks_MoA.0.MoA.w_gate'; expected 3 ({', '.join(TASKS)}) or 1",
            subject=source,
        )
    if task is None:
        raise UnnamedTaskError(
            f"trained for one task, which the file does not name; expected one of {', '.join(TASKS)}",
            subject=source,
            remedy="Name the task, e.g. {task}",
            settings={"task": "vif"},
        )
    if task not in TASKS:
        raise InputError(f"{task!r}; expected one of {', '.join(TASKS)}", subject="task")
    return (task,)


def _count(state: Mapping[str, Tensor], prefix: str, source: str) -> int:
    """Return the number of modules `prefix`.0, `prefix`.1, ... in a state."""
    pattern = re.compile(rf"{prefix}\.(\d{{1,9}})\.")
    found = {int(match[1]) for key in state if (match := pattern.match(key))}
    missing = next((i for i in range(len(found)) if i not in found), None)
    if missing is not None:
        raise InputError(
            f"all tensors of '{prefix}.{missing}' are missing, but not those of '{prefix}.{max(found)}'",
            subject=source,
        )
    return len(found)


def _measure(state: Mapping[str, Tensor], source: str, *, has_moas: bool) -> dict[str, int]:
    """Return the sizes that the tensors determine, by field of `Sizes`; `tasks` is their number."""

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
    measured = {
        "embed_dim": dim,
        "depth": _count(state, "blocks", source),
        "decoder_embed_dim": shape("decoder_embed.weight", 2)[0],
        "decoder_depth": _count(state, "decoder_blocks", source),
        "patch_size": patch,
        "mlp_ratio": shape("blocks.0.mlp.fc1.weight", 2)[0] // dim,
    }
    if is_backbone(state):
        return measured
    table, measured["num_heads"] = shape("en_relative_position.0.relative_position_bias_table", 2)
    measured["decoder_num_heads"] = shape("de_relative_position.0.relative_position_bias_table", 2)[1]
    measured["window"] = (round(table**0.5) + 1) // 2
    if measured["window"] > MAX_WINDOW:
        raise InputError(
            f"windows of {measured['window']} tokens; expected at most {MAX_WINDOW}", subject=source
        )
    if has_moas:
        measured["tasks"], _, measured["experts"] = shape("blocks_MoA.0.MoA.w_gate", 3)
    return measured


def _stored_sizes(entry: str, source: str) -> Sizes:
    """Read the sizes that a file states."""
    try:
        values: dict[str, Any] = json.loads(entry)
        known = [f.name for f in fields(Sizes)]
        unknown = next((name for name in values if name not in known), None)
        values["tasks"] = tuple(values.get("tasks", TASKS))
        sizes = Sizes(**{name: value for name, value in values.items() if name in known})
    except InputError as error:
        raise InputError(
            f"its '{SIZES_KEY}' entry is not readable: {error.problem}", subject=source
        ) from error
    except (AttributeError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"its '{SIZES_KEY}' entry is not readable; expected a JSON object of sizes", subject=source
        ) from error
    if unknown is not None:
        # What a later version added may change what the tensors mean.
        raise InputError(
            f"its '{SIZES_KEY}' entry states '{printable_name(unknown)}'; expected {', '.join(known)}, which this "
            f"version knows",
            subject=source,
            remedy="Update tcmoa",
        )
    if not sizes.tasks or any(task not in TASKS for task in sizes.tasks):
        raise InputError(
            f"its '{SIZES_KEY}' entry has other tasks; expected some of {', '.join(TASKS)}", subject=source
        )
    return sizes
