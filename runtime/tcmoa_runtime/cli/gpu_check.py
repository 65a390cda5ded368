"""`tcmoa gpu-check`: whether the GPU path works on this machine, and how fast, in one report."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from tcmoa_runtime.backends.tensorrt.engine_loading import MODULES
from tcmoa_runtime.bench.worker import Worker, python_module
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.options import JsonOption, spell_for_command_line, takes_options
from tcmoa_runtime.cli.printing import print_json, print_line, print_message
from tcmoa_runtime.engine import FLAVORS
from tcmoa_runtime.errors import InputError, MissingError
from tcmoa_runtime.gpu.cuda import CudaDevice
from tcmoa_runtime.gpu_check.bundles import precisions_for
from tcmoa_runtime.gpu_check.report import SIMULATED, new_report, step_row
from tcmoa_runtime.gpu_check.result import PlannedStep, StepResult
from tcmoa_runtime.gpu_check.run import InProcesses, plan_steps, run_steps
from tcmoa_runtime.gpu_check.target import GPU_NAME
from tcmoa_runtime.images import write_bytes
from tcmoa_runtime.install import install_hint
from tcmoa_runtime.options.gpu_check import GpuCheckOptions
from tcmoa_runtime.ready_bundles import READY_PRESET
from tcmoa_runtime.typing import Flavor

DEFAULT_BUNDLE: Final = f"{READY_PRESET}-vif"


@takes_options(
    GpuCheckOptions,
    flags={
        "flavor": ("--flavor", "--flavour"),
        "precisions": ("--precision",),
        "steps": ("--step",),
        "out": ("--out", "-o"),
    },
)
def gpu_check(
    options: GpuCheckOptions,
    bundle: Annotated[
        Path, typer.Argument(help="Folder of a bundle to check with, or the name of a ready one.")
    ] = Path(DEFAULT_BUNDLE),
    as_json: JsonOption = False,
) -> int:
    """Check the GPU of this machine with TensorRT or TensorRT-RTX, and write one report to send.

    Engines are built in each precision and compared with the CPU; latencies, CUDA graphs, threads, streams, arrays in
    GPU memory and memory leaks are checked. Each step runs by itself, so that a failure does not hide the next one.
    Everything that is built is deleted at the end. The report holds no paths and no name of the machine or the user.

    The exit code is 1 when a step failed or every step was skipped, and 3 without a GPU, or if neither TensorRT nor
    TensorRT-RTX is installed. With `--simulate` the steps are walked on the CPU.

    Examples:

        tcmoa gpu-check
        tcmoa gpu-check --flavor rtx --precision fp16 --step build,parity,latency
        tcmoa gpu-check --simulate --out dry-run.md
    """
    opened = Bundle.open(bundle)
    opened.check()  # else every step would report the same damage
    precisions = precisions_for(opened, options.precisions)
    _check_out(options.out)
    if options.simulate:
        gpu, flavors = GPU_NAME, (_wanted(options) or FLAVORS[-1:])
        print_message(SIMULATED)
    else:
        gpu, flavors = _find_gpu(), _find_flavors(options)
        require("tcmoa_export.engines.build", "gpu-check", flavors[0])
    steps = plan_steps(options, flavors, precisions)
    results: list[StepResult] = []
    with (
        tempfile.TemporaryDirectory(prefix="tcmoa-gpu-check-", ignore_cleanup_errors=True) as folder,
        InProcesses(
            partial(_start_worker, opened, Path(folder), options),
            options.step_seconds,
            spell_for_command_line,
        ) as runner,
    ):

        def show(step: PlannedStep) -> None:  # a line each: a status line would take stdout along to stderr
            print_message(f"gpu-check: {len(results) + 1} of {len(steps)}: {step.title}")

        for result in run_steps(steps, runner, show):
            results.append(result)
            if not as_json:
                title, status, seconds, summary = step_row(result)
                print_line(f"{title:<22} {status:<9} {seconds and seconds + ' s':>8}  {summary}".rstrip())
    report = new_report(gpu, opened, results, is_simulated=options.simulate)
    write_bytes(options.out, report.to_markdown().encode())
    if as_json:
        print_json(report.to_json())
    else:
        print_line(report.verdict)
        print_line(f"report: {options.out}")
    return 0 if report.has_passed else 1


def _check_out(path: Path) -> None:
    """Raise InputError if the report could not be written at the end of a long check."""
    if path.is_dir():
        raise InputError("a folder; expected a file", subject=path, remedy="Name the report in it")
    if not path.parent.is_dir():
        raise InputError(
            f"the folder {path.parent} does not exist; expected one", subject=path, remedy="Create it first"
        )
    if not os.access(path.parent, os.W_OK):
        raise InputError("its folder cannot be written to; expected one that can", subject=path)


def _find_gpu() -> str:
    """Return the name of the GPU; raises MissingError without one."""
    try:
        return CudaDevice.current().name
    except MissingError as error:
        # A remedy that names another backend is none here: there would be nothing to check.
        has_other_backend = "backend" in error.settings
        raise MissingError(
            f"no GPU to check: {error.problem}",
            remedy="Run it on a machine with an NVIDIA GPU and its driver, or walk its steps with {simulate}"
            if has_other_backend or error.remedy is None
            else error.remedy,
            settings={"simulate": True},
        ) from error


def _wanted(options: GpuCheckOptions) -> tuple[Flavor, ...]:
    """Return the flavor that was asked for; empty for auto."""
    return tuple(flavor for flavor in FLAVORS if flavor == options.flavor)


def _find_flavors(options: GpuCheckOptions) -> tuple[Flavor, ...]:
    """Return the flavors to check; raises MissingError if none of them is installed."""
    wanted = _wanted(options) or FLAVORS
    found = tuple(flavor for flavor in wanted if importlib.util.find_spec(MODULES[flavor]) is not None)
    if not found:
        names = " nor ".join(MODULES[flavor] for flavor in wanted)
        raise MissingError(
            f"{'neither ' if len(wanted) > 1 else 'no '}{names} is installed",
            subject="tcmoa gpu-check",
            remedy=install_hint("rtx" if "rtx" in wanted else "tensorrt"),
        )
    return found


def _start_worker(bundle: Bundle, folder: Path, options: GpuCheckOptions) -> Worker:
    """Start a process for steps; its caches and its record of engines are in `folder`, so first starts are first."""
    arguments = (str(bundle.path.resolve()), str(folder), str(options.frames), str(int(options.simulate)))
    env = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "XDG_DATA_HOME": str(folder / "data")}
    return Worker("gpu-check", python_module("tcmoa_runtime.cli.gpu_check_worker", *arguments), env)
