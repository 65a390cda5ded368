"""The steps of `tcmoa gpu-check` on a simulated CUDA and TensorRT, and on GPUs that each have one fault."""

import dataclasses
import itertools
import re
import shutil
import sys
import types
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from simulated.tensorrt_module import VERSIONS, engine_bytes
from tcmoa_runtime import Bundle, InputError, MissingError
from tcmoa_runtime.bench.exactness import psnr_db
from tcmoa_runtime.cli import gpu_check_worker
from tcmoa_runtime.engine import EngineDescription, write_engine
from tcmoa_runtime.gpu_check import bundles, latency, memory, real_gpu, steps
from tcmoa_runtime.gpu_check.bundles import CheckBundles, precisions_for
from tcmoa_runtime.gpu_check.inputs import check_equal
from tcmoa_runtime.gpu_check.real_gpu import RealGpu
from tcmoa_runtime.gpu_check.report import step_row
from tcmoa_runtime.gpu_check.result import PlannedStep, StepResult, without_numbers
from tcmoa_runtime.gpu_check.simulation import SimulatedBackend, SimulatedGpu
from tcmoa_runtime.gpu_check.steps import STEPS, run_step
from tcmoa_runtime.gpu_check.target import CheckError, StepSkippedError
from tcmoa_runtime.options.gpu_check import DEFAULT_PRECISIONS, GPU_CHECK_STEPS

pytest_plugins = ("simulated.fixtures",)

FRAMES = 3

AUDIT = {
    "kernels": 93,
    "attentions": 8,
    "fused_attentions": 8,
    "bytes_moved": 682_000_000,
    "minimum_bytes": 617_000_000,
    "precisions": {"fp16": 90, "fp32": 3},
    "bounds": {"RTX 4090": {"ms": 0.68, "source": "datasheet"}},
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Make the steps short: the simulation is on the CPU."""
    monkeypatch.setattr(real_gpu, "COPY_BYTES", 1 << 12)
    monkeypatch.setattr(latency, "LARGE_SIZE", (110, 200))
    monkeypatch.setattr(latency, "WARM_UP_FRAMES", 1)
    monkeypatch.setattr(steps, "NUM_ORDERED", 7)
    collector = types.SimpleNamespace(collect=lambda: 0)  # the real one takes a second beside PyTorch
    monkeypatch.setattr(steps, "gc", collector)
    monkeypatch.setattr(steps, "NUM_PER_THREAD", 3)


def build_engine(bundle, options):
    """Write a simulated engine with an audit."""
    description = EngineDescription(
        flavor=options.flavor,
        version=VERSIONS[options.flavor],
        precision=options.precision or "fp16",
        targets=options.targets,
        options={"allow_unfused": options.allow_unfused},
    )
    return write_engine(bundle, engine_bytes(bundle), description, AUDIT)


def copy_instead(source, pairs, out, options):
    shutil.copytree(source.path, out)


def run(target, name, precision="fp16"):
    return run_step(target, PlannedStep(name, "rtx", precision), FRAMES)


@pytest.fixture
def gpu(own, library, tmp_path):
    """The real code on simulated libraries."""
    folder = tmp_path / "work"
    folder.mkdir()
    return RealGpu(CheckBundles(own, folder, copy_instead), "rtx", build_engine)


def check_device(figures):
    assert (figures["gpu"], figures["compute_capability"]) == ("Simulated GPU (no GPU)", "8.9")
    assert figures["copy_gb_per_s"] > 0


def check_build(figures):
    assert (figures["kernels"], figures["fused_attentions"], figures["batch"]) == (93, 8, 1)
    assert figures["engine"] == {"flavor": "rtx", "version": "1.7.1.116", "targets": ["sm89"]}


def check_parity(figures):
    assert figures["psnr_db"] == {"astronaut": 100.0, "rocket": 100.0}
    assert (figures["min_psnr_db"], figures["required_db"]) == (100.0, 50.0)


def check_latency(figures):
    assert figures["size"] == "130x100"
    assert {figures[name]["frames"] for name in ("with_graph", "without_graph", "on_gpu")} == {FRAMES}
    tiled = figures["tiled"]
    assert (tiled["size"], tiled["tiles"], tiled["frames"]) == ("200x110", 6, 1)
    assert tiled["bound_ms"] == pytest.approx(6 * figures["bound_ms"], abs=0.01)
    assert figures["bound_source"] == "bytes of the kernels at the measured bandwidth of a copy"


def check_leaks(figures):
    assert len(figures["gpu_bytes"]) == len(figures["host_bytes"]) == 4
    assert figures["gpu_memory_of"].startswith("all processes")


CHECKS = {
    "device": check_device,
    "build": check_build,
    "parity": check_parity,
    "latency": check_latency,
    "leaks": check_leaks,
}


@pytest.mark.parametrize("name", STEPS)
def test_each_step_passes_alone_on_simulated_libraries(name, gpu):
    result = run(gpu, name)
    assert result.status == "passed", (result.reason, result.trace)
    assert result.seconds is not None
    assert StepResult.from_json(result.to_json()) == result
    assert result.notes == ()
    assert step_row(result)[:2] == (PlannedStep(name, "rtx", "fp16").title, "passed")
    if name in CHECKS:
        CHECKS[name](result.figures)


def test_the_bound_of_a_gpu_with_a_datasheet(gpu, monkeypatch):
    monkeypatch.setattr(real_gpu, "CUDA_NAMES", {"Simulated GPU (no GPU)": "RTX 4090"})
    assert gpu.bound("fp16") == (0.68, "kernels and datasheet")


def test_a_gpu_without_a_precision_skips_it(gpu, device):
    device.capability = (8, 6)
    gpu = RealGpu(gpu._bundles, "rtx", build_engine)
    result = run(gpu, "build", "fp8")
    assert (result.status, result.reason) == ("skipped", "compute capability 8.6; fp8 needs 8.9")
    assert run(gpu, "build", "int8").status == "passed"


def test_a_gpu_that_the_library_does_not_know_is_skipped(gpu, device, monkeypatch):
    members = types.SimpleNamespace(__members__=("SM75", "SM86", "SM120"))
    monkeypatch.setattr(sys.modules["tensorrt_rtx_bindings"], "ComputeCapability", members, raising=False)
    for capability, target in (((8, 9), "sm89"), ((7, 5), "sm75")):
        device.capability = capability
        result = run(RealGpu(gpu._bundles, "rtx", build_engine), "build")
        assert result.status == "skipped"
        assert result.reason.startswith(
            f"TensorRT-RTX 1.7.1.116 builds for no {target}, which this GPU is. Run `pip "
        )


def test_a_failed_build_keeps_its_reason_and_calls(own, library, tmp_path):
    def fail(bundle, options):
        raise MemoryError("no\nmemory")

    result = run(RealGpu(CheckBundles(own, tmp_path, copy_instead), "rtx", fail), "build")
    assert (result.status, result.reason) == ("failed", "MemoryError: no")
    assert result.trace[-1].endswith(" fail")
    assert not any("/" in call for call in result.trace)


def test_unfused_attentions_are_a_note(gpu, monkeypatch):
    monkeypatch.setitem(AUDIT, "fused_attentions", 6)
    result = run(gpu, "build")
    assert (result.status, result.notes) == ("passed", ("2 attentions are not one kernel",))
    assert step_row(result)[3].endswith("; 1 note")


def test_an_engine_without_an_audit_is_checked_all_the_same(gpu, monkeypatch):
    for name in list(AUDIT):
        monkeypatch.delitem(AUDIT, name)
    monkeypatch.setitem(AUDIT, "audit_error", "the log lists no kernels")
    result = run(gpu, "build")
    assert (result.status, result.figures["audit_error"]) == ("passed", "the log lists no kernels")
    assert step_row(result)[3].startswith("no audit of the kernels; built in ")
    assert gpu.bound("fp16") is None


class Faulty(SimulatedGpu):
    """A GPU with one fault; it is not marked as simulated, so its numbers are checked and reported."""

    is_simulated = False

    def __init__(self, source, fault):
        super().__init__(source)
        self.fault, self.calls = fault, itertools.count()

    def load(self, precision, *, cuda_graph=True, slots=2, stream=None):
        return FaultyBackend(self._run, cuda_graph and self.fault != "no graph", self, stream)

    def download(self, array, protocol):
        values = super().download(array, protocol)
        return values ^ 1 if self.fault == f"{protocol} differs" else values

    def gpu_memory(self):
        growth = 2_000_000 if self.fault == "leak" else 0
        return 10_000_000 + next(self.calls) * growth, "this process"


class FaultyBackend(SimulatedBackend):
    def __init__(self, run, uses_graph, gpu, stream):
        super().__init__(run, uses_graph)
        self.gpu, self.stream, self.last = gpu, stream, None

    def infer(self, inputs):
        fault, outputs = self.gpu.fault, super().infer(inputs)
        if fault == "raises":
            raise RuntimeError("an illegal memory access was encountered")
        if fault == "stale prompts" and self.uses_graph:
            inputs = {**inputs, "prompt_shift": np.zeros_like(inputs["prompt_shift"])}
            return super().infer(inputs)
        wrong = (
            fault == "noise"
            or (fault == "other bytes in a graph" and self.uses_graph)
            or (fault == "a caller's stream" and self.stream is not None)
            or (fault == "every ninth frame" and next(self.gpu.calls) % 9 == 8)
        )
        return {**outputs, "fused": outputs["fused"] ^ 16} if wrong else outputs

    def submit(self, inputs):
        before, self.last = self.last, super().submit(inputs)
        return before if self.gpu.fault == "the frame before" and before is not None else self.last


FAULTS = {
    ("parity", "noise"): "PSNR to the CPU is 24",
    ("graph", "no graph"): "the engine was not captured into a CUDA graph",
    ("graph", "other bytes in a graph"): "with and without a CUDA graph: ",
    ("graph", "stale prompts"): "with and without a CUDA graph",
    ("order", "the frame before"): "of 3 in flight: ",
    ("threads", "every ninth frame"): "values differ; expected the same bytes",
    ("streams", "a caller's stream"): "computed in a caller's stream: ",
    ("streams", "cuda_array_interface differs"): "results ordered in a caller's stream: ",
    ("arrays", "cuda_array_interface differs"): "frames by cuda_array_interface: ",
    ("arrays", "dlpack differs"): "frames by dlpack: ",
    ("leaks", "leak"): "GPU memory of this process grew in every part of the frames (2.0 MB, 2.0 MB, 2.0 MB)",
    ("latency", "raises"): "RuntimeError: an illegal memory access was encountered",
}


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_each_fault_fails_its_step(name, fault, own, monkeypatch):
    monkeypatch.setattr(steps, "_check_libraries", lambda *_: [])
    assert run(Faulty(own, "none"), name).status == "passed"
    result = run(Faulty(own, fault), name)
    assert result.status == "failed", result
    assert FAULTS[name, fault] in result.reason


@pytest.mark.parametrize("fault", ["none", "cuda_array_interface differs", "cuda_array_interface raises"])
def test_a_backend_is_closed_before_the_stream_of_its_results(fault, own, monkeypatch):
    events = []

    class Watched(Faulty):
        @contextmanager
        def new_stream(self):
            try:
                yield 0x10
            finally:
                events.append("stream")

        def download(self, array, protocol):
            if fault.endswith("raises"):
                raise RuntimeError("an illegal memory access was encountered")
            return super().download(array, protocol)

    monkeypatch.setattr(FaultyBackend, "close", lambda _: events.append("backend"))
    result = run(Watched(own, fault), "streams")
    assert (result.status == "passed") == (fault == "none")
    assert events == ["backend", "stream"] * (2 if fault == "none" else 1)


class Clock:
    """A clock on which a run takes 10 ms."""

    def __init__(self):
        self.seconds = 0.0

    def perf_counter(self):
        return self.seconds

    def run(self, *_):
        self.seconds += 0.01
        return types.SimpleNamespace(result=lambda: None)


def test_frames_per_second_count_the_frames_of_a_batch(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    times = {"p50_ms": 10.0, "p99_ms": 10.0}
    assert latency._frame_times(clock.run, 5) == {"frames": 5, "fps": 100.0, **times}
    assert latency._frame_times(clock.run, 5, 4) == {"frames": 20, "fps": 400.0, **times}
    backend = types.SimpleNamespace(submit=clock.run)
    assert [latency._in_flight_fps(backend, {}, 5, batch) for batch in (1, 4)] == [100.0, 400.0]


def test_a_simulated_step_reports_no_number(own):
    gpu = SimulatedGpu(own)
    for name in STEPS:
        result = run(gpu, name)
        assert (result.status, result.seconds, result.reason) == ("simulated", None, None)
        assert result.figures == without_numbers(result.figures)
        assert step_row(result)[2:] == ("", "walked without a GPU, nothing measured")
    assert run(gpu, "latency").figures["with_graph"] == dict.fromkeys(("frames", "p50_ms", "p99_ms", "fps"))


def test_warnings_of_a_step_are_notes(own, monkeypatch):
    def noisy(target, precision, frames):
        warnings.warn("runs without a CUDA graph", RuntimeWarning, stacklevel=1)
        warnings.warn("of another kind", DeprecationWarning, stacklevel=1)
        return {"answer": 42}

    monkeypatch.setattr(steps, "STEPS", {**STEPS, "graph": noisy})
    result = run(Faulty(own, "none"), "graph")
    assert (result.figures, result.notes) == ({"answer": 42}, ("runs without a CUDA graph",))


def test_a_graph_that_is_not_captured_fails_with_its_reason(gpu, library):
    library.capturable = False
    result = run(gpu, "graph")
    assert result.reason == "the engine was not captured into a CUDA graph; expected one"
    assert "runs without a CUDA graph, which costs CPU time per frame (the engine reports" in result.notes[0]


def test_every_step_of_the_options_exists():
    assert tuple(STEPS) == GPU_CHECK_STEPS


# --- bundles ----------------------------------------------------------------------------------------------------


def test_precisions_of_a_bundle(vif):
    bundle = Bundle.open(vif)
    assert precisions_for(bundle, ()) == DEFAULT_PRECISIONS
    assert precisions_for(bundle, ("bf16", "fp16", "bf16")) == ("bf16", "fp16")
    low = dataclasses.replace(bundle, manifest={**bundle.manifest, "precision": "int8"})
    assert precisions_for(low, ()) == precisions_for(low, ("int8",)) == ("int8",)
    with pytest.raises(InputError) as caught:
        precisions_for(low, ("fp16", "int8", "bf16"))
    assert str(caught.value) == (
        f"precisions: fp16, bf16; expected int8, the precision of {bundle.path}. "
        "Leave it out, or check a float32 bundle."
    )


def test_a_bundle_is_quantized_once(own, tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "MIN_PSNR_DB", 1.0)  # random weights
    made = CheckBundles(own, tmp_path / "work", gpu_check_worker.quantize)
    (tmp_path / "work").mkdir()
    assert made.bundle("int8").precision == "int8"
    made = CheckBundles(own, tmp_path / "work", None)  # as in another process
    assert made.bundle("int8").path == tmp_path / "work" / "int8"
    copy = made.bundle("fp16")
    assert copy.path == made.bundle("fp32").path != own.path


def test_without_the_packages_for_calibration_8_bits_are_skipped(own, tmp_path):
    def quantize(source, pairs, out, options):
        raise MissingError(
            "the package scipy is not installed", remedy="Run `pip install 'tcmoa[calibration]'`"
        )

    with pytest.raises(StepSkippedError, match=r"scipy is not installed\. Run `pip install"):
        CheckBundles(own, tmp_path, quantize).bundle("fp8")


# --- inputs and memory ------------------------------------------------------------------------------------------


def test_psnr():
    frame = np.zeros((2, 2, 3), np.uint8)
    assert psnr_db(frame, frame) == 100.0
    assert psnr_db(frame, frame + 255) == 0.0


def test_results_of_another_shape_or_type_differ():
    frame = np.zeros((2, 2, 3), np.uint8)
    check_equal(frame, frame.copy(), "equal")
    for other in (frame[:1], frame.astype(np.float32), frame + 1):
        with pytest.raises(CheckError, match=r"^other: "):
            check_equal(other, frame, "other")


class Nvml(types.ModuleType):
    """What is used of `cuda.bindings.nvml`; two GPUs, and this process on both."""

    ClockType = types.SimpleNamespace(SM=1, MEM=2)

    def __init__(self, *, used=(300, 20), fails=None):
        super().__init__("cuda.bindings.nvml")
        self.used, self.fails = used, fails

    def __getattr__(self, name):
        def call(*arguments):
            if name == self.fails:
                raise RuntimeError(f"{name} failed")
            return {
                "device_get_count_v2": lambda: 2,
                "device_get_handle_by_index_v2": lambda index: index,
                "device_get_compute_running_processes_v3": self.processes,
                "system_get_driver_version": lambda: "580.65.06",
                "device_get_name": lambda handle: f"GPU {handle}",
                "device_get_enforced_power_limit": lambda _: 450_000,
                "device_get_max_clock_info": lambda _, kind: 1000 * kind,
            }.get(name, lambda *_: None)(*arguments)

        return call

    def processes(self, handle):
        others = types.SimpleNamespace(pid=1, used_gpu_memory=5)
        return [others, types.SimpleNamespace(pid=memory.os.getpid(), used_gpu_memory=self.used[handle])]


@pytest.fixture
def nvml(monkeypatch):
    def install(**options):
        monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", Nvml(**options))

    return install


def test_memory_of_this_process_by_nvml(nvml, gpu):
    nvml()
    assert memory.gpu_memory_of_process() == 320
    assert gpu.gpu_memory() == (320, "this process")
    gpus = [
        {"name": f"GPU {n}", "power_limit_w": 450.0, "max_sm_mhz": 1000, "max_memory_mhz": 2000}
        for n in (0, 1)
    ]
    assert memory.describe_driver() == {"version": "580.65.06", "gpus": gpus}


def test_nvml_that_does_not_tell(nvml, monkeypatch):
    nvml(used=((1 << 64) - 1, (1 << 64) - 1))
    assert memory.gpu_memory_of_process() is None
    nvml(fails="device_get_compute_running_processes_v3")
    assert memory.gpu_memory_of_process() is None
    nvml(fails="device_get_enforced_power_limit")
    assert memory.describe_driver() == {"version": "580.65.06", "gpus": []}
    for fails in ("init_v2", None):
        nvml(fails=fails) if fails else monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", None)
        assert memory.gpu_memory_of_process() is None
        assert memory.describe_driver() == {"version": None, "gpus": []}


def test_the_real_nvml_has_the_functions_and_fields():
    real = pytest.importorskip("cuda.bindings.nvml")
    names = re.findall(r"\bnvml\.([a-z][a-z0-9_]+)\(", Path(memory.__file__).read_text())
    assert len(names) >= 7
    assert [name for name in names if not callable(getattr(real, name, None))] == []
    assert {int(real.ClockType.SM), int(real.ClockType.MEM)} == {1, 2}
    (process,) = real.ProcessInfo(1)
    assert (int(process.pid), int(process.used_gpu_memory)) == (0, 0)


def test_host_memory_of_this_process():
    assert memory.host_memory() > 10_000_000


def test_growth_in_one_part_is_no_leak():
    steps._check_growth([10, 10 + (5 << 20), 10 + (5 << 20), 10 + (5 << 20)], "memory")
    steps._check_growth([], "memory")
    with pytest.raises(CheckError, match="memory grew in every part"):
        steps._check_growth([0, 2 << 20, 4 << 20, 6 << 20], "memory")


def test_worker_targets_are_made_once(own, library, tmp_path):
    target = gpu_check_worker.target_of(own, tmp_path)
    assert target("rtx") is target("rtx")
    assert isinstance(target("rtx"), RealGpu)
    assert (tmp_path / "rtx").is_dir()
