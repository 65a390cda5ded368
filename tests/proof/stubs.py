"""Empty libraries in place of TensorRT's, so that its Python module can be imported without 2 GB of downloads.

The module needs eight functions of them when it is loaded and calls none of them then.
"""

import re
import subprocess
from pathlib import Path

from proof.elf import needed, undefined_functions

_SYSTEM = re.compile(r"(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s|ld-linux-x86-64)\.so")


def make_stubs(module, folder):
    """Make a library for each that `module`, a shared object, needs and that is not the system's.

    Returns:
        The names of the libraries.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "stub.c"
    functions = [
        name
        for name in undefined_functions(module)
        if name.endswith(("_INTERNAL", "Registry", "Version", "Plugins"))
    ]
    source.write_text(
        "".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions), encoding="utf-8"
    )
    libraries = [name for name in needed(module) if not _SYSTEM.match(name)]
    for library in libraries:
        subprocess.run(
            ["cc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source)],
            check=True,
        )
    return libraries
