"""(e) Engines of TensorRT-RTX, built without a GPU by every version that the extra allows, and then not run.

With the driver's libraries, the commands that need a GPU must end with one line.
"""

import os
import shutil
import subprocess
import sys

from proof.driver_check import run_expecting
from proof.extras import allowed, requirement
from proof.report import Row, SkippedError
from proof.sources import ROOT

PIECE = "engines"
_BUNDLE = ROOT / "runtime/tcmoa_runtime/ready/nano-vif"
_TARGETS = "sm86"


def rtx_versions(context):
    """Return the versions that the extra rtx allows, the newest first."""
    required = requirement("rtx", "tensorrt-rtx")
    return allowed(context.wheels.versions("tensorrt-rtx-cu13-libs"), required.specifier)


def check_build(context, version):
    """Build an engine of the smallest ready bundle with one version, as a user does."""
    folders = [context.wheels.unpack(f"tensorrt-rtx-cu13-{part}", version) for part in ("bindings", "libs")]
    bundle = context.folder / "engines" / version
    shutil.rmtree(bundle, ignore_errors=True)
    shutil.copytree(_BUNDLE, bundle)
    environment = _environment(context, folders)
    done = _tcmoa(["build", str(bundle), "--target", _TARGETS], environment)
    subject = f"TensorRT-RTX {version}, {_TARGETS}"
    if done.returncode:
        return [Row(PIECE, subject, "FAILED", f"exit code {done.returncode}\n{done.stderr.strip()[-1500:]}")]
    kernels = next(
        (row.split(maxsplit=1)[1] for row in done.stdout.splitlines() if row.startswith("kernels")), "built"
    )
    rows = [Row(PIECE, subject, "ok", kernels)]
    return rows + _check_commands(context, version, bundle, folders)


def _check_commands(context, version, bundle, folders):
    """Run what needs a GPU, with the driver's libraries."""
    try:
        libraries = context.driver()
    except SkippedError as error:
        return [Row("driver", f"commands with TensorRT-RTX {version}", "skipped", str(error))]
    path = os.pathsep.join(map(str, folders))
    pair = [next((ROOT / "runtime/tcmoa_runtime/ready/pairs/vif").glob(f"*_{side}.*")) for side in "xy"]
    output = context.folder / "fused.png"
    commands = {
        "tcmoa fuse --backend tensorrt": [
            "fuse",
            bundle,
            *pair,
            "-o",
            output,
            "--backend",
            "tensorrt",
            "--trust-engines",
        ],
        "tcmoa build --strip": ["build", bundle, "--target", _TARGETS, "--strip"],
    }
    return [
        run_expecting(
            f"{title}, TensorRT-RTX {version}",
            [*_COMMAND, *map(str, arguments)],
            libraries,
            r"(cudaErrorInsufficientDriver|cudaErrorNoDevice)",
            piece="driver",
            PYTHONPATH=path,
            XDG_CONFIG_HOME=str(context.folder / "config"),
        )
        for title, arguments in commands.items()
    ]


_COMMAND = [sys.executable, "-c", "from tcmoa_runtime.cli import main; main()"]


def _environment(context, folders):
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}


def _tcmoa(arguments, environment):
    return subprocess.run(
        [*_COMMAND, *arguments], capture_output=True, text=True, check=False, env=environment
    )
