"""Loading and fusing a bundle opens no file but the bundle, installed packages, system files and the cache folder.

No socket is opened either. The system calls are recorded by strace.
"""

import os
import re
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

from c_library import LIBRARY
from hostile.onnx_wire import external, node
from hostile.write_bundle import model_of, write_bundle

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = (
    *("/usr/", "/lib/", "/lib64/", "/opt/", "/proc/", "/sys/"),
    *("/etc/ld.so", "/etc/localtime", "/etc/os-release", "/etc/ssl/openssl.cnf"),
)
DEVICES = ("/dev/null", "/dev/urandom", "/dev/shm")
CALL = re.compile(
    r"(?P<name>open(?:at2?)?|creat)\((?:(?P<at>[^,]*), )?\"(?P<path>[^\"]*)\", (?P<flags>\S+).* = \d+"
)

PYTHON = """
import sys
import numpy as np
from tcmoa_runtime import Fuser
frame = np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3)
with Fuser.load(sys.argv[1], backend=sys.argv[2]) as fuser:
    assert (fuser(frame, frame[::-1]) == frame).all()
"""
C = """
import sys
import numpy as np
from c_library import CFuser
frame = np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3)
with CFuser(sys.argv[1], backend=sys.argv[2]) as fuser:
    assert (fuser(frame, np.ascontiguousarray(frame[::-1])) == frame).all()
"""


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """Function that runs a program under strace and returns the recorded calls; skips where that is impossible."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    folder = tmp_path_factory.mktemp("trace")
    probe = subprocess.run(
        ["strace", "-f", "-qq", "-o", folder / "probe", "true"], capture_output=True, text=True
    )
    if probe.returncode:
        pytest.skip(f"strace cannot trace a process here ({probe.stderr.strip()[:100]})")

    def run(code, bundle, backend, home):
        output = folder / f"{len(list(folder.iterdir()))}.txt"
        calls = "trace=open,openat,openat2,creat,socket,connect,sendto,sendmsg,execve"
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home / "tmp")}
        environment |= {
            "PYTHONPATH": str(ROOT / "tests"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TCMOA_LIBRARY": str(LIBRARY),
        }
        (home / "tmp").mkdir()
        command = ["strace", "-f", "-y", "-qq", "-e", calls, "-e", "signal=none", "-o", output]
        done = subprocess.run(
            [*command, sys.executable, "-c", code, bundle, backend],
            cwd=home / "tmp",
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return output.read_text()

    return run


def opened(calls):
    """Yield path and flags of each file that was opened."""
    for line in calls.splitlines():
        if match := CALL.search(line):
            folder = re.search(r"<(.*)>", match["at"] or "")
            yield os.path.normpath(os.path.join(folder[1] if folder else "/", match["path"])), match["flags"]  # noqa: PTH118


@pytest.mark.parametrize(
    ("code", "backend"),
    [
        pytest.param(PYTHON, "onnxruntime", id="onnxruntime"),
        pytest.param(PYTHON, "openvino", id="openvino"),
        pytest.param(
            C, "openvino", id="C", marks=pytest.mark.skipif(not LIBRARY.exists(), reason="run `make cpp`")
        ),
    ],
)
def test_a_bundle_can_only_fuse(code, backend, trace, tmp_path):
    bundle, home = tmp_path / "bundle", tmp_path / "home"
    home.mkdir()
    weight = external("w", [1], location="fusion.data", offset=0, length=4)
    write_bundle(bundle, model_of([node("Add", ["x_float", "w"], ["a"])], [weight]), bytes(4))
    before = {path: path.read_bytes() for path in bundle.iterdir()}

    calls = trace(code, bundle, backend, home)

    packages = [sys.prefix, sys.base_prefix, *site.getsitepackages(), str(ROOT), str(LIBRARY.parent)]
    cache, temporary = str(home / ".cache" / "tcmoa"), str(home / "tmp")
    readable = (
        *SYSTEM,
        *(f"{Path(p).resolve()}" for p in packages),
        *packages,
        str(bundle),
        cache,
        temporary,
    )
    files = list(opened(calls))
    assert {str(bundle / name) for name in ("bundle.json", "fusion.onnx", "fusion.data")} <= {
        p for p, _ in files
    }
    assert [path for path, _ in files if not path.startswith((*readable, *DEVICES))] == []
    written = [path for path, flags in files if re.search("O_WRONLY|O_RDWR|O_CREAT", flags)]
    assert [path for path in written if not path.startswith((cache, temporary, *DEVICES))] == []
    assert re.findall(r"^.*\b(?:socket|connect|sendto|sendmsg)\(.*$", calls, re.MULTILINE) == []
    assert len(re.findall(r"execve\(", calls)) == 1
    assert {path: path.read_bytes() for path in bundle.iterdir()} == before
    assert {path.name for path in home.iterdir()} <= {".cache", "tmp"}
    assert list((home / "tmp").iterdir()) == []
