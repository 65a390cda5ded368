"""Test the GPU of this machine and write a report for a bug report or a pull request: `make gpu-check`.

    python benchmarks/gpu_check.py [--out gpu-report.txt]

Runs `pytest -m gpu`, which builds engines of a small model for this GPU in each precision and with each installed
flavor of TensorRT, compares their frames with those of ONNX Runtime, and prints latencies. The report contains the
output of `tcmoa doctor --json`, `nvidia-smi` and pytest (with latencies and statistics of each engine's kernels), and
the packages of this environment. It is plain text and contains paths of this machine: read it before you send it.

The exit code is pytest's (0: all tests passed), or 3 without a report if there is no GPU.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tcmoa_runtime import InputError, TcmoaError, __version__
from tcmoa_runtime.gpu import cuda
from tcmoa_runtime.images import write_bytes

ROOT = Path(__file__).resolve().parents[1]
TCMOA = [sys.executable, "-P", "-c", "from tcmoa_runtime.cli import main; main()"]
PYTEST = [sys.executable, "-m", "pytest", "-m", "gpu", "-s", "-v", "-p", "no:cacheprovider"]


def run(command: Sequence[str], *, echo: bool = False) -> tuple[int, str]:
    """Run a command; returns its exit code and its merged output, which is printed at once with `echo`."""
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if echo:
                print(line, end="", flush=True)
    return process.returncode, "".join(lines)


def section(title: str, text: str) -> str:
    """Format a section of the report."""
    return f"== {title} ==\n{text.rstrip()}\n"


def report() -> tuple[int, str]:
    """Run the checks; returns pytest's exit code and the report."""
    head = f"tcmoa {__version__}, python {platform.python_version()}, {platform.platform()}, "
    parts = [section("gpu-check", head + f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")]
    parts.append(section("tcmoa doctor --json", run([*TCMOA, "doctor", "--json"])[1]))
    smi = shutil.which("nvidia-smi")
    parts.append(section("nvidia-smi", run([smi])[1] if smi else "not installed"))
    code, text = run(PYTEST, echo=True)
    parts.append(section(f"pytest -m gpu -s -v: exit code {code}", text))
    parts.append(section("pip freeze", run([sys.executable, "-m", "pip", "freeze", "--exclude-editable"])[1]))
    return code, "\n".join(parts)


def main() -> int:
    """Run the checks, write the report, and return the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-report.txt"), help="file of the report")
    out = parser.parse_args().out.absolute()
    try:
        cuda.CudaDevice.current()
    except TcmoaError as error:
        print(f"gpu-check: no GPU to check: {error.problem}", file=sys.stderr)
        return 3
    code, text = report()
    try:
        write_bytes(out, text.encode())
    except InputError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    print(f"gpu-check: {'all tests passed' if code == 0 else 'some tests failed'}; the report is {out}")
    return code


if __name__ == "__main__":
    sys.exit(main())
