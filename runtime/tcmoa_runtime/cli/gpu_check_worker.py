"""The process that runs the steps of `tcmoa gpu-check`, see `tcmoa_runtime.gpu_check.run.InProcesses`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from tcmoa_runtime.bench.worker import RunFrame, serve
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.options import spell_for_command_line
from tcmoa_runtime.engine import FLAVORS
from tcmoa_runtime.gpu_check.bundles import CheckBundles
from tcmoa_runtime.gpu_check.real_gpu import RealGpu
from tcmoa_runtime.gpu_check.result import PlannedStep
from tcmoa_runtime.gpu_check.run import InThisProcess
from tcmoa_runtime.gpu_check.simulation import SimulatedGpu
from tcmoa_runtime.gpu_check.steps import STEPS
from tcmoa_runtime.gpu_check.target import CheckTarget
from tcmoa_runtime.options.gpu_check import DEFAULT_PRECISIONS, MIN_FRAMES
from tcmoa_runtime.options.quantize import QuantizeOptions
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.typing import Flavor, JsonObject


def quantize(source: Bundle, pairs: Sequence[PairPaths], out: Path, options: QuantizeOptions) -> None:
    """Write a quantized bundle; raises MissingError without the packages for that."""
    module = require("tcmoa_calibration.quantize", "gpu-check", "calibration")
    module.quantize_bundle(source, pairs, out, options)


def target_of(source: Bundle, folder: Path) -> Callable[[Flavor], CheckTarget]:
    """Return a function that returns the GPU with a flavor; the engines are built below `folder`."""

    @cache
    def target(flavor: Flavor) -> CheckTarget:
        own = folder / flavor
        own.mkdir(exist_ok=True)
        build_engine = require("tcmoa_export.engines.build", "gpu-check", flavor).build_engine
        return RealGpu(CheckBundles(source, own, quantize), flavor, build_engine)

    return target


def main(bundle: str, folder: str, frames: str, simulate: str) -> None:
    """Answer requests for steps until stdin is closed."""
    source = Bundle.open(bundle)
    if simulate == "1":
        simulated = SimulatedGpu(source)
        steps = InThisProcess(lambda _flavor: simulated, MIN_FRAMES, spell_for_command_line)
    else:
        steps = InThisProcess(target_of(source, Path(folder)), int(frames), spell_for_command_line)

    def run(_frame: RunFrame, words: Sequence[str]) -> JsonObject:
        name = next(name for name in STEPS if name == words[0])
        flavor = next(flavor for flavor in FLAVORS if flavor == words[1])
        precision = next(p for p in ("fp32", *DEFAULT_PRECISIONS) if p == words[2])
        return steps.run(PlannedStep(name, flavor, precision)).to_json()

    serve(lambda: lambda: None, {"step": run})


if __name__ == "__main__":
    main(*sys.argv[1:])
