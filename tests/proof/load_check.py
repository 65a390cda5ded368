"""(b) The plugin of ONNX Runtime for TensorRT-RTX, loaded as the product loads it, with the driver's libraries.

Its libraries need each other and a CUDA runtime. Where they are found, the plugin reports that there is no GPU.
Functions that Debian's driver is too old for are replaced by ones that return CUDA_ERROR_NO_DEVICE; a second row is
without them.
"""

import re
import shutil
import subprocess
import sys

from proof.driver_check import run_expecting
from proof.elf import defined_functions, undefined_functions
from proof.report import SkippedError

PIECE = "libraries"
PACKAGE = "onnxruntime-ep-nv-tensorrt-rtx-cu13"
_NO_DEVICE = 100
_CODE = """
import sys
from tcmoa_runtime.backends.providers import PROVIDERS, find_provider
from tcmoa_runtime.errors import MissingError
try:
    find_provider(PROVIDERS["onnxruntime-rtx"])
except MissingError as error:
    print(error, file=sys.stderr)
    sys.exit(3)
"""


def check_plugin(context):
    """Load the newest plugin that the extra allows."""
    version = context.installed(("onnxruntime-rtx",)).get(PACKAGE) or context.wheels.versions(PACKAGE)[0]
    folder, libraries = context.wheels.unpack(PACKAGE, version), context.driver()
    missing = newer_functions(folder.rglob("*.so*"), libraries / "libcuda.so.1")
    command, path = [sys.executable, "-c", _CODE], str(folder)
    rows = [
        run_expecting(
            f"{PACKAGE} {version} loads"
            + (f", {len(missing)} functions of newer drivers replaced" if missing else ""),
            command,
            libraries,
            r"finds no GPU",
            piece=PIECE,
            PYTHONPATH=path,
            **({"LD_PRELOAD": str(_replace(missing, context.folder / "newer_driver.so"))} if missing else {}),
        )
    ]
    if missing:
        title, expected = (
            f"{PACKAGE} {version} with a driver that is too old",
            r"Install a newer NVIDIA driver",
        )
        rows.append(run_expecting(title, command, libraries, expected, piece=PIECE, PYTHONPATH=path))
    return rows


def newer_functions(objects, driver):
    """Return the functions of the driver that shared objects need and `driver` lacks."""
    wanted = {name for path in objects if not path.is_symlink() for name in undefined_functions(path)}
    return sorted({name for name in wanted if re.match(r"cu[A-Z]", name)} - defined_functions(driver))


def _replace(functions, library):
    compiler = shutil.which("cc")
    if compiler is None:
        raise SkippedError("no C compiler", "gcc")
    source = library.with_suffix(".c")
    text = "".join(f"int {name}(void) {{ return {_NO_DEVICE}; }}\n" for name in functions)
    source.write_text(text, encoding="utf-8")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library
