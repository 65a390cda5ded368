"""A training run's configuration, read from TOML."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tcmoa.model import ROUNDINGS
from tcmoa.presets import PRESETS
from tcmoa_runtime.contract import TASKS
from tcmoa_runtime.errors import InputError


@dataclass(frozen=True)
class Phase:
    """A stretch of the run with one crop size (pixels) and batch size, up to the share `until` of all rounds."""

    until: float
    crop: int
    batch: int


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run; see `configs/tiny.toml` for their use.

    A round is one step per task in turn. `start` is `fusion` (see `tcmoa.start`), `random`, or a weights file.
    `train_for` is the lowest precision that the weights are to be deployed in (see `TCMoA.train_for`).
    """

    pairs: dict[str, Path]
    preset: str = "tiny"
    start: str = "fusion"
    freeze_backbone: bool = False
    train_for: str = "fp32"
    out: Path = Path("runs/tiny")
    seed: int = 0
    rounds: int = 1000
    warmup_rounds: int = 30
    averaging_rounds: int = 0
    phases: tuple[Phase, ...] = (Phase(1.0, 112, 5),)
    synthetic: float = 0.3
    lr: float = 2.5e-4
    min_lr: float = 1e-5
    moa_lr_factor: float = 1.0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    balance: float = 1e-3
    ema: float = 0.99
    checkpoint_every: int = 50
    sample_every: int = 100
    samples: dict[str, Path] = field(default_factory=dict)
    threads: int = 0

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

    Raises InputError naming the key that is unknown, missing, of the wrong type or out of range.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    here = path.parent
    known = {f.name: f for f in fields(TrainConfig)}
    values: dict[str, Any] = {}
    defaults = TrainConfig(pairs={})
    for key, value in raw.items():
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r}; known are {', '.join(sorted(known))}")
        if key in ("pairs", "samples"):
            values[key] = _folders(path, key, value, here)
        elif key == "phases":
            values[key] = _phases(path, value)
        elif key == "out":
            values[key] = here / _of_kind(path, key, value, "")
        elif key == "betas":
            if not isinstance(value, list) or len(value) != 2:
                raise InputError(f"{path}: 'betas' is {value!r}, expected two numbers")
            values[key] = tuple(_of_kind(path, key, beta, 0.0) for beta in value)
        else:
            values[key] = _of_kind(path, key, value, getattr(defaults, key))
    if not values.get("pairs"):
        raise InputError(
            f"{path}: the table [pairs] is missing; expected a folder for each of {', '.join(TASKS)}"
        )
    config = TrainConfig(**values)
    for key, good, wanted in (
        ("preset", config.preset in PRESETS, f"one of {', '.join(PRESETS)}"),
        ("train_for", config.train_for in ROUNDINGS, f"one of {', '.join(ROUNDINGS)}"),
        ("rounds", config.rounds > 0, "a positive number"),
        ("seed", config.seed >= 0, "0 or more"),
        ("lr", config.lr > 0, "a positive number"),
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
    if config.start not in ("fusion", "random"):
        config = TrainConfig(**{**values, "start": str(here / config.start)})
    return config


def _folders(path: Path, key: str, value: Any, here: Path) -> dict[str, Path]:
    if not isinstance(value, dict) or any(t not in TASKS or not isinstance(v, str) for t, v in value.items()):
        raise InputError(f"{path}: [{key}] is {value!r}, expected folders for {', '.join(TASKS)}")
    return {task: here / folder for task, folder in value.items()}


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
