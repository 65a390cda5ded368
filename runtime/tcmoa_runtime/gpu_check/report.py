"""The report of the GPU check: one line of verdict, a table for people, and JSON for programs, in one Markdown file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Final, cast

from tcmoa_runtime._version import __version__
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.gpu_check.privacy import without_private_data
from tcmoa_runtime.gpu_check.result import StepResult
from tcmoa_runtime.images import format_size
from tcmoa_runtime.machine import processor_name
from tcmoa_runtime.typing import JsonObject

SIMULATED: Final = "SIMULATED: no GPU was used, and nothing was measured"
"""What a report of a dry run says in its head."""

_PACKAGES: Final = (
    *("tcmoa", "tensorrt", "cuda-", "nvidia-", "onnx", "ml-dtypes", "numpy", "opencv", "torch", "cupy"),
    *("pycuda", "numba", "openvino"),
)
"""Beginnings of the names of packages that are listed."""


@dataclass(frozen=True)
class GpuCheckReport:
    """What a check found.

    Attributes:
        gpu: Name of the GPU, or that of the simulation.
        bundle: The bundle that was checked.
        results: Results of the steps in their order.
        is_simulated: Whether it was a dry run.
        machine: Versions of everything.
        date: When it ended.
    """

    gpu: str
    bundle: Bundle
    results: Sequence[StepResult]
    is_simulated: bool
    machine: JsonObject
    date: datetime

    @property
    def failed(self) -> list[StepResult]:
        """Steps that failed."""
        return [result for result in self.results if result.status == "failed"]

    @property
    def has_passed(self) -> bool:
        """Whether no step failed, and at least one was not skipped."""
        return not self.failed and any(result.status != "skipped" for result in self._checked)

    @property
    def verdict(self) -> str:
        """One line that says how the check ended."""
        num_steps = len(self.results)
        mark = "simulated, " if self.is_simulated else ""
        if self.failed:
            names = ", ".join(result.step.title for result in self.failed)
            return f"{mark}failed: {len(self.failed)} of {_count(num_steps)} on {self.gpu}: {names}"
        if not self.has_passed:
            why = next((result.reason for result in self.results if result.reason), "no step ran")
            return f"{mark}failed: every step was skipped on {self.gpu}: {why}"
        num_skipped = sum(result.status == "skipped" for result in self.results)
        skipped = f", {num_skipped} skipped" if num_skipped else ""
        if self.is_simulated:
            return (
                f"simulated: {_count(num_steps - num_skipped)} walked{skipped}; no GPU, nothing was measured"
            )
        num_noted = sum(bool(result.notes) for result in self.results)
        noted = f", {num_noted} with notes" if num_noted else ""
        libraries = ", ".join(self._libraries())
        return f"passed: {_count(num_steps - num_skipped)} on {self.gpu} with {libraries}{skipped}{noted}"

    def to_json(self) -> JsonObject:
        """Return plain values without private data."""
        values: JsonObject = {
            "verdict": self.verdict,
            "passed": None if self.is_simulated and self.has_passed else self.has_passed,
            "simulated": self.is_simulated,
            "gpu": self.gpu,
            "tcmoa": __version__,
            "date": f"{self.date:%Y-%m-%d %H:%M} UTC",
            "bundle": {
                "graph": self.bundle.graph_name,
                "size": format_size(self.bundle.size),
                "precision": self.bundle.precision,
            },
            "machine": self.machine,
            "steps": [result.to_json() for result in self.results],
        }
        return cast("JsonObject", without_private_data(values))

    def to_markdown(self) -> str:
        """Return the report as one Markdown file, with the JSON at its end."""
        values: Mapping[str, Any] = self.to_json()
        clean = [StepResult.from_json(step) for step in values["steps"]]
        lines = [f"# tcmoa gpu-check: {values['verdict']}", ""]
        if self.is_simulated:
            lines += [f"**{SIMULATED}.**", ""]
        lines += [
            f"tcmoa {__version__}, {values['gpu']}, bundle {values['bundle']['graph']}, {values['date']}.",
            "Paths, the name of the machine and that of the user are left out.",
            "",
            "| step | result | seconds | |",
            "|---|---|---|---|",
            *(f"| {' | '.join(_cell(text) for text in step_row(result))} |" for result in clean),
        ]
        details = [line for result in clean for line in _details(result)]
        if details:
            lines += ["", "## Failures and notes", "", *details]
        lines += ["", "## Everything", "", "```json", json.dumps(values, indent=1), "```", ""]
        return "\n".join(lines)

    @property
    def _checked(self) -> list[StepResult]:
        """The steps that need an engine; all steps if there are no others."""
        return [result for result in self.results if result.step.name != "device"] or list(self.results)

    def _libraries(self) -> list[str]:
        """Return flavor and version of the engines that were built, e.g. `rtx 1.7.1.116`."""
        found = []
        for result in self.results:
            engine = cast("Mapping[str, Any]", result.figures.get("engine") or {})
            found.append(f"{result.step.flavor} {engine.get('version') or ''}".strip())
        return list(dict.fromkeys(text for text in found if " " in text)) or ["no new engine"]


def step_row(result: StepResult) -> tuple[str, str, str, str]:
    """Return title, status, seconds and a summary of a step."""
    seconds = "" if result.seconds is None else f"{result.seconds:.1f}"
    return result.step.title, result.status, seconds, _summary(result)


def describe_machine() -> JsonObject:
    """Return the system, the CPU, and the versions of the packages that matter."""
    packages = {
        name: distribution.version
        for distribution in metadata.distributions()
        if (name := str(distribution.metadata["Name"] or "").lower().replace("_", "-")).startswith(_PACKAGES)
    }
    system = f"{platform.system()} {platform.machine()}"
    with suppress(OSError):  # not Linux, or a system without that file
        system += f", {platform.freedesktop_os_release().get('PRETTY_NAME', '')}"
    return {
        "system": system,
        "wsl": "microsoft" in platform.release().lower(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "packages": dict(sorted(packages.items())),
    }


def new_report(
    gpu: str, bundle: Bundle, results: Sequence[StepResult], *, is_simulated: bool
) -> GpuCheckReport:
    """Make the report of a check that ends now."""
    return GpuCheckReport(gpu, bundle, results, is_simulated, describe_machine(), datetime.now(UTC))


def _summary(result: StepResult) -> str:
    """Describe what a step found in a few words."""
    if result.reason is not None:
        return result.reason
    if result.status == "simulated":
        return "walked without a GPU, nothing measured"
    figures = cast("Mapping[str, Any]", result.figures)
    describe = _SUMMARIES.get(result.step.name)
    text = "" if describe is None else describe(figures)
    return "; ".join(filter(None, (text, _count(len(result.notes), "note") if result.notes else "")))


def _describe_device(figures: Mapping[str, Any]) -> str:
    driver = figures["driver"]["version"]
    return (
        f"compute capability {figures['compute_capability']}, {figures['memory_bytes'] / 2**30:.1f} GiB, "
        f"driver {driver or 'unknown'} for CUDA {figures['driver_cuda']}, copies {figures['copy_gb_per_s']:g} GB/s"
    )


def _describe_build(figures: Mapping[str, Any]) -> str:
    kernels = "no audit of the kernels"
    if figures["kernels"] is not None:
        kernels = (
            f"{figures['kernels']} kernels, {figures['fused_attentions']} of {figures['attentions']} attentions fused, "
            f"{figures['bytes_moved'] / figures['batch'] / 1e9:.3f} GB per frame"
        )
    return (
        f"{kernels}; built in {figures['build_s']:g} s, starts in {figures['first_start_s']:g} s, then "
        f"{figures['second_start_s']:g} s"
    )


def _describe_parity(figures: Mapping[str, Any]) -> str:
    return f"{figures['min_psnr_db']:g} dB to the CPU (at least {figures['required_db']:g})"


def _describe_latency(figures: Mapping[str, Any]) -> str:
    host, gpu, plain = (figures[name] for name in ("with_graph", "on_gpu", "without_graph"))
    batch = f" per batch of {figures['batch']}" if figures["batch"] > 1 else ""
    parts = [
        f"{figures['size']}: p50 {host['p50_ms']:g} ms{batch}, p99 {host['p99_ms']:g} ms, {host['fps']:g} frames/s, "
        f"{figures['in_flight_fps']:g} with 2 in flight",
        f"on the GPU p50 {gpu['p50_ms']:g} ms" + _describe_bound(gpu["p50_ms"], figures["bound_ms"]),
        f"without CUDA graph p50 {plain['p50_ms']:g} ms",
    ]
    if "tiled" in figures:
        tiled = figures["tiled"]
        parts.append(
            f"{tiled['size']} in {tiled['tiles']} tiles: p50 {tiled['p50_ms']:g} ms, p99 {tiled['p99_ms']:g} ms, "
            f"{tiled['fps']:g} frames/s" + _describe_bound(tiled["p50_ms"], tiled["bound_ms"])
        )
    return "; ".join(parts)


def _describe_bound(p50_ms: float, bound_ms: float | None) -> str:
    return "" if not bound_ms else f" ({p50_ms / bound_ms:.1f} times the bound of {bound_ms:g} ms)"


def _describe_arrays(figures: Mapping[str, Any]) -> str:
    return ", ".join((*figures["protocols"], *figures["libraries"]))


def _describe_leaks(figures: Mapping[str, Any]) -> str:
    gpu = [size / 1e6 for size in figures["gpu_bytes"]]
    return f"{figures['frames']} frames; GPU {gpu[0]:.1f} to {gpu[-1]:.1f} MB ({figures['gpu_memory_of']})"


_SUMMARIES: Final = {
    "device": _describe_device,
    "build": _describe_build,
    "parity": _describe_parity,
    "latency": _describe_latency,
    "arrays": _describe_arrays,
    "leaks": _describe_leaks,
}


def _details(result: StepResult) -> list[str]:
    """Return lines about a failure or notes; none for a step without them."""
    if result.status != "failed" and not result.notes:
        return []
    lines = [f"- **{result.step.title}** {result.status}" + (f": {result.reason}" if result.reason else "")]
    lines += [f"    - note: {note}" for note in result.notes]
    if result.trace:
        lines.append(f"    - calls: {', '.join(result.trace)}")
    return lines


def _count(number: int, noun: str = "step") -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
