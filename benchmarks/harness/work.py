"""The folder with what the cases load: built once, and reused only if nothing that goes into it has changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from harness.contender import ROOT, environment
from harness.plan import Case
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.images import write_bytes

CASE: Final = "case.json"
MADE: Final = "made.json"

_SOURCES: Final = (
    "tcmoa",
    "export",
    "calibration",
    "runtime/tcmoa_runtime/bundle.py",
    "runtime/tcmoa_runtime/contract.py",
    "runtime/tcmoa_runtime/images.py",
    "benchmarks/harness/build.py",
    "benchmarks/harness/model.py",
)
"""What decides on bundles: packages and files from the root on."""
_PACKAGES: Final = ("torch", "onnx", "numpy", "opencv-python-headless")


def fingerprint(case: Case) -> str:
    """SHA-256 over everything that a case's folder depends on: the case, code, bundled weights, versions."""
    digest = hashlib.sha256(json.dumps(case.to_json(), sort_keys=True).encode())
    for package in _PACKAGES:
        digest.update(f"{package} {_version(package)}\n".encode())
    for source in _SOURCES:
        path = ROOT / source
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix in (".py", ".safetensors") and file.is_file():
                digest.update(str(file.relative_to(ROOT)).encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def read_made(folder: Path) -> dict[str, Any]:
    """What was made of a case; InputError where that was not finished."""
    try:
        made: dict[str, Any] = json.loads((folder / MADE).read_bytes())
        made["fingerprint"], made["flops"], made["pair"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder}: holds no finished case; give another --work") from error
    return made


def is_current(folder: Path, case: Case) -> bool:
    """Whether the folder holds this case, made of what there is today, and undamaged."""
    try:
        if read_made(folder)["fingerprint"] != fingerprint(case):
            return False
        for name in ("fp32", "int8"):
            if (folder / name).is_dir():
                Bundle.open(folder / name).check()
    except TcmoaError:
        return False
    return (folder / "fp32").is_dir()


def prepare(case: Case, work: Path, threads: int, say: Callable[[str], None]) -> Path:
    """The case's folder in `work`, built in a process of its own unless it is there already.

    Raises InputError where the folder holds something that this did not make, TcmoaError where building fails.
    """
    folder = work / case.name
    if is_current(folder, case):
        say(f"{case.name}: reusing {folder}")
        return folder
    if folder.exists():
        if not (folder / CASE).is_file():
            raise InputError(f"{folder}: is not of this benchmark and stays; give another --work")
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
    write_bytes(folder / CASE, (json.dumps(case.to_json(), indent=1) + "\n").encode())
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "harness.build", str(folder), str(threads)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(threads),
        ) as process,
    ):
        assert process.stdout is not None  # it was asked for
        for line in process.stdout:
            if line.startswith(("exporting", "calibrating")):
                say(f"{case.name}: {line.strip()}")
        process.wait()
        errors.seek(0)
        said = errors.read()
    if process.returncode:
        reason = (said.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        kind = InputError if process.returncode == InputError.exit_code else TcmoaError
        raise kind(f"{case.name}: {reason.removeprefix('speed: ')}")
    return folder
