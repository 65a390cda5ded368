"""A training run's configuration, read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from tcmoa.dataset_layouts import PairSource, parse_pair_source
from tcmoa.losses import PUBLISHED, REGULARIZER, REGULARIZER_WEIGHT, TERMS
from tcmoa.mixed_precision import AMP, AmpType
from tcmoa.model import ROUNDINGS
from tcmoa.presets import ADAPTATIONS, PRESETS, TC_MOA, Adaptation, Sizes
from tcmoa.processes import DEVICES, DeviceChoice
from tcmoa.start import FUSIONS
from tcmoa.teachers import TEACHER_TERMS
from tcmoa_runtime.contract import TASKS, Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.regular_file import MAX_SMALL_BYTES, read_regular_file
from tcmoa_runtime.typing import JsonObject, JsonValue, Precision

MAE_PREFIX = "mae:"
"""Prefix of a file in `start`: the file must be an MAE backbone."""
GROW_PREFIX = "grow:"
"""Prefix of a file in `start`: the preset's model is grown from the smaller model in the file (see `tcmoa.grow`)."""

MAX_NUMBER = 1e12
"""Largest value of a key: a number beyond it is an error of writing."""
MAX_CROP_PX = 8192
MAX_BATCH = 65536

_MERGED = ("pairs", "samples", "sizes", "losses", "steps", "teachers")
"""Tables that are merged entry by entry with those of the extended file."""


@dataclass(frozen=True)
class Phase:
    """A part of the run with one crop size and batch size.

    Attributes:
        until: End of the phase, as a share of all rounds.
        crop: Side of the crops in pixels.
        batch: Pairs per step, in all processes together.
    """

    until: float
    crop: int
    batch: int


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run. `configs/tiny.toml` and `configs/base.toml` are examples.

    A round is `steps` steps of each task in turn.

    Attributes:
        pairs: Pairs of each task: a folder of any layout of `tcmoa.dataset_layouts`, or sources with their layouts.
        preset: Name of the model's sizes.
        start: Initial weights. `fusion` or `fusion-held` (see `tcmoa.start`), `random`, a weights file, `mae:FILE` for
            an MAE backbone of the preset's size, or `grow:FILE` for a smaller model that is grown to the preset's sizes
            (see `tcmoa.grow`).
        freeze_backbone: Train only what adapts the backbone.
        train_for: Lowest precision in which the weights will be deployed (see `TCMoA.train_for`).
        out: Folder of the run.
        seed: Seed of all random numbers.
        rounds: Length of the run.
        steps: Steps per round by task; 1 by default.
        warmup_rounds: Rounds in which the learning rate rises.
        averaging_rounds: First rounds, with the losses `tcmoa.losses.WARMUP` and those of teachers.
        phases: Crop and batch sizes over the run.
        synthetic: Share of the pairs of mef and mff that are made from single photographs.
        tones: Share of the pairs of vif whose tones are changed (see `tcmoa.data.Augmentation`).
        exchanges: Share of the pairs of mef and mff whose sources are exchanged.
        twins: Share of the steps in which both halves of a batch show the same crops with independent noise, whose
            results must not flicker (see `tcmoa.twins`). It has no effect on batches of one.
        steering: Share of the steps with a random number added to the prompts, in which the target is as much nearer to
            one source. It has no effect without a teacher.
        teachers: Names of fusion rules by task, whose pictures are imitated (see `tcmoa.teachers`).
        lr: Peak learning rate.
        min_lr: Final learning rate.
        moa_lr_factor: Factor of the learning rate of all parameters outside the backbone.
        prompt_lr_factor: Factor of the learning rate of routers, adapters and the layers before them; 0 uses
            `moa_lr_factor`.
        weight_decay: Weight decay of AdamW.
        betas: Decay rates of AdamW's moments.
        clip: Maximum norm of all gradients.
        balance: Weight of the load-balancing loss.
        ema: Decay of the averaged weights.
        checkpoint_every: Rounds between checkpoints.
        sample_every: Rounds between contact sheets.
        samples: Folders of pairs for contact sheets, by task.
        losses: Weights of `tcmoa.losses.TERMS` and of the regularizer `prompts`, by task, that replace the published
            ones. A task with a teacher has none of the published ones; its weights of
            `tcmoa.teachers.TEACHER_TERMS` can be set here too.
        threads: CPU threads; 0 leaves PyTorch's default.
        tasks: Tasks to train; all of `pairs` if empty.
        sizes: Changes to the preset's sizes (see `tcmoa.presets.Sizes`).
        adaptation: One of `tcmoa.presets.ADAPTATIONS`.
        amp: Type of the matrix products in the blocks during training: `none` (float32), `bf16` or `fp16`.
        device: `auto`, `cpu` or `cuda`.
        tensorboard: Write event files for TensorBoard.
    """

    pairs: dict[str, Path | tuple[PairSource, ...]]
    preset: str = "tiny"
    start: str = "fusion"
    freeze_backbone: bool = False
    train_for: Precision = "fp32"
    out: Path = Path("runs/tiny")
    seed: int = 0
    rounds: int = 1000
    steps: dict[str, int] = field(default_factory=dict)
    warmup_rounds: int = 30
    averaging_rounds: int = 0
    phases: tuple[Phase, ...] = (Phase(1.0, 112, 5),)
    synthetic: float = 0.3
    tones: float = 0.0
    exchanges: float = 0.0
    twins: float = 0.0
    steering: float = 0.0
    teachers: dict[str, str] = field(default_factory=dict)
    lr: float = 2.5e-4
    min_lr: float = 1e-5
    moa_lr_factor: float = 1.0
    prompt_lr_factor: float = 0.0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    balance: float = 1e-3
    ema: float = 0.99
    checkpoint_every: int = 50
    sample_every: int = 100
    samples: dict[str, Path] = field(default_factory=dict)
    losses: dict[str, dict[str, float]] = field(default_factory=dict)
    threads: int = 0
    tasks: tuple[str, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    adaptation: Adaptation = TC_MOA
    amp: AmpType = "none"
    device: DeviceChoice = "auto"
    tensorboard: bool = False

    @property
    def trained_pairs(self) -> dict[str, Path | tuple[PairSource, ...]]:
        """The pairs of the tasks that are trained."""
        return {task: source for task, source in self.pairs.items() if not self.tasks or task in self.tasks}

    @property
    def only_task(self) -> Task | None:
        """The task that is trained if there is only one."""
        trained = [task for task in TASKS if task in self.trained_pairs]
        return trained[0] if len(trained) == 1 else None

    @property
    def size_changes(self) -> dict[str, object]:
        """Changes to the preset's sizes, by field of `Sizes`."""
        return {**self.sizes, "adaptation": self.adaptation}

    def image_losses(self, task: str) -> Mapping[str, float]:
        """Return the weights of `tcmoa.losses.TERMS` after the averaging rounds."""
        own = {name: weight for name, weight in self.losses.get(task, {}).items() if name in TERMS}
        return own if own or task in self.teachers else PUBLISHED[task]

    def teacher_losses(self, task: str) -> Mapping[str, float]:
        """Return the weights of the distances to the teacher's picture; empty without a teacher."""
        if task not in self.teachers:
            return {}
        own = self.losses.get(task, {})
        return {name: own.get(name, weight) for name, weight in TEACHER_TERMS.items()}

    def task_steps(self, task: str) -> int:
        """Return the number of steps of a task in a round."""
        return self.steps.get(task, 1)

    def regularizer_weight(self, task: str) -> float:
        """Return the weight of the prompt regularizer, which is the same in all rounds."""
        return self.losses.get(task, {}).get(REGULARIZER, REGULARIZER_WEIGHT[task])

    def to_dict(self) -> JsonObject:
        """Return the values by field name, for JSON."""
        return {k: _to_json(v) for k, v in asdict(self).items()}


def _to_json(value: Any) -> JsonValue:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {k: _to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(v) for v in value]
    return cast("JsonValue", value)


def _check_type(path: Path, key: str, value: Any, default: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and abs(value) > MAX_NUMBER:
        raise InputError(
            f"'{key}' is {_shorten(value)}; expected a number up to {MAX_NUMBER:.0e}", subject=path
        )
    expected = float if isinstance(default, float) else type(default)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise InputError(f"'{key}' is {value!r}; expected a value of type {expected.__name__}", subject=path)
    return value


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"


def read_config(path: Path) -> TrainConfig:
    """Read and check a configuration from a TOML file; relative paths start at the file's folder.

    With `extends = "OTHER.toml"` the file contains only differences from another file: its keys replace those of the
    other one, and the tables [pairs], [samples], [sizes], [losses], [steps] and [teachers] are merged entry by entry.

    Raises:
        InputError: A key is unknown, missing, of the wrong type or out of range.
    """
    values = _read_toml(path, ())
    if not values.get("pairs"):
        raise InputError(
            f"the table [pairs] is missing; expected a folder for each of {', '.join(TASKS)}", subject=path
        )
    config = TrainConfig(**values)
    for key, is_valid, expected in (
        ("preset", config.preset in PRESETS, f"one of {', '.join(PRESETS)}"),
        ("train_for", config.train_for in ROUNDINGS, f"one of {', '.join(ROUNDINGS)}"),
        (
            "tasks",
            set(config.tasks) <= config.pairs.keys(),
            f"some of {', '.join(config.pairs)}, the tasks of [pairs]",
        ),
        ("adaptation", config.adaptation in ADAPTATIONS, f"one of {', '.join(ADAPTATIONS)}"),
        (
            "freeze_backbone",
            config.freeze_backbone or config.adaptation == TC_MOA,
            "true for this 'adaptation'",
        ),
        ("amp", config.amp in AMP, f"one of {', '.join(AMP)}"),
        ("device", config.device in DEVICES, f"one of {', '.join(DEVICES)}"),
        ("rounds", config.rounds > 0, "a positive number"),
        ("seed", config.seed >= 0, "0 or more"),
        ("lr", config.lr > 0, "a positive number"),
        ("moa_lr_factor", config.moa_lr_factor >= 0, "0 or more"),
        ("prompt_lr_factor", config.prompt_lr_factor >= 0, "0 or more"),
        ("weight_decay", config.weight_decay >= 0, "0 or more"),
        ("betas", all(0 <= beta < 1 for beta in config.betas), "two numbers from 0 to below 1"),
        ("threads", config.threads >= 0, "0 or more"),
        ("ema", 0 <= config.ema < 1, "0 to below 1"),
        ("synthetic", 0 <= config.synthetic <= 1, "0 to 1"),
        ("tones", 0 <= config.tones <= 1, "0 to 1"),
        ("exchanges", 0 <= config.exchanges <= 1, "0 to 1"),
        ("twins", 0 <= config.twins <= 1, "0 to 1"),
        ("steering", 0 <= config.steering <= 1, "0 to 1"),
        ("checkpoint_every", config.checkpoint_every > 0, "a positive number"),
        ("sample_every", config.sample_every > 0, "a positive number"),
    ):
        if not is_valid:
            raise InputError(f"'{key}' is {getattr(config, key)!r}; expected {expected}", subject=path)
    for task, terms in config.losses.items():
        for name in TEACHER_TERMS:
            if name in terms and task not in config.teachers:
                raise InputError(
                    f"'losses.{task}.{name}' without a teacher; expected {task} in the table [teachers]",
                    subject=path,
                )
    return config


def _read_toml(path: Path, extending: tuple[Path, ...]) -> dict[str, Any]:
    """Read the values of a file and of those it extends; checks their types, not their relations."""
    try:
        raw = tomllib.loads(read_regular_file(path, max_bytes=MAX_SMALL_BYTES, follow_links=True).decode())
    except RecursionError as error:
        raise InputError("nested too deeply; expected a configuration", subject=path) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", subject=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not valid TOML: {error}", subject=path) from error
    base = path.parent
    known = [f.name for f in fields(TrainConfig)]
    values: dict[str, Any] = {}
    if "extends" in raw:
        other = base / _check_type(path, "extends", raw.pop("extends"), "")
        if other.resolve() in (path.resolve(), *extending):
            raise InputError(f"'extends' forms a cycle through {other}", subject=path)
        values = _read_toml(other, (path.resolve(), *extending))
    defaults = TrainConfig(pairs={})
    for key, value in raw.items():
        if key not in known:
            raise InputError(
                f"unknown key {key!r}; expected one of {', '.join(sorted((*known, 'extends')))}", subject=path
            )
        if key == "pairs":
            parsed: Any = _parse_pairs(path, value, base)
        elif key == "samples":
            parsed = _parse_folders(path, key, value, base)
        elif key == "losses":
            parsed = _parse_losses(path, value)
        elif key == "teachers":
            parsed = _parse_teachers(path, value)
        elif key == "steps":
            parsed = _parse_steps(path, value)
        elif key == "sizes":
            parsed = _parse_sizes(path, value)
        elif key == "tasks":
            parsed = _parse_tasks(path, value)
        elif key == "phases":
            parsed = _parse_phases(path, value)
        elif key == "out":
            parsed = base / _check_type(path, key, value, "")
        elif key == "start":
            parsed = _parse_start(_check_type(path, key, value, ""), base)
        elif key == "betas":
            if not isinstance(value, list) or len(value) != 2:
                raise InputError(f"'betas' is {value!r}; expected two numbers", subject=path)
            parsed = tuple(_check_type(path, key, beta, 0.0) for beta in value)
        else:
            parsed = _check_type(path, key, value, getattr(defaults, key))
        values[key] = {**values.get(key, {}), **parsed} if key in _MERGED else parsed
    return values


def _parse_start(value: str, base: Path) -> str:
    if value in (*FUSIONS, "random"):
        return value
    prefix = next((p for p in (MAE_PREFIX, GROW_PREFIX) if value.startswith(p)), "")
    return f"{prefix}{base / value.removeprefix(prefix)}"


def _parse_pairs(path: Path, value: Any, base: Path) -> dict[str, Path | tuple[PairSource, ...]]:
    if not isinstance(value, dict) or any(task not in TASKS for task in value):
        raise InputError(f"[pairs] is {value!r}; expected folders for {', '.join(TASKS)}", subject=path)
    parsed: dict[str, Path | tuple[PairSource, ...]] = {}
    for task, entries in value.items():
        if isinstance(entries, str):
            parsed[task] = base / entries
            continue
        try:
            sources = tuple(
                parse_pair_source(entry, base)
                for entry in (entries if isinstance(entries, list) else [entries])
            )
        except InputError as error:
            raise InputError(
                f"[pairs] of {task}: {error.render_problem()}",
                subject=path,
                remedy="Write a folder, { path = ..., layout = ... }, { x = ..., y = ... }, or a list of these",
            ) from error
        if not sources:
            raise InputError(
                f"[pairs] of {task} is an empty list; expected one or more folders", subject=path
            )
        parsed[task] = sources
    return parsed


def _parse_sizes(path: Path, value: Any) -> dict[str, int]:
    known = [f.name for f in fields(Sizes) if f.name not in ("tasks", "adaptation", "output")]
    if not isinstance(value, dict):
        raise InputError(f"[sizes] is {value!r}; expected a table of numbers", subject=path)
    for name, number in value.items():
        if name not in known:
            raise InputError(
                f"unknown key {name!r} in [sizes]; expected one of {', '.join(sorted(known))}", subject=path
            )
        _check_type(path, f"sizes.{name}", number, 0)
    return dict(value)


def _parse_teachers(path: Path, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or any(task not in TASKS for task in value):
        raise InputError(
            f"[teachers] is {value!r}; expected a table of names for {', '.join(TASKS)}", subject=path
        )
    return {task: str(_check_type(path, f"teachers.{task}", name, "")) for task, name in value.items()}


def _parse_steps(path: Path, value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or any(task not in TASKS for task in value):
        raise InputError(
            f"[steps] is {value!r}; expected a table of numbers for {', '.join(TASKS)}", subject=path
        )
    for task, number in value.items():
        if _check_type(path, f"steps.{task}", number, 0) < 1:
            raise InputError(f"'steps.{task}' is {number!r}; expected 1 or more", subject=path)
    return dict(value)


def _parse_tasks(path: Path, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or any(task not in TASKS for task in value):
        raise InputError(f"'tasks' is {value!r}; expected a list of some of {', '.join(TASKS)}", subject=path)
    return tuple(task for task in TASKS if task in value)


def _parse_folders(path: Path, key: str, value: Any, base: Path) -> dict[str, Path]:
    if not isinstance(value, dict) or any(t not in TASKS or not isinstance(v, str) for t, v in value.items()):
        raise InputError(f"[{key}] is {value!r}; expected folders for {', '.join(TASKS)}", subject=path)
    return {task: base / folder for task, folder in value.items()}


def _parse_losses(path: Path, value: Any) -> dict[str, dict[str, float]]:
    if not isinstance(value, dict) or any(
        task not in TASKS or not isinstance(terms, dict) or not terms for task, terms in value.items()
    ):
        raise InputError(
            f"[losses] is {value!r}; expected a table of weights for {', '.join(TASKS)}", subject=path
        )
    known = (*TERMS, *TEACHER_TERMS, REGULARIZER)
    for task, terms in value.items():
        for name, weight in terms.items():
            if name not in known:
                raise InputError(
                    f"unknown key {name!r} in [losses.{task}]; expected one of {', '.join(sorted(known))}",
                    subject=path,
                )
            if _check_type(path, f"losses.{task}.{name}", weight, 0.0) < 0:
                raise InputError(f"'losses.{task}.{name}' is {weight!r}; expected 0 or more", subject=path)
    return {task: {name: float(weight) for name, weight in terms.items()} for task, terms in value.items()}


def _parse_phases(path: Path, value: Any) -> tuple[Phase, ...]:
    try:
        phases = tuple(Phase(float(p["until"]), int(p["crop"]), int(p["batch"])) for p in value)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise InputError(
            f"'phases' is {_shorten(value)}; expected tables with until, crop, batch", subject=path
        ) from error
    ends = [phase.until for phase in phases]
    if (
        not phases
        or ends != sorted(ends)
        or ends[-1] != 1.0
        or not all(16 <= p.crop <= MAX_CROP_PX and 1 <= p.batch <= MAX_BATCH for p in phases)
    ):
        raise InputError(
            "'phases' is not in order; "
            "expected rising 'until' that end with 1.0, a crop of at least 16 and a batch of at least 1, "
            f"at most {MAX_CROP_PX} and {MAX_BATCH}",
            subject=path,
        )
    return phases
