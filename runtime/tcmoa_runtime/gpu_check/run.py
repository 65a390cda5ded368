"""Running all steps of the GPU check: which ones, in which order, and in processes that a failure ends alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from tcmoa_runtime.bench.worker import Worker
from tcmoa_runtime.errors import SpellOption, TcmoaError, spell_for_python
from tcmoa_runtime.gpu_check.result import PER_PRECISION, PlannedStep, StepResult, describe_error, trace_of
from tcmoa_runtime.gpu_check.steps import run_step
from tcmoa_runtime.gpu_check.target import CheckTarget
from tcmoa_runtime.options.gpu_check import GpuCheckOptions, GpuCheckPrecision
from tcmoa_runtime.typing import Flavor, JsonObject


class StepRunner(Protocol):
    """Runs a step; no failure of it escapes."""

    def run(self, step: PlannedStep) -> StepResult:
        """Run a step."""
        ...


class InThisProcess:
    """Runs steps in this process.

    Args:
        target_of: Returns the GPU, or its simulation, with a flavor.
        frames: Frames of long steps.
        spell_option: Spells options in the texts of errors.
    """

    def __init__(
        self,
        target_of: Callable[[Flavor], CheckTarget],
        frames: int,
        spell_option: SpellOption = spell_for_python,
    ) -> None:
        self._target_of, self._frames, self._spell_option = target_of, frames, spell_option

    def run(self, step: PlannedStep) -> StepResult:
        """Run a step; see `StepRunner`."""
        try:
            target = self._target_of(step.flavor)
        except Exception as error:
            reason = describe_error(error, self._spell_option)
            return StepResult(step, "failed", reason=reason, trace=trace_of(error))
        return run_step(target, step, self._frames, self._spell_option)


class InProcesses:
    """Runs steps in another process, and in a new one after each failure; a context manager that ends it.

    A fault of CUDA makes all later calls of a process fail, and one of a library may crash it or keep it from
    returning. None of these reaches the next step.

    Args:
        start: Starts a worker that answers `step NAME FLAVOR PRECISION` with `StepResult.to_json`.
        limit_s: Seconds after which a step is ended.
        spell_option: Spells options in the texts of errors.
    """

    def __init__(
        self, start: Callable[[], Worker], limit_s: float, spell_option: SpellOption = spell_for_python
    ) -> None:
        self._start, self._limit_s, self._spell_option = start, limit_s, spell_option
        self._worker: Worker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_worker()

    def run(self, step: PlannedStep) -> StepResult:
        """Run a step; see `StepRunner`."""
        started = time.monotonic()
        try:
            result = StepResult.from_json(self._ask(step))
        except TcmoaError as error:
            seconds = round(time.monotonic() - started, 2)
            # Without its subject, which is the worker.
            shown = TcmoaError(error.problem, remedy=error.remedy, settings=error.settings)
            result = StepResult(step, "failed", seconds, reason=describe_error(shown, self._spell_option))
        if result.status == "failed":
            self._end_worker()
        return result

    def _ask(self, step: PlannedStep) -> JsonObject:
        """Send a step to the worker; raises TcmoaError if it ends, or takes longer than the limit."""
        is_new = self._worker is None
        worker = self._worker = self._worker or self._start()
        is_over = threading.Event()

        def end() -> None:
            is_over.set()
            worker.kill()

        timer = threading.Timer(self._limit_s, end)
        timer.daemon = True
        timer.start()
        try:
            if is_new:
                worker.load()
            return worker.request(f"step {step.name} {step.flavor} {step.precision}")
        except TcmoaError as error:
            if is_over.is_set():
                raise TcmoaError(
                    f"took more than {self._limit_s:g} s, so it was ended",
                    remedy="Allow more with {step_seconds}",
                    settings={"step_seconds": ...},
                ) from error
            raise
        finally:
            timer.cancel()

    def _end_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.__exit__(None, None, None)


def plan_steps(
    options: GpuCheckOptions, flavors: Sequence[Flavor], precisions: Sequence[GpuCheckPrecision]
) -> list[PlannedStep]:
    """List all steps in their order; those without a precision have the first one."""
    steps: list[PlannedStep] = []
    for flavor in flavors:
        for name in options.chosen_steps:
            if name == "device" and flavor != flavors[0]:
                continue
            in_turn = precisions if name in PER_PRECISION else precisions[:1]
            steps += [PlannedStep(name, flavor, precision) for precision in in_turn]
    return steps


def run_steps(
    steps: Sequence[PlannedStep],
    runner: StepRunner,
    on_step: Callable[[PlannedStep], None] = lambda _step: None,
) -> Iterator[StepResult]:
    """Run steps and yield the result of each; one that needs an engine that was not built is skipped.

    Args:
        steps: The steps, see `plan_steps`.
        runner: Runs them.
        on_step: Called before each of them.
    """
    unbuilt: dict[tuple[Flavor, GpuCheckPrecision], str] = {}
    built: dict[Flavor, GpuCheckPrecision] = {}
    for planned in steps:
        step = planned
        if step.name not in ("device", *PER_PRECISION) and step.flavor in built:
            step = PlannedStep(step.name, step.flavor, built[step.flavor])
        on_step(step)
        why_not = unbuilt.get((step.flavor, step.precision))
        if step.name not in ("device", "build") and why_not is not None:
            yield StepResult(step, "skipped", reason=f"no engine in {step.precision}: {why_not}")
            continue
        result = runner.run(step)
        if step.name == "build" and result.status in ("failed", "skipped"):
            unbuilt[step.flavor, step.precision] = f"see the step {step.title}"
        elif step.name == "build":
            built.setdefault(step.flavor, step.precision)
        yield result
