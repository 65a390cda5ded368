"""`tcmoa gpu-check` without a GPU and as a dry run, its processes, and its report."""

import dataclasses
import getpass
import json
import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from simulated import cuda_runtime
from tcmoa_runtime import Bundle, InputError, MissingError
from tcmoa_runtime.bench.worker import Worker
from tcmoa_runtime.cli import gpu_check as command
from tcmoa_runtime.cli import make_app
from tcmoa_runtime.cli.options import spell_for_command_line
from tcmoa_runtime.gpu_check import privacy
from tcmoa_runtime.gpu_check.privacy import without_private_data
from tcmoa_runtime.gpu_check.report import SIMULATED, GpuCheckReport, describe_machine, step_row
from tcmoa_runtime.gpu_check.result import PlannedStep, StepResult, describe_error, without_numbers
from tcmoa_runtime.gpu_check.run import InProcesses, InThisProcess, plan_steps, run_steps
from tcmoa_runtime.options.gpu_check import GPU_CHECK_STEPS, GpuCheckOptions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def device(monkeypatch):
    """A simulated GPU; the command's own process asks it only for its name."""
    simulated = cuda_runtime.Device()
    cuda_runtime.install(monkeypatch, simulated)
    return simulated


# --- the command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (cuda_runtime.cudaError_t.cudaErrorNoDevice, "no CUDA device: simulated cudaErrorNoDevice"),
        (cuda_runtime.cudaError_t.cudaErrorInsufficientDriver, "the NVIDIA driver supports only CUDA 13.0: "),
    ],
)
def test_without_a_gpu_the_exit_code_is_3(code, words, device, tcmoa, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    device.fail(1, code, "cudaGetDeviceCount")
    outcome = tcmoa("gpu-check")
    outcome.assert_error(
        3, f"error: no GPU to check: {words}", "NVIDIA GPU", "or walk its steps with --simulate."
    )
    assert list(tmp_path.iterdir()) == []


def test_without_cuda_bindings_the_exit_code_is_3(tcmoa, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, cuda_runtime.MODULE, None)
    outcome = tcmoa("gpu-check", "--out", tmp_path / "report.md")
    outcome.assert_error(3, "no GPU to check: the package cuda-bindings cannot be imported", "pip install")
    assert "--backend" not in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "neither tensorrt nor tensorrt_rtx_bindings is installed. Run `pip install"),
        (["--flavor", "tensorrt"], "no tensorrt is installed. Run `pip install"),
    ],
)
def test_without_tensorrt_the_exit_code_is_3(arguments, words, device, tcmoa, monkeypatch, tmp_path):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda _: None)
    outcome = tcmoa("gpu-check", "--out", tmp_path / "report.md", *arguments)
    outcome.assert_error(3, f"tcmoa gpu-check: {words}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--step", "build,speed"], "--step: 'speed'; expected one of device, build, parity, "),
        (["--precision", "fp4"], "--precision: 'fp4'; expected one of fp32, fp16, bf16, int8, fp8"),
        (["--frames", "11"], "--frames: 11; expected 12 to 1000000"),
        (["--step-seconds", "0"], "--step-seconds: 0 s; expected 1 to 86400 s"),
        (["--out", "{tmp}"], "{tmp}: a folder; expected a file. Name the report in it."),
        (
            ["--out", "{tmp}/none/report.md"],
            "the folder {tmp}/none does not exist; expected one. Create it first.",
        ),
        (["no-such-bundle"], "no-such-bundle: no such bundle; expected a folder or one of nano-vif"),
    ],
)
def test_wrong_input_is_one_line(arguments, words, tcmoa, tmp_path):
    filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    tcmoa("gpu-check", "--simulate", *filled).assert_error(2, words.replace("{tmp}", str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_another_precision_than_that_of_the_bundle_is_refused(broken, rehash, tcmoa):
    rehash(broken, lambda manifest: manifest.update(precision="int8"))
    tcmoa("gpu-check", broken, "--simulate", "--precision", "int8,fp16").assert_error(
        2,
        f"--precision: fp16; expected int8, the precision of {broken}. Leave it out, or check a float32 bundle.",
    )


def numbers_in(value):
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers_in(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers_in(item)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_a_dry_run_says_so_everywhere(vif, tcmoa, tmp_path):
    """All steps but the latency, which takes long with the many tiles of this small graph."""
    out = tmp_path / "report.md"
    names = [name for name in GPU_CHECK_STEPS if name != "latency"]
    outcome = tcmoa(
        "gpu-check", vif, "--simulate", "--precision", "fp16", "--step", ",".join(names), "--out", out
    )
    assert outcome.code == 0, outcome.out
    *rows, verdict, last = outcome.out.splitlines()
    assert verdict == "simulated: 9 steps walked; no GPU, nothing was measured"
    assert last == f"report: {out}"
    assert [row.split("  ")[0].split()[-1] for row in rows] == [
        "device",
        *("fp16",) * 2,
        *GPU_CHECK_STEPS[4:],
    ]
    assert all(row.endswith("simulated           walked without a GPU, nothing measured") for row in rows)
    assert outcome.err.splitlines()[0] == SIMULATED == "SIMULATED: no GPU was used, and nothing was measured"
    text = out.read_text()
    assert text.startswith(f"# tcmoa gpu-check: {verdict}\n\n**{SIMULATED}.**\n")
    report = json.loads(text.partition("```json\n")[2].partition("```")[0])
    assert (report["simulated"], report["passed"], report["gpu"]) == (True, None, "simulation, no GPU")
    assert {step["status"] for step in report["steps"]} == {"simulated"}
    assert numbers_in(report["steps"]) == []
    for private in (str(tmp_path), str(Path.home()), sys.prefix, str(ROOT)):
        assert private not in text


def test_json_of_a_dry_run(vif, tcmoa, tmp_path):
    out = tmp_path / "report.md"
    outcome = tcmoa("gpu-check", vif, "--simulate", "--step", "device", "--json", "--out", out)
    assert outcome.code == 0
    assert outcome.json["verdict"] == "simulated: 1 step walked; no GPU, nothing was measured"
    assert json.dumps(outcome.json, indent=1) in out.read_text()


def test_a_failed_step_ends_with_1_and_a_report(vif, device, tcmoa, tmp_path, monkeypatch):
    """The process of the steps has no simulated CUDA, and sees no real GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(command, "_find_flavors", lambda _: ("rtx",))
    out = tmp_path / "report.md"
    outcome = tcmoa("gpu-check", vif, "--step", "graph", "--out", out)
    assert outcome.code == 1
    row, verdict, _ = outcome.out.splitlines()
    assert row.startswith("rtx graph              failed ")
    assert verdict == "failed: 1 of 1 step on Simulated GPU (no GPU): rtx graph"
    assert "## Failures and notes\n\n- **rtx graph** failed: no " in out.read_text()


def test_the_makefile_runs_the_command():
    rule = "\ngpu-check: $(VENV)/.ready\n\t$(BIN)/tcmoa gpu-check --out gpu-report.md\n"
    assert rule in (ROOT / "Makefile").read_text()


def test_only_the_named_command_is_imported():
    assert [command.name for command in make_app(["gpu-check"]).registered_commands] == ["gpu-check"]


# --- which steps --------------------------------------------------------------------------------------------------


def test_the_plan_of_two_flavors():
    titles = [step.title for step in plan_steps(GpuCheckOptions(), ("tensorrt", "rtx"), ("fp16", "int8"))]
    assert titles[:4] == ["device", "tensorrt build fp16", "tensorrt build int8", "tensorrt parity fp16"]
    assert titles.count("device") == 1
    assert "rtx graph" in titles
    assert len(titles) == 1 + 2 * (3 * 2 + 6)


def test_steps_come_in_their_order_whatever_was_asked():
    assert GpuCheckOptions(steps=("leaks", "device")).chosen_steps == ("device", "leaks")
    with pytest.raises(InputError, match="expected one of"):
        GpuCheckOptions(flavor="trt")


class Recorded:
    """A runner with the statuses of some steps by title; others pass."""

    def __init__(self, **statuses):
        self.statuses, self.ran = statuses, []

    def run(self, step):
        self.ran.append(f"{step.title} with {step.precision}")
        return StepResult(step, self.statuses.get(step.title.replace(" ", "_"), "passed"), 1.0)


def run_all(runner, *names):
    options = GpuCheckOptions(steps=names)
    steps = plan_steps(options, ("rtx",), ("fp16", "bf16"))
    return {result.step.title: result for result in run_steps(steps, runner)}


def test_what_needs_an_engine_that_was_not_built_is_skipped():
    runner = Recorded(rtx_build_fp16="failed")
    results = run_all(runner, "device", "build", "parity", "graph")
    assert results["rtx parity fp16"].status == "skipped"
    assert results["rtx parity fp16"].reason == "no engine in fp16: see the step rtx build fp16"
    assert results["rtx parity bf16"].status == "passed"
    assert runner.ran[-1] == "rtx graph with bf16"  # the first that was built


def test_without_any_engine_everything_else_is_skipped():
    results = run_all(Recorded(rtx_build_fp16="failed", rtx_build_bf16="skipped"), "device", "build", "graph")
    assert results["rtx graph"].status == "skipped"
    assert results["device"].status == "passed"


def test_steps_without_the_build_build_by_themselves():
    runner = Recorded()
    run_all(runner, "parity", "leaks")
    assert runner.ran == ["rtx parity fp16 with fp16", "rtx parity bf16 with bf16", "rtx leaks with fp16"]


# --- processes --------------------------------------------------------------------------------------------------

WORKER = """
import json, os, sys, time
for line in sys.stdin:
    if line.split()[0] == "load":
        answer = {"load_ms": 0, "first_ms": 0}
    else:
        _, name, flavor, precision = line.split()
        if name == "build":
            os.abort()
        if name == "latency":
            time.sleep(60)
        answer = {"title": "", "name": name, "flavor": flavor, "precision": precision, "status": "passed",
                  "seconds": 1.0, "figures": {"pid": os.getpid()}, "notes": [], "reason": None, "trace": []}
        if name == "graph":
            answer["status"] = "failed"
    print(json.dumps(answer), flush=True)
"""


def test_crashes_and_hangs_do_not_reach_the_next_step():
    names = ("device", "build", "parity", "latency", "graph", "order", "threads")
    with InProcesses(lambda: Worker("gpu-check", [sys.executable, "-c", WORKER]), 3.0) as runner:
        results = {name: runner.run(PlannedStep(name, "rtx", "fp16")) for name in names}
    assert results["build"].reason == "its process ended (exit status -6)"
    assert results["latency"].reason == "took more than 3 s, so it was ended. Allow more with step_seconds."
    assert {
        name: result.status for name, result in results.items() if result.status != "passed"
    } == dict.fromkeys(("build", "latency", "graph"), "failed")
    pids = [results[name].figures["pid"] for name in ("device", "parity", "graph", "order", "threads")]
    assert len(set(pids)) == 4  # a new one after each failure, and the same one otherwise
    assert pids[3] == pids[4]


def test_a_worker_that_does_not_start_fails_the_step():
    with InProcesses(
        lambda: Worker("gpu-check", [sys.executable, "-c", "raise SystemExit(7)"]), 5.0
    ) as runner:
        result = runner.run(PlannedStep("device", "rtx", "fp16"))
    assert (result.status, result.reason) == ("failed", "its process ended (exit status 7)")


def test_a_step_that_takes_too_long_names_the_flag():
    start = [sys.executable, "-c", WORKER]
    with InProcesses(lambda: Worker("gpu-check", start), 0.5, spell_for_command_line) as runner:
        result = runner.run(PlannedStep("latency", "rtx", "fp16"))
    assert result.reason == "took more than 0.5 s, so it was ended. Allow more with --step-seconds."


def test_an_error_of_the_worker_keeps_its_remedy():
    code = """if True:
        for _ in open(0):
            print('{"error": "no GPU", "remedy": "Use {simulate}", "settings": {"simulate": true}}', flush=True)
    """
    start = [sys.executable, "-c", code]
    with InProcesses(lambda: Worker("gpu-check", start), 5.0, spell_for_command_line) as runner:
        result = runner.run(PlannedStep("device", "rtx", "fp16"))
    assert (result.status, result.reason) == ("failed", "no GPU. Use --simulate.")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MissingError("no cv2", remedy="Use {frames}", settings={"frames": 12}), "no cv2. Use --frames 12."),
        (OSError("no space"), "OSError: no space"),
    ],
)
def test_a_target_that_cannot_be_made_fails_the_step(error, reason):
    def target_of(flavor):
        raise error

    result = InThisProcess(target_of, 12, spell_for_command_line).run(PlannedStep("graph", "rtx", "fp16"))
    assert (result.status, result.reason) == ("failed", reason)
    assert result.trace[-1].endswith(" target_of")


# --- the report ---------------------------------------------------------------------------------------------------


def result_of(name="graph", status="passed", **parts):
    return StepResult(PlannedStep(name, "rtx", "fp16"), status, **{"seconds": 1.25, **parts})


def report_of(vif, *results, is_simulated=False):
    date = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    return GpuCheckReport("GPU X", Bundle.open(vif), results, is_simulated, {"cores": 2}, date)


BUILT = {
    "kernels": 93,
    "attentions": 8,
    "fused_attentions": 8,
    "bytes_moved": 682_000_000,
    "batch": 1,
    "build_s": 1.1,
    "first_start_s": 2.5,
    "second_start_s": 0.5,
    "engine": {"version": "1.7.1.116"},
}
DEVICE = {
    "compute_capability": "8.9",
    "memory_bytes": 24 << 30,
    "driver": {"version": "580.65.06", "gpus": []},
    "driver_cuda": "13.0",
    "copy_gb_per_s": 912.5,
}
VERDICTS = [
    ("passed: 2 steps on GPU X with rtx 1.7.1.116", [("build", {"figures": BUILT}), ("graph", {})]),
    ("passed: 1 step on GPU X with no new engine", [("graph", {})]),
    (
        "passed: 2 steps on GPU X with rtx 1.7.1.116, 1 skipped, 1 with notes",
        [
            ("build", {"figures": BUILT}),
            ("graph", {"notes": ("slow",)}),
            ("parity", {"status": "skipped", "reason": "no"}),
        ],
    ),
    (
        "failed: 1 of 2 steps on GPU X: rtx build fp16",
        [("build", {"status": "failed", "reason": "no"}), ("graph", {})],
    ),
    (
        "failed: every step was skipped on GPU X: sm90",
        [("device", {"figures": DEVICE}), ("build", {"status": "skipped", "reason": "sm90"})],
    ),
]


@pytest.mark.parametrize(("verdict", "steps"), VERDICTS)
def test_verdicts(verdict, steps, vif):
    report = report_of(vif, *(result_of(name, **parts) for name, parts in steps))
    assert report.verdict == verdict
    assert report.has_passed == verdict.startswith("passed")
    assert report.to_markdown().startswith(f"# tcmoa gpu-check: {verdict}\n")


def test_a_simulated_failure_is_marked_too(vif):
    report = report_of(vif, result_of(status="failed", reason="no"), is_simulated=True)
    assert report.verdict == "simulated, failed: 1 of 1 step on GPU X: rtx graph"
    assert report.to_json()["passed"] is False


def test_a_dry_run_has_not_passed(vif):
    walked = result_of(status="simulated")
    assert report_of(vif, walked, is_simulated=True).to_json()["passed"] is None
    assert report_of(vif, result_of()).to_json()["passed"] is True


def test_the_report_in_markdown(vif):
    failed = result_of("leaks", "failed", reason="a | b\nc", notes=("slow",), trace=("a.py:1 f", "b.py:2 g"))
    text = report_of(vif, result_of(), failed).to_markdown()
    assert "| rtx graph | passed | 1.2 |  |" in text
    assert "| rtx leaks | failed | 1.2 | a \\| b c |" in text
    assert "- **rtx leaks** failed: a | b\nc\n    - note: slow\n    - calls: a.py:1 f, b.py:2 g\n" in text
    assert "2026-01-02 03:04 UTC" in text
    assert "SIMULATED" not in text


TIMES = {"frames": 300, "p50_ms": 1.5, "p99_ms": 2.25, "fps": 640.0}
LATENCY = {
    "size": "640x480",
    "batch": 1,
    "bound_ms": 0.68,
    "bound_source": "kernels and datasheet",
    "with_graph": TIMES,
    "without_graph": {**TIMES, "p50_ms": 2.0},
    "on_gpu": {**TIMES, "p50_ms": 1.02},
    "in_flight_fps": 900.0,
    "tiled": {**TIMES, "size": "1280x720", "tiles": 6, "bound_ms": 4.08, "p50_ms": 10.2},
}
SUMMARIES = {
    "device": (DEVICE, "compute capability 8.9, 24.0 GiB, driver 580.65.06 for CUDA 13.0, copies 912.5 GB/s"),
    "build": (
        BUILT,
        "93 kernels, 8 of 8 attentions fused, 0.682 GB per frame; built in 1.1 s, starts in 2.5 s, then 0.5 s",
    ),
    "parity": ({"min_psnr_db": 55.25, "required_db": 50.0}, "55.25 dB to the CPU (at least 50)"),
    "latency": (
        LATENCY,
        "640x480: p50 1.5 ms, p99 2.25 ms, 640 frames/s, 900 with 2 in flight; on the GPU p50 1.02 ms (1.5 times the "
        "bound of 0.68 ms); without CUDA graph p50 2 ms; 1280x720 in 6 tiles: p50 10.2 ms, p99 2.25 ms, 640 frames/s "
        "(2.5 times the bound of 4.08 ms)",
    ),
    "arrays": ({"protocols": ["dlpack"], "libraries": ["cupy 14.0"]}, "dlpack, cupy 14.0"),
    "leaks": (
        {"frames": 999, "gpu_bytes": [1e8, 1e8, 1.5e8], "gpu_memory_of": "this process"},
        "999 frames; GPU 100.0 to 150.0 MB (this process)",
    ),
    "graph": ({"captured": True}, ""),
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_step_in_one_line(name):
    figures, line = SUMMARIES[name]
    assert step_row(result_of(name, figures=figures))[3] == line


def test_figures_of_a_batch_say_so():
    latency = step_row(result_of("latency", figures={**LATENCY, "batch": 4}))[3]
    assert latency.startswith("640x480: p50 1.5 ms per batch of 4, p99 2.25 ms, ")
    assert latency.count("batch") == 1
    build = step_row(result_of("build", figures={**BUILT, "batch": 4}))[3]
    assert ", 0.171 GB per frame; " in build  # 682 MB for four frames


def test_a_gpu_without_a_bound_or_tiles():
    figures = {key: value for key, value in LATENCY.items() if key != "tiled"} | {"bound_ms": None}
    line = step_row(result_of("latency", figures=figures))[3]
    assert line.endswith("on the GPU p50 1.02 ms; without CUDA graph p50 2 ms")


def test_the_machine_is_described_by_versions():
    machine = describe_machine()
    assert {"numpy", "onnxruntime", "tcmoa"} <= set(machine["packages"])
    assert machine["python"] == platform.python_version()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/home/ann/bundles/night/engines/a.engine: 1 byte", ".../a.engine: 1 byte"),
        ("no '/opt/x/lib.so.13' (see ~/notes/a b)", "no '.../lib.so.13' (see .../a b)"),
        ("12 frames/s, 1/2, and/or", "12 frames/s, 1/2, and/or"),
        ("libcudart.so.13 of https://nvidia.com/x", "libcudart.so.13 of https://nvidia.com/x"),
        ("cannot open /", "cannot open /"),
        ("see file:///home/alice9/x/graph.onnx", "see .../graph.onnx"),
    ],
)
def test_paths_are_left_out(text, clean):
    assert without_private_data({"a": [text, 1, None, True]}) == {"a": [clean, 1, None, True]}


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/home/John Smith/bundles/graph.onnx: 1 byte", ".../graph.onnx: 1 byte"),
        ("file:///home/John Smith/graph.onnx", ".../graph.onnx"),
        ("no folder '/home/John Smith'. Create it", "no folder '/'. Create it"),
        ("cannot read /home/John Smith.", "cannot read .../."),
        ("/home/John Smith/a temporary/x/a.bin", ".../a.bin"),
        ("/home/John Smithson/a", ".../John Smithson/a"),
        (
            "https://nvidia.com/x, cannot open /, and/or 1/2",
            "https://nvidia.com/x, cannot open /, and/or 1/2",
        ),
    ],
)
def test_known_folders_are_left_out_whatever_their_names(text, clean, monkeypatch):
    home = "/home/John Smith"
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(privacy.tempfile, "gettempdir", lambda: f"{home}/a temporary")
    monkeypatch.setattr(sys, "prefix", "/usr")  # of one part, which tells nothing
    monkeypatch.setattr(privacy, "_private_names", lambda: None)
    assert without_private_data({"a": [text]}) == {"a": [clean]}


def test_the_home_of_a_user_with_a_short_name_is_left_out(monkeypatch):
    monkeypatch.setenv("HOME", "/home/bob")
    assert "bob" not in without_private_data("cannot read /home/bob, /home/bob/ or /home/bob/x")


def test_a_current_folder_that_was_deleted_does_no_harm(monkeypatch, tmp_path):
    def fail():
        raise FileNotFoundError

    monkeypatch.setattr(Path, "cwd", fail)
    assert without_private_data(f"{Path.home()}/a/b") == ".../b"


def test_names_of_the_machine_and_the_user_are_left_out(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "rhubarb.example.org")
    monkeypatch.setattr(getpass, "getuser", lambda: "annabel")
    assert (
        without_private_data("Annabel@RHUBARB, rhubarb.example.org; annabelle") == "...@..., ...; annabelle"
    )
    monkeypatch.setattr(platform, "node", lambda: "gpu")
    monkeypatch.setattr(getpass, "getuser", lambda: "root")
    assert privacy._private_names() is None


def test_errors_of_any_kind_are_one_line():
    assert describe_error(ValueError("one\ntwo")) == "ValueError: one"
    assert describe_error(ZeroDivisionError()) == "ZeroDivisionError"
    error = MissingError("no GPU", remedy="Use {backend}", settings={"backend": "onnxruntime"})
    assert describe_error(error) == "no GPU. Use backend='onnxruntime'."


def test_numbers_are_removed_at_any_depth():
    value = {"a": [1, 2.5, "x", True, None], "b": {"c": 3}}
    assert without_numbers(value) == {"a": [None, None, "x", True, None], "b": {"c": None}}


def test_options_are_one_frozen_dataclass():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GpuCheckOptions().frames = 3
    assert re.fullmatch(r"gpu-report\.md", str(GpuCheckOptions().out))
