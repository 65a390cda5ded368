"""(d) Errors with NVIDIA's real driver library, which Debian packages, on a machine without a GPU."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.specifiers import SpecifierSet

from proof.elf import defined_functions
from proof.extras import allowed, requirement
from proof.report import Row, SkippedError
from proof.sources import ROOT

PIECE = "driver"
_PACKAGES = ("libcuda1", "libnvidia-ml1", "libnvidia-ptxjitcompiler1")
_SOURCES = Path("/etc/apt/sources.list.d")
_NEEDS = "Debian with a network to its packages"
_CPP = ("cuda_driver.cpp", "error.cpp", "shared_library.cpp")


def driver_folder(folder):
    """Download and unpack the driver's libraries; returns the folder with `libcuda.so.1`.

    The component non-free of this machine's own package sources is read, with lists in `folder`; nothing is installed.

    Raises:
        SkippedError: There is a driver already, or no such package.
    """
    if Path("/proc/driver/nvidia").exists():
        raise SkippedError("this machine has an NVIDIA driver", "a machine without one")
    folder = Path(folder).resolve()
    found = next(iter(folder.glob("files/**/libcuda.so.1")), None)
    if found is None:
        _download(folder)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "files")], check=True)
        found = next(iter(folder.glob("files/**/libcuda.so.1")), None)
        if found is None:
            raise SkippedError("Debian's packages hold no libcuda.so.1", _NEEDS)
    libraries = folder / "libraries"
    libraries.mkdir(exist_ok=True)
    for path in folder.glob("files/**/*.so.1"):
        link = libraries / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
    return libraries


def _download(folder):
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise SkippedError("no apt-get", _NEEDS)
    sources = non_free_sources(_SOURCES.glob("*.sources"))
    if not sources:
        raise SkippedError(f"{_SOURCES} names no packages of Debian", _NEEDS)
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    (folder / "non-free.sources").write_text(sources, encoding="utf-8")
    options = {
        "Dir::Etc::sourcelist": folder / "non-free.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": lists,
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    for arguments in (["update"], ["download", *_PACKAGES]):
        done = subprocess.run([*apt, *arguments], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it failed"])[-1]
            raise SkippedError(f"apt-get {arguments[0]}: {reason.removeprefix('E: ')}", _NEEDS)


def non_free_sources(files):
    """Return Debian's package sources with the component non-free in place of theirs."""
    stanzas = []
    for file in files:
        for stanza in file.read_text(encoding="utf-8").strip().split("\n\n"):
            if "debian" in stanza and re.search(r"^Components:.*\bmain\b", stanza, re.MULTILINE):
                stanzas.append(re.sub(r"^Components:.*$", "Components: non-free", stanza, flags=re.MULTILINE))
    return "\n\n".join(stanzas) + "\n" if stanzas else ""


def _check_c(context):
    libraries = context.driver()
    subject = "C: a driver without a GPU"
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise SkippedError("no C++ compiler", "g++")
    source = ROOT / "runtime" / "cpp"
    program = context.wheels.folder / "driver_error"
    command = [
        compiler,
        "-std=c++20",
        "-O0",
        "-I",
        str(source / "src"),
        "-I",
        str(source / "include"),
        "-o",
        str(program),
    ]
    command += [
        str(Path(__file__).with_name("driver_error.cpp")),
        *(str(source / "src" / name) for name in _CPP),
        "-ldl",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [Row(PIECE, subject, "FAILED", "\n".join(done.stderr.splitlines()[:10]))]
    return [
        run_expecting(
            subject, [str(program)], libraries, r"^CUDA: no usable GPU: .*CUDA_ERROR_NO_DEVICE.*\.$"
        )
    ]


def _check_library(context):
    """Check that a driver has every function that the C library looks up."""
    libraries = context.driver()
    text = (ROOT / "runtime/cpp/src/cuda_driver.hpp").read_text(encoding="utf-8")
    functions = re.findall(r"\bf\((cu\w+),", text)
    missing = sorted(set(functions) - defined_functions(libraries / "libcuda.so.1"))
    subject = f"C: functions of libcuda.so.{_driver_version(libraries)}"
    if missing or not functions:
        return [Row(PIECE, subject, "FAILED", f"it has no {', '.join(missing) or 'function to check'}")]
    return [Row(PIECE, subject, "ok", f"has all {len(functions)}")]


def _driver_version(libraries):
    return (libraries / "libcuda.so.1").resolve().name.removeprefix("libcuda.so.")


def _check_python(context, other=None):
    """Check the exception with the newest cuda-bindings of the extra, or of another range."""
    libraries, wheels = context.driver(), context.wheels
    required = requirement("rtx", "cuda-bindings").specifier if other is None else SpecifierSet(other)
    version = allowed(wheels.versions("cuda-bindings"), required)[0]
    # A driver that is older than the runtime is reported before a missing device.
    expected = "cudaErrorInsufficientDriver|cudaErrorNoDevice" if other is None else "cudaErrorNoDevice"
    code = (
        "import sys\n"
        "from tcmoa_runtime.gpu.cuda import CudaDevice\n"
        "from tcmoa_runtime.errors import MissingError\n"
        "try:\n    CudaDevice.current()\n"
        "except MissingError as error:\n    print(error, file=sys.stderr); sys.exit(3)\n"
    )
    return [
        run_expecting(
            f"Python: cuda-bindings {version}",
            [sys.executable, "-c", code],
            libraries,
            rf"^.*({expected}).*$",
            PYTHONPATH=str(wheels.unpack("cuda-bindings", version)),
        )
    ]


CHECKS = {
    "C: a driver without a GPU": _check_c,
    "C: functions of libcuda": _check_library,
    "Python: cuda-bindings of the extra": _check_python,
    "Python: cuda-bindings of CUDA 12": lambda context: _check_python(context, ">=12.9,<13"),
}
"""Checks by name; each returns rows."""


def run_expecting(subject, command, libraries, pattern, *, piece=PIECE, **variables):
    """Run a command with the driver's libraries; expected are the exit code 3 and one line."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries), **variables}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode == 3 and len(lines) == 1 and re.search(pattern, lines[0]):
        return Row(piece, subject, "ok", lines[0])
    found = "\n".join(lines[-12:])
    return Row(
        piece,
        subject,
        "FAILED",
        f"exit code {done.returncode}; expected 3 and one line with {pattern}\n{found}",
    )
