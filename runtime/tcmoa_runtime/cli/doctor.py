"""`tcmoa doctor`: what is installed, what it can do here, and whether a bundle would load.

Nothing that is broken here ends it: each fault becomes a line among the problems.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tcmoa_runtime.backends.tensorrt.engine_loading import MODULES
from tcmoa_runtime.bench.measure import processor
from tcmoa_runtime.cli.doctor_bundle import Flavor, verdict
from tcmoa_runtime.cli.progress import print_json
from tcmoa_runtime.engine import FLAVORS
from tcmoa_runtime.errors import MissingError, TcmoaError
from tcmoa_runtime.gpu import cuda

PACKAGES: Final = {
    "numpy": "",
    "opencv-python-headless": "",
    "onnxruntime": "",
    "onnxruntime-gpu": "",
    "onnxruntime-ep-nv-tensorrt-rtx": "",
    "openvino": "openvino",
    "cuda-bindings": "rtx",
    "tensorrt-rtx-cu13-bindings": "rtx",
    "tensorrt-rtx-cu13-libs": "rtx",
    "tensorrt": "tensorrt",
    "onnx": "export",
    "ml-dtypes": "export",
    "torch": "export",
    "safetensors": "export",
    "scikit-image": "export",
}
"""Packages that matter here, and the extra that brings each."""

_INSTEAD: Final = ("onnxruntime-gpu", "onnxruntime-ep-nv-tensorrt-rtx")
"""Packages that nothing misses: they are named where they are installed."""
_PROBE_SECONDS: Final = 60.0
_PROBE: Final = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
targets = getattr(getattr(module, "ComputeCapability", None), "__members__", ())
print(json.dumps([str(module.__version__), [name.lower() for name in targets]]))
"""


def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle to try.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Tell what is installed and usable here; with a bundle, whether it and its engines would load.

    Exit code 2 when the bundle is refused, or an engine of it has to be built again.
    """
    report = examine(bundle)
    if as_json:
        print_json(report)
    else:
        _print(report)
    return 0 if report["bundle"] is None or report["bundle"]["verdict"] == "load" else 2


def examine(bundle: Path | None) -> dict[str, Any]:
    """The report: `packages` by name, `devices`, `driver`, `flavors` by name, `problems`, and `bundle`.

    `driver`: the CUDA version that the NVIDIA driver supports, null without one. A flavor has its `version`
    (null when it cannot be imported), whether it `builds` and `runs` here, and `why` not. `bundle` is null when
    none was named; otherwise see `verdict`.
    """
    problems: list[str] = []
    packages = {name: _version(name) for name in PACKAGES}
    if packages["onnxruntime"] and packages["onnxruntime-gpu"]:
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; "
            "run `pip uninstall onnxruntime onnxruntime-gpu`, then install one of them"
        )
    cpu = {
        "kind": "cpu",
        "name": processor(),
        "cores": os.cpu_count(),
        "providers": _providers(problems),
    }
    gpus = _find_gpus(problems)
    flavors = {name: _examine_flavor(name, gpus, problems) for name in FLAVORS}
    return {
        "python": platform.python_version(),
        "packages": packages,
        "devices": [cpu, *(_device_to_json(device) for device in gpus.devices)],
        "driver": gpus.devices[0].driver if gpus.devices else None,
        "flavors": {name: flavor.to_json() for name, flavor in flavors.items()},
        "problems": problems,
        "bundle": None if bundle is None else verdict(bundle, flavors, gpus.current, problems),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _providers(problems: list[str]) -> list[str]:
    """What ONNX Runtime has; in this process, as fusing on the CPU is nothing else."""
    try:
        import onnxruntime

        return list(onnxruntime.get_available_providers())
    except Exception as error:  # a library that does not fit the system fails with more than ImportError
        problems.append(
            f"onnxruntime cannot be imported ({_line(error)}); run `pip install --force-reinstall onnxruntime`"
        )
        return []


@dataclass(frozen=True)
class _Gpus:
    """The GPUs that CUDA shows, the one that would be used, and why there is none."""

    devices: list[cuda.Device] = field(default_factory=list)
    current: cuda.Device | None = None
    why: str = ""


def _find_gpus(problems: list[str]) -> _Gpus:
    """Asked in this process: cuda.bindings and NVIDIA's driver answer with an error code when something is wrong.

    A driver that ends the process that asks for its devices would end the fusing, too.
    """
    try:
        return _Gpus(cuda.Device.all(), cuda.Device.current())
    except MissingError as error:
        text = str(error).removesuffix("; use --backend onnxruntime")
        return _Gpus(why=text.removesuffix(", or use --backend onnxruntime"))
    except TcmoaError as error:
        problems.append(str(error))
        return _Gpus(why=str(error))
    except Exception as error:  # as above
        problems.append(f"cuda.bindings does not work ({_line(error)}); run `pip install -U cuda-bindings`")
        return _Gpus(why=f"cuda.bindings does not work ({_line(error)})")


def _examine_flavor(name: str, gpus: _Gpus, problems: list[str]) -> Flavor:
    """What a flavor of TensorRT can do here."""
    if not _is_there(MODULES[name]):
        return Flavor(name, why=f"{MODULES[name]} is not installed; run `pip install 'tcmoa[{name}]'`")
    try:
        version, targets = _probe(MODULES[name])
    except MissingError as error:
        problems.append(str(error))
        return Flavor(name, why=str(error), crashes=isinstance(error, _CrashError))
    reasons = []
    runs = gpus.current is not None
    if gpus.current is None:
        reasons.append(f"no GPU runs it: {gpus.why}")
    elif targets and _target(gpus.current) not in targets:
        runs = False
        reasons.append(
            f"TensorRT-RTX {version} knows {', '.join(t for t in targets if t.startswith('sm'))}, this GPU is "
            f"{_target(gpus.current)}; use the flavor tensorrt"
        )
    missing = [module for module in ("onnx", "ml_dtypes") if not _is_there(module)]
    builds = not missing and (name == "rtx" or runs)
    if missing:
        reasons.append(f"building needs {' and '.join(missing)}; run `pip install 'tcmoa[{name}]'`")
    elif not builds:
        reasons.append("building needs the GPU, too")
    return Flavor(name, version, tuple(targets), builds, runs, "; ".join(reasons) or None)


def _target(device: cuda.Device) -> str:
    return "sm" + device.compute_capability.replace(".", "")


def _is_there(module: str) -> bool:
    """Whether a module was imported, or could be; without importing it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None


class _CrashError(MissingError):
    """Importing a library ends the process, or never ends."""


def _probe(module: str) -> tuple[str, list[str]]:
    """Version of a library, and the targets that it builds for; MissingError when it cannot be imported.

    It is imported in a process of its own, as a native library that does not fit the system may end the one
    that loads it. What this process has imported already has survived that.
    """
    if module in sys.modules:
        loaded = sys.modules[module]
        targets = getattr(getattr(loaded, "ComputeCapability", None), "__members__", ())
        return str(loaded.__version__), [name.lower() for name in targets]
    command = [sys.executable, "-P", "-c", _PROBE, module]
    advice = "run `pip install --force-reinstall` for it, or uninstall it"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise _CrashError(
            f"{module} was not imported within {_PROBE_SECONDS:.0f} seconds; {advice}"
        ) from None
    if done.returncode < 0:
        raise _CrashError(f"importing {module} ends Python by signal {-done.returncode}; {advice}")
    try:
        if done.returncode == 0:
            version, targets = json.loads(done.stdout.splitlines()[-1])
            return str(version), list(targets)
    except (ValueError, IndexError, TypeError):
        pass
    reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
    raise MissingError(f"{module} cannot be imported ({reason}); {advice}")


def _device_to_json(device: cuda.Device) -> dict[str, Any]:
    return {
        "kind": "cuda",
        "index": device.index,
        "name": device.name,
        "compute_capability": device.compute_capability,
        "memory": device.memory,
    }


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _print(report: dict[str, Any]) -> None:
    print(f"python {report['python']}")
    for name, version in report["packages"].items():
        extra = PACKAGES[name]
        if version or name not in _INSTEAD:
            print(
                f"{name} {version or 'not installed' + (f' (pip install tcmoa[{extra}])' if extra else '')}"
            )
    for device in report["devices"]:
        if device["kind"] == "cpu":
            print(f"cpu: {device['name']}, {device['cores']} cores; {', '.join(device['providers'])}")
        else:
            print(
                f"gpu {device['index']}: {device['name']}, compute capability {device['compute_capability']}, "
                f"{device['memory'] / 2**30:.1f} GiB, driver for CUDA {report['driver']}"
            )
    for name, flavor in report["flavors"].items():
        can = [what for key, what in (("builds", "builds engines"), ("runs", "runs engines")) if flavor[key]]
        text = f"{name} {flavor['version'] or ''}".strip() + f": {' and '.join(can) or 'not usable here'}"
        print(text + (f"; {flavor['why']}" if flavor["why"] else ""))
    for problem in report["problems"]:
        print(f"problem: {problem}")
    if report["bundle"] is not None:
        for engine in report["bundle"]["engines"]:
            print(f"engine {engine['file']}: {engine['verdict']}: {engine['why']}")
        print(f"bundle: {report['bundle']['verdict']}: {report['bundle']['why']}")
