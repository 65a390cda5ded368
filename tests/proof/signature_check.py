"""(a) Calls of the Python code against the modules in NVIDIA's wheels.

    python -m proof.signature_check MODULE FLAVOR

checks one module, in a process of its own, and prints the result as JSON.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import typing
from dataclasses import dataclass
from pathlib import Path

from proof.calls import check_calls
from proof.extras import allowed, oldest_and_newest, requirement
from proof.report import Row
from proof.sources import ROOT, product_sources
from proof.stubs import make_stubs

PIECE = "calls"


@dataclass(frozen=True)
class Library:
    """A Python module to check against.

    Attributes:
        extra: Extra that installs it.
        requirement: Start of the name of the package that the extra requires.
        packages: Packages with the module; the first that has a version is taken.
        module: The module.
        flavor: See `check_calls`.
        every: Whether to check every version, not only the oldest and the newest.
        is_optional: Whether the product does without the module where a version lacks it.
    """

    extra: str
    requirement: str
    packages: tuple[str, ...]
    module: str
    flavor: str | None = None
    every: bool = False
    is_optional: bool = False


LIBRARIES = (
    Library("rtx", "cuda-bindings", ("cuda-bindings",), "cuda.bindings.runtime"),
    Library("rtx", "cuda-bindings", ("cuda-bindings",), "cuda.bindings.driver"),
    Library("rtx", "cuda-bindings", ("cuda-bindings",), "cuda.bindings.nvml", is_optional=True),
    Library(
        "rtx", "tensorrt-rtx", ("tensorrt-rtx-cu13-bindings",), "tensorrt_rtx_bindings", "rtx", every=True
    ),
    Library("tensorrt", "tensorrt", ("tensorrt-cu13-bindings",), "tensorrt_bindings", "tensorrt"),
    Library(
        "tensorrt10",
        "tensorrt",
        ("tensorrt-cu13-bindings", "tensorrt-cu12-bindings"),
        "tensorrt_bindings",
        "tensorrt",
    ),
)


def check_library(context, library):
    """Check the versions of a module that its extra allows."""
    required = requirement(library.extra, library.requirement)
    if required is None:
        return [Row(PIECE, library.packages[0], "skipped", f"no extra {library.extra} in pyproject.toml")]
    packages = {
        version: package
        for package in reversed(library.packages)
        for version in allowed(context.wheels.versions(package), required.specifier)
    }
    versions = sorted(packages, key=_order, reverse=True)
    chosen = versions if library.every else oldest_and_newest(versions)
    if not chosen:
        return [
            Row(
                PIECE,
                library.packages[0],
                "FAILED",
                f"no version fits {required}, which the extra {library.extra} requires",
            )
        ]
    return [_check_version(context, library, packages[version], version) for version in chosen]


def _order(version):
    from packaging.version import Version

    return Version(version)


def _check_version(context, library, package, version):
    folder = context.wheels.unpack(package, version)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "tests")])}
    if library.flavor is not None:
        stubs = folder / "stubs"
        extension = next(iter(folder.glob("tensorrt*_bindings/tensorrt*.so")))
        make_stubs(extension, stubs)
        environment["LD_LIBRARY_PATH"] = str(stubs)
    command = [sys.executable, "-m", "proof.signature_check", library.module, library.flavor or "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    subject = f"{package} {version}, {library.module}"
    if library.is_optional and f"No module named '{library.module}'" in done.stderr:
        return Row(PIECE, subject, "ok", "not in this version, which the code does without")
    if done.returncode:
        return Row(
            PIECE, subject, "FAILED", f"cannot be imported: {(done.stderr.splitlines() or ['no output'])[-1]}"
        )
    return row_from(subject, json.loads(done.stdout))


def row_from(subject, result):
    """Make the row for a result of `check_module`."""
    if result["findings"]:
        return Row(PIECE, subject, "FAILED", "\n".join(result["findings"]))
    optional = (
        f"; without {', '.join(result['optional'])}, which the code does without"
        if result["optional"]
        else ""
    )
    return Row(PIECE, subject, "ok", f"{result['uses']} uses, in {', '.join(result['files'])}{optional}")


def check_module(module, flavor, sources=None):
    """Check the product's source, or `sources`, against an installed module, and return the result as plain values."""
    library = importlib.import_module(module)
    report = check_calls(sources or product_sources(), library, flavor=flavor, choices=computed_names())
    return {
        "findings": [str(finding).replace(f"{ROOT}/", "") for finding in sorted(report.findings)],
        "uses": len(report.uses),
        "files": sorted({Path(file).name for file, _, _ in report.uses}),
        "optional": sorted(report.optional),
    }


def computed_names():
    """Return the names that the product composes from options, by class of the library."""
    from tcmoa_export.engines.plan import RTX_TARGETS
    from tcmoa_runtime.typing import HardwareCompatibility

    return {
        "ComputeCapability": [target.upper() for target in RTX_TARGETS],
        "HardwareCompatibilityLevel": [name.upper() for name in typing.get_args(HardwareCompatibility)],
    }


def main():
    """Check one module and print the result as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("flavor", choices=("cuda", "tensorrt", "rtx"))
    arguments = parser.parse_args()
    flavor = None if arguments.flavor == "cuda" else arguments.flavor
    print(json.dumps(check_module(arguments.module, flavor)))


if __name__ == "__main__":
    main()
