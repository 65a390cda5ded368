"""The machine and software of a run: processor, versions, commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from typing import Any, Final

from harness.contender import ROOT
from tcmoa_runtime.machine import processor_name

PACKAGES: Final = ("tcmoa", "torch", "onnxruntime", "openvino", "onnx", "numpy", "opencv-python-headless")


def describe() -> dict[str, Any]:
    """Return the processor, its cores, the memory in GB, and the system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "flags": cpu_flags(),
    }


def cpu_flags() -> list[str]:
    """Return the processor's instruction sets for low precision: AVX-512, VNNI, BF16, AMX."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            line = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return []
    relevant = {
        "avx2",
        "avx512f",
        "avx512_vnni",
        "avx_vnni",
        "avx512_bf16",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
        "i8mm",
    }
    return sorted(relevant & set(line.split()))


def versions() -> dict[str, str]:
    """Return the installed versions of the measured packages."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the short hash of the commit, with `-dirty` after local changes; empty outside of a checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # no git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def slug(cpu: str) -> str:
    """Convert the name of a processor for use in a file name, e.g. `amd-epyc-9b14`."""
    plain = re.sub(r"\((r|tm|c)\)", "", cpu.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "unknown"
