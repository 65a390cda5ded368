"""A training run's configuration, read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tcmoa.layouts import Source, as_source
from tcmoa.losses import PUBLISHED, REGULARISER, REGULARISER_WEIGHT, TERMS
from tcmoa.mixed_precision import AMP
from tcmoa.model import ROUNDINGS
from tcmoa.presets import ADAPTATIONS, PRESETS, TC_MOA, Sizes
from tcmoa.processes import DEVICES
from tcmoa.start import FUSIONS
from tcmoa_runtime.contract import TASKS
from tcmoa_runtime.errors import InputError

MAE_PREFIX = "mae:"
"""In front of a file in `start`: the file must be an MAE backbone."""
GROW_PREFIX = "grow:"
"""In front of a file in `start`: the file holds a smaller model, of which the preset's is grown (`tcmoa.grow`)."""

_MERGED = ("pairs", "samples", "sizes", "losses", "steps")
"""Tables of which a file that extends another gives some entries only."""


@dataclass(frozen=True)
class Phase:
    """A stretch of the run with one crop size (pixels) and batch size, up to the share `until` of all rounds.

    `batch` is the number of pairs of a step, in all processes together.
    """

    until: float
    crop: int
    batch: int


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run; see `configs/tiny.toml` for their use.

    A round is one step per task in turn, or as many steps of a task as `steps` says. `start` is `fusion` or
    `fusion-held` (see `tcmoa.start`), `random`, a weights file, `mae:FILE` for a file that must be an MAE backbone
    of the preset's size, or `grow:FILE` for a smaller model of which the preset's is to be grown (see
    `tcmoa.grow`). A task's `pairs` are a folder of any layout of `tcmoa.layouts`, or places with their layouts;
    `tasks` trains some of the tasks only.
    `losses` gives weights of `tcmoa.losses.TERMS`, and of the regulariser `prompts`, by task, where they are not to be
    the published ones. `configs/tiny-seams.toml` uses these.
    `moa_lr_factor` multiplies the rate of what is not the backbone's, `prompt_lr_factor` that of routers, adapters and
    what they read; 0 leaves them at `moa_lr_factor`.
    `train_for` is the lowest precision that the weights are to be deployed in (see `TCMoA.train_for`).
    `sizes` and `adaptation` change the preset (see `tcmoa.presets.Sizes`): the paper's variants. `amp` is the type of
    the backbone's products while training, `device` one of `auto`, `cpu` and `cuda`. `tensorboard` writes event files.
    """

    pairs: dict[str, Path | tuple[Source, ...]]
    preset: str = "tiny"
    start: str = "fusion"
    freeze_backbone: bool = False
    train_for: str = "fp32"
    out: Path = Path("runs/tiny")
    seed: int = 0
    rounds: int = 1000
    steps: dict[str, int] = field(default_factory=dict)
    warmup_rounds: int = 30
    averaging_rounds: int = 0
    phases: tuple[Phase, ...] = (Phase(1.0, 112, 5),)
    synthetic: float = 0.3
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
    adaptation: str = TC_MOA
    amp: str = "none"
    device: str = "auto"
    tensorboard: bool = False

    @property
    def trained_pairs(self) -> dict[str, Path | tuple[Source, ...]]:
        """The pairs of the tasks that are trained: all that are given, or those of `tasks`."""
        return {task: place for task, place in self.pairs.items() if not self.tasks or task in self.tasks}

    @property
    def size_changes(self) -> dict[str, Any]:
        """What this run wants of the model's `Sizes`, by field."""
        return {**self.sizes, "adaptation": self.adaptation}

    def image_losses(self, task: str) -> Mapping[str, float]:
        """Weights of `tcmoa.losses.TERMS` after the averaging rounds: the run's own, or the published ones."""
        own = {name: weight for name, weight in self.losses.get(task, {}).items() if name != REGULARISER}
        return own or PUBLISHED[task]

    def task_steps(self, task: str) -> int:
        """Steps of a task in a round."""
        return self.steps.get(task, 1)

    def regulariser_weight(self, task: str) -> float:
        """The prompt regulariser's weight in every round: the run's own, or the published one."""
        return self.losses.get(task, {}).get(REGULARISER, REGULARISER_WEIGHT[task])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for notes and comparison."""
        return {k: _plain(v) for k, v in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _of_kind(path: Path, key: str, value: Any, default: Any) -> Any:
    expected = float if isinstance(default, float) else type(default)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise InputError(f"{path}: '{key}' is {value!r}, expected a value of type {expected.__name__}")
    return value


def read_config(path: Path) -> TrainConfig:
    """Read and check a TOML file; relative paths in it are taken from the file's folder.

    With `extends = "OTHER.toml"` a file is its difference to another: its keys replace that one's, and the tables
    [pairs], [samples], [sizes], [losses] and [steps] are merged entry by entry.
    Raises InputError naming the key that is unknown, missing, of the wrong type or out of range.
    """
    values = _read_values(path, ())
    if not values.get("pairs"):
        raise InputError(
            f"{path}: the table [pairs] is missing; expected a folder for each of {', '.join(TASKS)}"
        )
    config = TrainConfig(**values)
    for key, good, wanted in (
        ("preset", config.preset in PRESETS, f"one of {', '.join(PRESETS)}"),
        ("train_for", config.train_for in ROUNDINGS, f"one of {', '.join(ROUNDINGS)}"),
        (
            "tasks",
            set(config.tasks) <= config.pairs.keys(),
            f"some of {', '.join(config.pairs)} as [pairs] has them",
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
        ("checkpoint_every", config.checkpoint_every > 0, "a positive number"),
        ("sample_every", config.sample_every > 0, "a positive number"),
    ):
        if not good:
            raise InputError(f"{path}: '{key}' is {getattr(config, key)!r}, expected {wanted}")
    return config


def _read_values(path: Path, extending: tuple[Path, ...]) -> dict[str, Any]:
    """Values by key of a file and of those it extends, of the right types but not checked against each other."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    here = path.parent
    known = [f.name for f in fields(TrainConfig)]
    values: dict[str, Any] = {}
    if "extends" in raw:
        other = here / _of_kind(path, "extends", raw.pop("extends"), "")
        if other.resolve() in (path.resolve(), *extending):
            raise InputError(f"{path}: 'extends' leads back to {other}")
        values = _read_values(other, (path.resolve(), *extending))
    defaults = TrainConfig(pairs={})
    for key, value in raw.items():
        if key not in known:
            raise InputError(
                f"{path}: unknown key {key!r}; known are {', '.join(sorted((*known, 'extends')))}"
            )
        if key == "pairs":
            parsed: Any = _pairs(path, value, here)
        elif key == "samples":
            parsed = _folders(path, key, value, here)
        elif key == "losses":
            parsed = _losses(path, value)
        elif key == "steps":
            parsed = _steps(path, value)
        elif key == "sizes":
            parsed = _sizes(path, value)
        elif key == "tasks":
            parsed = _tasks(path, value)
        elif key == "phases":
            parsed = _phases(path, value)
        elif key == "out":
            parsed = here / _of_kind(path, key, value, "")
        elif key == "start":
            parsed = _start(_of_kind(path, key, value, ""), here)
        elif key == "betas":
            if not isinstance(value, list) or len(value) != 2:
                raise InputError(f"{path}: 'betas' is {value!r}, expected two numbers")
            parsed = tuple(_of_kind(path, key, beta, 0.0) for beta in value)
        else:
            parsed = _of_kind(path, key, value, getattr(defaults, key))
        values[key] = {**values.get(key, {}), **parsed} if key in _MERGED else parsed
    return values


def _start(value: str, here: Path) -> str:
    if value in (*FUSIONS, "random"):
        return value
    prefix = next((p for p in (MAE_PREFIX, GROW_PREFIX) if value.startswith(p)), "")
    return f"{prefix}{here / value.removeprefix(prefix)}"


def _pairs(path: Path, value: Any, here: Path) -> dict[str, Path | tuple[Source, ...]]:
    if not isinstance(value, dict) or any(task not in TASKS for task in value):
        raise InputError(f"{path}: [pairs] is {value!r}, expected folders for {', '.join(TASKS)}")
    found: dict[str, Path | tuple[Source, ...]] = {}
    for task, places in value.items():
        if isinstance(places, str):
            found[task] = here / places
            continue
        try:
            sources = tuple(
                as_source(place, here) for place in (places if isinstance(places, list) else [places])
            )
        except ValueError as error:
            raise InputError(
                f"{path}: [pairs] is not readable for {task}: {error}; expected a folder, "
                f"{{ path = ..., layout = ... }}, {{ x = ..., y = ... }} or a list of these"
            ) from error
        if not sources:
            raise InputError(f"{path}: [pairs] is an empty list for {task}, expected a folder or more")
        found[task] = sources
    return found


def _sizes(path: Path, value: Any) -> dict[str, int]:
    known = [f.name for f in fields(Sizes) if f.name not in ("tasks", "adaptation")]
    if not isinstance(value, dict):
        raise InputError(f"{path}: [sizes] is {value!r}, expected a table of numbers")
    for name, number in value.items():
        if name not in known:
            raise InputError(f"{path}: [sizes] names {name!r}; known are {', '.join(sorted(known))}")
        _of_kind(path, f"sizes.{name}", number, 0)
    return dict(value)


def _steps(path: Path, value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or any(task not in TASKS for task in value):
        raise InputError(f"{path}: [steps] is {value!r}, expected a table of numbers for {', '.join(TASKS)}")
    for task, number in value.items():
        if _of_kind(path, f"steps.{task}", number, 0) < 1:
            raise InputError(f"{path}: 'steps.{task}' is {number!r}, expected 1 or more")
    return dict(value)


def _tasks(path: Path, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or any(task not in TASKS for task in value):
        raise InputError(f"{path}: 'tasks' is {value!r}, expected a list of some of {', '.join(TASKS)}")
    return tuple(task for task in TASKS if task in value)


def _folders(path: Path, key: str, value: Any, here: Path) -> dict[str, Path]:
    if not isinstance(value, dict) or any(t not in TASKS or not isinstance(v, str) for t, v in value.items()):
        raise InputError(f"{path}: [{key}] is {value!r}, expected folders for {', '.join(TASKS)}")
    return {task: here / folder for task, folder in value.items()}


def _losses(path: Path, value: Any) -> dict[str, dict[str, float]]:
    if not isinstance(value, dict) or any(
        task not in TASKS or not isinstance(terms, dict) or not terms for task, terms in value.items()
    ):
        raise InputError(f"{path}: [losses] is {value!r}, expected a table of weights for {', '.join(TASKS)}")
    known = (*TERMS, REGULARISER)
    for task, terms in value.items():
        for name, weight in terms.items():
            if name not in known:
                raise InputError(
                    f"{path}: [losses.{task}] names {name!r}; known are {', '.join(sorted(known))}"
                )
            if _of_kind(path, f"losses.{task}.{name}", weight, 0.0) < 0:
                raise InputError(f"{path}: 'losses.{task}.{name}' is {weight!r}, expected 0 or more")
    return {task: {name: float(weight) for name, weight in terms.items()} for task, terms in value.items()}


def _phases(path: Path, value: Any) -> tuple[Phase, ...]:
    try:
        phases = tuple(Phase(float(p["until"]), int(p["crop"]), int(p["batch"])) for p in value)
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{path}: 'phases' is {value!r}, expected tables with until, crop, batch") from error
    ends = [phase.until for phase in phases]
    if (
        not phases
        or ends != sorted(ends)
        or ends[-1] != 1.0
        or any(p.crop < 16 or p.batch < 1 for p in phases)
    ):
        raise InputError(f"{path}: 'phases' must have rising 'until' ending in 1.0, positive crop and batch")
    return phases
