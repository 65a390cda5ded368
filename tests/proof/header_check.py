"""(c) The declarations of libcuda in the C library, compiled against NVIDIA's cuda.h."""

import shutil
import subprocess

from packaging.specifiers import SpecifierSet

from proof.extras import allowed, oldest_and_newest
from proof.report import Row, SkippedError
from proof.sources import ROOT

PIECE = "headers"
SOURCES = ROOT / "runtime" / "cpp" / "tests" / "proof"
_CUDA_13 = SpecifierSet(">=13,<14")
_CUDA_12 = SpecifierSet(">=12,<13")


def check_headers(context):
    """Compile every file of runtime/cpp/tests/proof, without making code, against several versions of cuda.h."""
    files = sorted(SOURCES.glob("*.cpp"))
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise SkippedError("no C++ compiler", "g++")
    if not files:
        return [Row(PIECE, "cuda.h", "FAILED", f"no file in {SOURCES.relative_to(ROOT)}")]
    return [
        compile_files(compiler, files, folders, f"cuda.h of CUDA {version}")
        for version, folders in _header_folders(context)
    ]


def _header_folders(context):
    """Yield versions and the folders to include: the oldest and newest of CUDA 13, and the newest of 12."""
    wheels = context.wheels
    crt = allowed(wheels.versions("nvidia-cuda-crt"), _CUDA_13)
    for version in oldest_and_newest(allowed(wheels.versions("nvidia-cuda-runtime"), _CUDA_13)):
        release = version.rsplit(".", 1)[0]
        matching = next((v for v in crt if v.rsplit(".", 1)[0] == release), crt[0])
        yield (
            version,
            _include(
                [wheels.unpack("nvidia-cuda-runtime", version), wheels.unpack("nvidia-cuda-crt", matching)]
            ),
        )
    newest = allowed(wheels.versions("nvidia-cuda-runtime-cu12"), _CUDA_12)[0]
    yield newest, _include([wheels.unpack("nvidia-cuda-runtime-cu12", newest)])


def _include(wheels):
    return [
        path.parent
        for wheel in wheels
        for path in wheel.glob("nvidia/*/include/*")
        if path.name in ("cuda.h", "crt")
    ]


def compile_files(compiler, files, folders, subject):
    """Compile files against header folders."""
    includes = [option for folder in folders for option in ("-isystem", str(folder))]
    command = [
        compiler,
        "-std=c++20",
        "-fsyntax-only",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-I",
        str(ROOT / "runtime/cpp/src"),
    ]
    command += ["-I", str(ROOT / "runtime/cpp/include"), *includes, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [row.replace(f"{ROOT}/", "") for row in done.stderr.splitlines() if "error" in row]
        return Row(PIECE, subject, "FAILED", "\n".join(errors[:20]))
    return Row(PIECE, subject, "ok", ", ".join(file.name for file in files))
