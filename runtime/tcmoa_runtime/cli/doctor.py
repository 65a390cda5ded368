"""`tcmoa doctor`: what is installed, what it can do on this machine, and whether a bundle would load.

No fault of a library ends the command: each becomes a line among the problems.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer

from tcmoa_runtime.backends.tensorrt.engine_loading import MODULES
from tcmoa_runtime.cli.doctor_bundle import BundleReport, FlavorStatus, examine_bundle
from tcmoa_runtime.cli.doctor_extras import ExtraReport, describe_extras, examine_extras
from tcmoa_runtime.cli.doctor_packages import Package, describe_packages, group_by_extra, list_packages
from tcmoa_runtime.cli.options import JsonOption, spell_for_command_line
from tcmoa_runtime.cli.printing import print_json, print_line
from tcmoa_runtime.engine import FLAVORS
from tcmoa_runtime.errors import MissingError, TcmoaError, first_line
from tcmoa_runtime.gpu.cuda import CudaDevice
from tcmoa_runtime.gpu.driver_probe import Driver, probe_driver
from tcmoa_runtime.install import install_hint
from tcmoa_runtime.machine import package_versions, processor_name
from tcmoa_runtime.typing import Flavor, JsonObject

_PROBE_SECONDS: Final = 60.0
_PROBE: Final = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
targets = getattr(getattr(module, "ComputeCapability", None), "__members__", ())
print(json.dumps([str(module.__version__), [name.lower() for name in targets]]))
"""


def doctor(
    bundle: Annotated[
        Path | None, typer.Argument(help="Folder or name of a bundle to examine.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Report what is installed and usable; with a bundle, whether it and its engines would load.

    The exit code is 2 when the bundle is refused, or one of its engines has to be built again.

    Examples:

        tcmoa doctor
        tcmoa doctor night-640x480 --json
    """
    report = examine(bundle)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)
    return 0 if report.bundle is None or report.bundle.verdict == "load" else 2


@dataclass(frozen=True)
class Gpus:
    """The GPUs that CUDA shows, the one that is used, and why there is none."""

    devices: Sequence[CudaDevice] = field(default_factory=tuple)
    current: CudaDevice | None = None
    error: TcmoaError | None = None


@dataclass(frozen=True)
class DoctorReport:
    """What was found.

    Attributes:
        packages: Packages of this project and its extras.
        providers: Execution providers of ONNX Runtime.
        gpus: GPUs.
        driver: The NVIDIA driver, asked without cuda-bindings; None without one.
        extras: The extras for NVIDIA GPUs.
        flavors: What each flavor of TensorRT can do.
        problems: What is broken.
        bundle: The verdict on the bundle, None if none was named.
    """

    packages: Sequence[Package]
    providers: Sequence[str]
    gpus: Gpus
    driver: Driver | None
    extras: Sequence[ExtraReport]
    flavors: dict[Flavor, FlavorStatus]
    problems: Sequence[TcmoaError]
    bundle: BundleReport | None

    @property
    def driver_cuda_version(self) -> str | None:
        """Newest CUDA version that the NVIDIA driver supports, None without a driver."""
        if self.gpus.devices:
            return self.gpus.devices[0].driver_cuda_version
        return None if self.driver is None else ".".join(map(str, self.driver.cuda_version))

    def to_json(self) -> JsonObject:
        """Return what `--json` prints."""
        cpu: JsonObject = {
            "kind": "cpu",
            "name": processor_name(),
            "cores": os.cpu_count(),
            "providers": list(self.providers),
        }
        gpus: list[JsonObject] = [
            {
                "kind": "cuda",
                "index": device.index,
                "name": device.name,
                "compute_capability": device.compute_capability,
                "memory_bytes": device.memory_bytes,
            }
            for device in self.gpus.devices
        ]
        return {
            "python": platform.python_version(),
            "packages": {package.name: package.version for package in self.packages},
            "extras": {
                extra: {package.name: package.version for package in group}
                for extra, group in group_by_extra(self.packages).items()
                if extra
            },
            "devices": [cpu, *gpus],
            "driver": self.driver_cuda_version,
            "gpu_extras": {report.extra.name: report.to_json() for report in self.extras},
            "flavors": {name: status.to_json() for name, status in self.flavors.items()},
            "problems": [_render(problem) for problem in self.problems],
            "bundle": None if self.bundle is None else self.bundle.to_json(),
        }


def examine(bundle: Path | None) -> DoctorReport:
    """Examine this machine and, if one is named, a bundle."""
    problems: list[TcmoaError] = []
    if len(package_versions(("onnxruntime", "onnxruntime-gpu"))) == 2:
        problems.append(
            TcmoaError(
                "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
                remedy="Run `pip uninstall onnxruntime onnxruntime-gpu`, then install one of them",
            )
        )
    providers = _find_providers(problems)
    gpus = _find_gpus(problems)
    flavors = {name: _examine_flavor(name, gpus, problems) for name in FLAVORS}
    report = None if bundle is None else examine_bundle(bundle, flavors, gpus.current, problems)
    driver = _driver_of(gpus)
    return DoctorReport(
        list_packages(), providers, gpus, driver, examine_extras(driver), flavors, problems, report
    )


def _driver_of(gpus: Gpus) -> Driver | None:
    """Return the driver as CUDA showed it; where cuda-bindings is missing, as its own library does."""
    if not gpus.devices:
        return probe_driver()
    major, minor = map(int, gpus.devices[0].driver_cuda_version.split("."))
    return Driver((major, minor), tuple((device.name, device.compute_capability) for device in gpus.devices))


def _find_providers(problems: list[TcmoaError]) -> list[str]:
    """Return the providers of ONNX Runtime, imported in this process, as fusing would."""
    try:
        import onnxruntime

        return list(onnxruntime.get_available_providers())
    except Exception as error:  # a native library that does not fit the system raises more than ImportError
        problems.append(
            MissingError(
                f"onnxruntime cannot be imported ({first_line(error)})",
                remedy="Run `pip install --force-reinstall onnxruntime`",
            )
        )
        return []


def _find_gpus(problems: list[TcmoaError]) -> Gpus:
    """Ask CUDA in this process: cuda.bindings and the driver return error codes when something is wrong."""
    try:
        return Gpus(CudaDevice.all(), CudaDevice.current())
    except MissingError as error:  # a machine without a GPU is not a problem
        return Gpus(error=error)
    except TcmoaError as error:
        problems.append(error)
        return Gpus(error=error)
    except Exception as error:  # a broken package raises anything
        broken = TcmoaError(
            f"cuda.bindings does not work ({first_line(error)})", remedy="Run `pip install -U cuda-bindings`"
        )
        problems.append(broken)
        return Gpus(error=broken)


def _examine_flavor(name: Flavor, gpus: Gpus, problems: list[TcmoaError]) -> FlavorStatus:
    """Examine what a flavor of TensorRT can do here."""
    if not _is_installed(MODULES[name]):
        return FlavorStatus(why=f"{MODULES[name]} is not installed. {install_hint(name)}.")
    try:
        version, targets = _probe(MODULES[name])
    except MissingError as error:
        problems.append(error)
        return FlavorStatus(why=_render(error), crash=error if isinstance(error, _CrashError) else None)
    reasons = []
    runs = gpus.current is not None
    if gpus.current is None:
        reasons.append(f"No GPU to run engines: {'unknown' if gpus.error is None else _render(gpus.error)}")
    elif targets and gpus.current.target not in targets:
        runs = False
        known = ", ".join(target for target in targets if target.startswith("sm"))
        reasons.append(
            f"TensorRT-RTX {version} supports {known}, but this GPU is {gpus.current.target}. "
            "Use the flavor tensorrt."
        )
    missing = [module for module in ("onnx", "ml_dtypes") if not _is_installed(module)]
    builds = not missing and (name == "rtx" or runs)
    if missing:
        reasons.append(f"Building an engine needs {' and '.join(missing)}. {install_hint(name)}.")
    elif not builds:
        reasons.append("Building an engine needs a GPU too.")
    return FlavorStatus(version, tuple(targets), builds, runs, " ".join(reasons) or None)


def _is_installed(module: str) -> bool:
    """Return whether a module could be imported, without importing it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None


class _CrashError(MissingError):
    """Importing a library ends the process, or does not return."""


def _probe(module: str) -> tuple[str, list[str]]:
    """Import a library in a process of its own, as a native library that does not fit the system may crash.

    A library that this process has imported already is not imported again.

    Returns:
        The version, and the targets that the library builds for.

    Raises:
        MissingError: It cannot be imported.
    """
    if module in sys.modules:
        loaded = sys.modules[module]
        targets = getattr(getattr(loaded, "ComputeCapability", None), "__members__", ())
        return str(loaded.__version__), [name.lower() for name in targets]
    command = [sys.executable, "-P", "-c", _PROBE, module]
    remedy = "Reinstall it with `pip install --force-reinstall`, or uninstall it"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise _CrashError(
            f"importing {module} took more than {_PROBE_SECONDS:.0f} seconds", remedy=remedy
        ) from None
    if done.returncode < 0:
        raise _CrashError(f"importing {module} ends Python by signal {-done.returncode}", remedy=remedy)
    try:
        if done.returncode == 0:
            version, targets = json.loads(done.stdout.splitlines()[-1])
            return str(version), list(targets)
    except (ValueError, IndexError, TypeError):
        pass
    reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
    raise MissingError(f"{module} cannot be imported ({reason})", remedy=remedy)


def _render(error: TcmoaError) -> str:
    return error.render(spell_for_command_line)


def _print(report: DoctorReport) -> None:
    print_line(f"python {platform.python_version()}")
    for line in describe_packages(report.packages):
        print_line(line)
    print_line(f"cpu: {processor_name()}, {os.cpu_count()} cores; {', '.join(report.providers)}")
    for device in report.gpus.devices:
        print_line(
            f"gpu {device.index}: {device.name}, compute capability {device.compute_capability}, "
            f"{device.memory_bytes / 2**30:.1f} GiB, driver for CUDA {report.driver_cuda_version}"
        )
    if not report.gpus.devices and report.driver is not None:
        for name, capability in report.driver.gpus:
            print_line(
                f"gpu: {name}, compute capability {capability}, driver for CUDA {report.driver_cuda_version}"
            )
    for line in describe_extras(report.driver, report.extras):
        print_line(line)
    for name, status in report.flavors.items():
        abilities = [text for can, text in ((status.builds, "builds"), (status.runs, "runs")) if can]
        text = f"{' and '.join(abilities)} engines" if abilities else "not usable here"
        print_line(
            f"{name} {status.version or ''}".strip() + f": {text}" + (f". {status.why}" if status.why else "")
        )
    for problem in report.problems:
        print_line(f"problem: {_render(problem)}")
    if report.bundle is not None:
        for engine in report.bundle.engines:
            print_line(_line(f"engine {engine.path.name}: {engine.verdict}: {engine.why}", engine.remedy))
        print_line(_line(f"bundle: {report.bundle.verdict}: {report.bundle.why}", report.bundle.remedy))


def _line(text: str, remedy: str | None) -> str:
    return text if remedy is None else f"{text}. {remedy}"
