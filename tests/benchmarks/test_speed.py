"""`benchmarks/speed.py`: all stages on a micro model, refusals, and wrong input. No figure is judged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import speed
from harness.gemm import Limit
from harness.plan import ALL, EAGER, FULL, QUICK
from harness.process import ProcessTimes

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "speed.py"


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_quick_runs_all_stages(tmp_path):
    out = tmp_path / "results"
    done = run("--quick", "--threads", 1, "--out", out, "--work", tmp_path / "work", cwd=tmp_path)
    # On a busy machine the run is inconclusive, but its results are written.
    assert done.returncode in (0, 3), done.stderr
    if done.returncode:
        assert done.stderr.startswith("speed: too noisy: ")
        assert len(done.stderr.splitlines()) == 1
    assert "planned: micro-112, micro-224x112; about " in done.stdout
    assert "micro-112: round 2 of 2" in done.stdout
    (history,) = out.glob("*.json")
    assert {p.name for p in out.iterdir()} == {history.name, "speed.md", "latency.png", "limit.png"}
    for name in ("latency.png", "limit.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    found = json.loads(history.read_bytes())
    assert found["quick"] is True
    assert found["threads"] == 1
    assert {"cpu", "cores", "kernel"} <= found["machine"].keys()
    assert {"torch", "onnxruntime"} <= found["versions"].keys()
    case = found["cases"]["micro-112"]
    assert case["flops"] > 1e6
    assert list(case["contenders"]) == list(ALL)
    for name, entry in case["contenders"].items():
        if "openvino" in name and entry["status"] == "not run":
            continue  # not installed, or no bfloat16 there
        assert entry["status"] in ("measured", "too noisy"), (name, entry)
        assert {"load_ms", "first_ms", "counted", "tried", "peak_mb", "ratio", "psnr_db"} <= entry.keys()
        assert len(entry["round_medians_ms"]) == 2
        # All contenders produce the same image, within the accuracy of 16 and 8 bits.
        assert entry["psnr_db"] is None or entry["psnr_db"] > (50 if entry["limit"] == "fp32" else 20)
    assert case["contenders"][EAGER]["differing"] == 0
    assert case["notes"]["naive ONNX"].startswith("torch")
    assert found["process"]["parts_ms"].keys() == {
        "interpreter",
        "import",
        "load",
        "read the pair",
        "first frame",
    }
    text = (out / "speed.md").read_text()
    assert "## micro-224x112" in text
    assert "A --quick run" in text
    assert list((tmp_path / "work" / "micro-112").glob("*.onnx"))


@pytest.fixture
def without_work(monkeypatch, tmp_path):
    """Nothing is built or started; `case` makes the figures."""

    def prepare(case):
        monkeypatch.setattr(speed, "prepare", lambda *_: tmp_path)
        monkeypatch.setattr(
            speed, "measure_limits", lambda *_: ({"fp32": Limit(100.0, "fp32 torch", 256)}, {})
        )
        monkeypatch.setattr(
            speed, "measure_process", lambda *_: ProcessTimes(None, 0, 3, {"load": 1.0}, 1.0, False)
        )
        monkeypatch.setattr(speed, "measure_case", case)

    return prepare


def test_a_run_with_a_noisy_baseline_is_written_but_inconclusive(without_work, fake, tmp_path, capsys):
    speeds = {EAGER: 400.0, "onnxruntime": 200.0}
    without_work(lambda case, *_: fake.case(speeds, lambda name, _: 1.0 if name == EAGER else 0.0, case.name))
    assert speed.main(["--quick", "--only", "micro-112", "--threads", "1", "--out", str(tmp_path / "r")]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("speed: too noisy: eager has too few valid samples in micro-112")
    (history,) = (tmp_path / "r").glob("*.json")
    entries = json.loads(history.read_bytes())["cases"]["micro-112"]["contenders"]
    assert entries["onnxruntime"]["ratio"] is None
    assert entries["onnxruntime"]["share"] == pytest.approx(10**9 / 0.2 / 1e9 / 100)
    assert entries[EAGER]["share"] is None
    text = (tmp_path / "r" / "speed.md").read_text()
    assert "**Too noisy: eager was not measured in micro-112, so there are no ratios.**" in text
    assert "| eager | too noisy |" in text


def test_the_change_since_the_last_run_is_shown(without_work, fake, tmp_path, monkeypatch):
    arguments = ["--quick", "--only", "micro-112", "--threads", "1", "--out", str(tmp_path)]
    without_work(lambda case, *_: fake.case({EAGER: 400.0, "onnxruntime": 200.0}, name=case.name))
    assert speed.main(arguments) == 0
    assert "p50 since" not in (tmp_path / "speed.md").read_text()
    (first,) = tmp_path.glob("*.json")
    earlier = first.rename(first.with_name(first.name.replace(first.name[:4], "2000", 1)))
    without_work(lambda case, *_: fake.case({EAGER: 400.0, "onnxruntime": 150.0}, name=case.name))
    assert speed.main(arguments) == 0
    text = (tmp_path / "speed.md").read_text()
    assert f"- Since: {earlier.name}." in text
    (row,) = [line for line in text.splitlines() if line.startswith("| onnxruntime ")]
    assert row.endswith("| -25.0% |")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "huge"], "speed: case is 'huge'; expected some of base-448, tiny-640x480"),
        (["--threads", "0"], "speed: threads is 0; expected 1 to "),
        (["--quick", "--out", "{file}/results"], "cannot be created: Not a directory"),
        (["--quick", "--only", "micro-112", "--work", "{taken}"], "not a folder of this benchmark"),
    ],
)
def test_wrong_input_ends_in_one_line(arguments, message, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "micro-112").mkdir(parents=True)
    given = [a.format(file=tmp_path / "file", taken=tmp_path / "taken") for a in arguments]
    if "--threads" not in given:
        given += ["--threads", "1"]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "out")]
    assert speed.main(given) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert message in line
    assert not list(tmp_path.glob("out/*"))


def test_plans_are_consistent():
    for plan in (FULL, QUICK):
        names = [case.name for case in plan.cases]
        assert len(set(names)) == len(names)
        assert plan.process_case in names
    assert FULL.seconds < FULL.max_seconds < 25 * 60
    assert QUICK.seconds < 90
