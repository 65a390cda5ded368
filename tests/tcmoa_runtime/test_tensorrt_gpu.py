"""The steps of `tcmoa gpu-check` on a real GPU, each as a test, in float32 too.

    pytest -m gpu -s tests/tcmoa_runtime/test_tensorrt_gpu.py

Skipped without a CUDA device. Not run by this project yet, for lack of a GPU. `test_gpu_check_steps.py` runs the same
steps on simulated libraries.
"""

import importlib.util

import pytest

from tcmoa_runtime import Bundle, TcmoaError
from tcmoa_runtime.backends.tensorrt.engine_loading import MODULES
from tcmoa_runtime.cli.gpu_check import DEFAULT_BUNDLE
from tcmoa_runtime.cli.gpu_check_worker import target_of
from tcmoa_runtime.gpu import cuda
from tcmoa_runtime.gpu_check.report import step_row
from tcmoa_runtime.gpu_check.result import PlannedStep
from tcmoa_runtime.gpu_check.run import plan_steps
from tcmoa_runtime.gpu_check.steps import run_step
from tcmoa_runtime.options.gpu_check import DEFAULT_PRECISIONS, GpuCheckOptions

FRAMES = 1000


def _missing():
    """Return why these tests cannot run here and how to run them, or None."""
    how = "run `pytest -m gpu` on a machine with an NVIDIA GPU, its driver, and 'tcmoa[rtx]' or 'tcmoa[tensorrt]'"
    try:
        cuda.CudaDevice.current()
    except TcmoaError as error:
        return f"{error.problem}; {how}"
    if not any(importlib.util.find_spec(name) for name in MODULES.values()):
        return f"neither tensorrt nor tensorrt_rtx_bindings is installed; {how}"
    return None


_WHY_NOT = _missing()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))]

FLAVORS = [flavor for flavor, name in MODULES.items() if importlib.util.find_spec(name)] or ["rtx"]
STEPS = plan_steps(GpuCheckOptions(), FLAVORS, (*DEFAULT_PRECISIONS, "fp32"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Function that runs a step and prints what the report says about it; engines are built once."""
    target = target_of(Bundle.open(DEFAULT_BUNDLE), tmp_path_factory.mktemp("gpu-check"))

    def call(step, frames=FRAMES):
        result = run_step(target(step.flavor), step, frames)
        print(*step_row(result), *result.notes, sep="  ")
        if result.status == "skipped":
            pytest.skip(result.reason)
        assert result.status == "passed", result.reason

    return call


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_a_step_passes(step, run):
    run(step)


@pytest.mark.slow
@pytest.mark.parametrize("flavor", FLAVORS)
def test_ten_thousand_frames_leak_nothing(flavor, run):
    run(PlannedStep("leaks", flavor, "fp16"), 10_000)
