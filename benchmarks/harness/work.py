"""The folders of the cases: built once, and reused until something that they depend on changes."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from harness.contender import ROOT, environment
from harness.plan import Case
from tcmoa_runtime.bench.worker import python_module
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.images import write_bytes
from tcmoa_runtime.typing import OnMessage

CASE_FILE: Final = "case.json"
BUILD_RECORD: Final = "made.json"

_FINGERPRINT_PATHS: Final = (
    "tcmoa",
    "export",
    "calibration",
    "runtime/tcmoa_runtime/bundle.py",
    "runtime/tcmoa_runtime/contract.py",
    "runtime/tcmoa_runtime/images.py",
    "benchmarks/harness/build.py",
    "benchmarks/harness/model.py",
)
"""Sources that determine the content of a bundle, relative to the root."""
_FINGERPRINT_PACKAGES: Final = ("torch", "onnx", "numpy", "opencv-python-headless")


def fingerprint(case: Case) -> str:
    """Return the SHA-256 of everything that a case's folder depends on: the case, code, bundled weights, versions."""
    digest = hashlib.sha256(json.dumps(case.to_json(), sort_keys=True).encode())
    for package in _FINGERPRINT_PACKAGES:
        digest.update(f"{package} {_version(package)}\n".encode())
    for source in _FINGERPRINT_PATHS:
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


def read_build_record(folder: Path) -> dict[str, Any]:
    """Read the build record of a case; raises InputError if the build was not finished."""
    try:
        made: dict[str, Any] = json.loads((folder / BUILD_RECORD).read_bytes())
        made["fingerprint"], made["flops"], made["pair"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError("no finished case", subject=folder, remedy="Use another --work") from error
    return made


def is_current(folder: Path, case: Case) -> bool:
    """Return whether the folder contains this case, up to date and undamaged."""
    try:
        if read_build_record(folder)["fingerprint"] != fingerprint(case):
            return False
        for name in ("fp32", "int8"):
            if (folder / name).is_dir():
                Bundle.open(folder / name).check()
    except TcmoaError:
        return False
    return (folder / "fp32").is_dir()


def prepare(case: Case, work: Path, threads: int, on_message: OnMessage) -> Path:
    """Return the folder of a case in `work`, after building it in another process if needed.

    Raises:
        InputError: The folder contains something else.
        TcmoaError: The build failed.
    """
    folder = work / case.name
    if is_current(folder, case):
        on_message(f"{case.name}: reusing {folder}")
        return folder
    if folder.exists():
        if not (folder / CASE_FILE).is_file():
            raise InputError("not a folder of this benchmark", subject=folder, remedy="Use another --work")
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot be created: {error.strerror}", subject=folder) from error
    write_bytes(folder / CASE_FILE, (json.dumps(case.to_json(), indent=1) + "\n").encode())
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            python_module("harness.build", str(folder), str(threads)),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(threads),
        ) as process,
    ):
        assert process.stdout is not None  # because of stdout=PIPE
        for line in process.stdout:
            if line.startswith(("exporting", "calibrating")):
                on_message(f"{case.name}: {line.strip()}")
        process.wait()
        errors.seek(0)
        messages = errors.read()
    if process.returncode:
        reason = (messages.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        kind = InputError if process.returncode == InputError.exit_code else TcmoaError
        raise kind(reason.removeprefix("speed: "), subject=case.name)
    return folder
