"""`tcmoa doctor`: what is installed, what it can do here, and whether a bundle would load."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Annotated, Any

import typer

from tcmoa_runtime.backends import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli.progress import print_json
from tcmoa_runtime.errors import BundleError, TcmoaError

PACKAGES = {
    "numpy": "",
    "onnxruntime": "",
    "onnxruntime-gpu": "",
    "opencv-python-headless": "",
    "torch": "export",
    "onnx": "export",
    "safetensors": "export",
    "scikit-image": "export",
}
"""Packages that matter here, and the extra that brings each."""


def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle to try.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Tell what is installed and usable here; with a bundle, whether it would load (exit 2 when not)."""
    report = examine(bundle)
    if as_json:
        print_json(report)
    else:
        _print(report)
    refused = report["bundle"] is not None and report["bundle"]["verdict"] != "load"
    return 2 if refused else 0


def examine(bundle: Path | None) -> dict[str, Any]:
    """Packages by name, devices, problems, and the verdict on a bundle (`load` or `refuse`, and why)."""
    packages = {name: _version(name) for name in PACKAGES}
    problems = []
    if packages["onnxruntime"] and packages["onnxruntime-gpu"]:
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; "
            "run `pip uninstall onnxruntime onnxruntime-gpu`, then install one of them"
        )
    providers: list[str] = []
    try:
        import onnxruntime

        providers = list(onnxruntime.get_available_providers())
    except ImportError as error:
        problems.append(
            f"onnxruntime cannot be imported ({error}); run `pip install --force-reinstall onnxruntime`"
        )
    return {
        "python": platform.python_version(),
        "packages": packages,
        "devices": [{"kind": "cpu", "name": _cpu_name(), "cores": os.cpu_count(), "providers": providers}],
        "problems": problems,
        "bundle": None if bundle is None else verdict(bundle),
    }


def verdict(path: Path) -> dict[str, str]:
    """`load` when the bundle loads here, `refuse` with the reason otherwise."""
    try:
        opened = Bundle.open(path)
        opened.check()
        backend = load_backend(opened)
    except BundleError as error:
        return {"verdict": "refuse", "why": str(error)}
    except TcmoaError as error:
        return {"verdict": "refuse", "why": f"no backend can run it here: {error}"}
    name = backend.name
    backend.close()
    return {"verdict": "load", "why": f"hashes and contract are right, {name} runs it"}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _print(report: dict[str, Any]) -> None:
    print(f"python {report['python']}")
    for name, version in report["packages"].items():
        if version or name != "onnxruntime-gpu":
            extra = PACKAGES[name]
            print(
                f"{name} {version or 'not installed' + (f' (pip install tcmoa[{extra}])' if extra else '')}"
            )
    for device in report["devices"]:
        print(
            f"{device['kind']}: {device['name']}, {device['cores']} cores; {', '.join(device['providers'])}"
        )
    for problem in report["problems"]:
        print(f"problem: {problem}")
    if report["bundle"] is not None:
        print(f"bundle: {report['bundle']['verdict']}: {report['bundle']['why']}")
