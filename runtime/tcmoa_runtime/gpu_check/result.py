"""The result of one step of the GPU check."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

from tcmoa_runtime.errors import SpellOption, TcmoaError, first_line, spell_for_python
from tcmoa_runtime.options.gpu_check import GpuCheckPrecision, GpuCheckStep
from tcmoa_runtime.typing import Flavor, JsonObject, JsonValue

StepStatus: TypeAlias = Literal["passed", "failed", "skipped", "simulated"]
"""`simulated`: the step was walked without a GPU, and nothing was measured."""

PER_PRECISION: Final[tuple[GpuCheckStep, ...]] = ("build", "parity", "latency")
"""Steps that are run for each precision."""


@dataclass(frozen=True)
class PlannedStep:
    """A step to run, on one flavor and, where it has one, in one precision.

    Attributes:
        name: The step.
        flavor: Library of the engine.
        precision: Precision of the engine; of a step without one, that of the first engine that was built.
    """

    name: GpuCheckStep
    flavor: Flavor
    precision: GpuCheckPrecision

    @property
    def title(self) -> str:
        """What the report calls the step, e.g. `rtx build fp16`."""
        if self.name == "device":
            return self.name
        return " ".join((self.flavor, self.name, *([self.precision] if self.name in PER_PRECISION else [])))


@dataclass(frozen=True)
class StepResult:
    """What came of a step.

    Attributes:
        step: The step.
        status: Whether it passed.
        seconds: How long it took; None where nothing was measured.
        figures: What was found, by name; in a simulated step every number is None.
        notes: Warnings that do not make it fail.
        reason: Why it failed or was skipped.
        trace: Where an unexpected error was raised, the innermost call last, e.g. `slots.py:120 acquire`.
    """

    step: PlannedStep
    status: StepStatus
    seconds: float | None = None
    figures: JsonObject = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reason: str | None = None
    trace: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        """Return plain values."""
        values = asdict(self)
        return {"title": self.step.title, **values.pop("step"), **values}

    @staticmethod
    def from_json(values: Mapping[str, JsonValue]) -> StepResult:
        """Make a result of what another process returned by `to_json`."""
        parts = cast("dict[str, Any]", {key: value for key, value in values.items() if key != "title"})
        step = PlannedStep(parts.pop("name"), parts.pop("flavor"), parts.pop("precision"))
        parts |= {name: tuple(parts[name]) for name in ("notes", "trace")}
        return StepResult(step, **parts)


def describe_error(error: BaseException, spell_option: SpellOption = spell_for_python) -> str:
    """Describe an error of any kind in one line."""
    if isinstance(error, TcmoaError):
        return error.render(spell_option)
    kind, text = type(error).__name__, first_line(error)
    return kind if text == kind else f"{kind}: {text}"


def trace_of(error: BaseException) -> tuple[str, ...]:
    """Return the calls that led to an error, with names of files instead of their paths."""
    frames = traceback.extract_tb(error.__traceback__)
    return tuple(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)


def without_numbers(value: JsonValue) -> JsonValue:
    """Return a value with every number replaced by None: those of a simulated step are no measurements."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {key: without_numbers(item) for key, item in value.items()}
    if isinstance(value, int | float):
        return None
    return [without_numbers(item) for item in value]
