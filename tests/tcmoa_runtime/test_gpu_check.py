"""`make gpu-check` without a GPU, and its report with the long steps replaced."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulated import cuda_runtime

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_check.py"


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The script as a module, with --out in `tmp_path`."""
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--out", str(tmp_path / "report.txt")])
    return module


def test_without_a_gpu_the_exit_code_is_3(tmp_path):
    out = tmp_path / "report.txt"
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(out)],
        env=hidden,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("gpu-check: no GPU to check: no ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [0, 1])
def test_the_report_contains_the_output_of_the_tests(code, script, monkeypatch, tmp_path, capsys):
    cuda_runtime.install(monkeypatch, cuda_runtime.Device())
    monkeypatch.setattr(
        script, "PYTEST", [sys.executable, "-c", f"print('p50 1.234 ms'); raise SystemExit({code})"]
    )
    monkeypatch.setattr(script.shutil, "which", lambda _: None)
    assert script.main() == code
    printed = capsys.readouterr().out
    assert "p50 1.234 ms" in printed
    assert ("all tests passed" in printed) == (code == 0)
    text = (tmp_path / "report.txt").read_text()
    assert f"exit code {code} ==\np50 1.234 ms\n" in text
    assert '"flavors": {"tensorrt": ' in text
    assert "== nvidia-smi ==\nnot installed\n" in text
    assert "\nnumpy==" in text


def test_a_report_that_cannot_be_written_is_one_line(script, monkeypatch, tmp_path, capsys):
    cuda_runtime.install(monkeypatch, cuda_runtime.Device())
    monkeypatch.setattr(script, "report", lambda: (0, "text"))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--out", str(tmp_path / "none" / "report.txt")])
    assert script.main() == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_makefile_runs_it():
    makefile = (ROOT / "Makefile").read_text()
    assert "\ngpu-check: " in makefile
    assert "benchmarks/gpu_check.py --out gpu-report.txt" in makefile
