"""A real tritonserver for tests: the one that PyTriton brings, in the environment of `make triton-env`."""

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from free_ports import free_port

ENVIRONMENT = Path(__file__).parents[1] / "build" / "triton-env"
COMMAND = "make triton-env"
SHARED_MEMORY = Path("/dev/shm")
START_SECONDS = 180
STOP_SECONDS = 60

_DESCRIBE = """
import json, pathlib, pytriton, sysconfig
print(json.dumps({
    "server": str(pathlib.Path(pytriton.__file__).parent / "tritonserver"),
    "libraries": sysconfig.get_config_var("LIBDIR"),
    "library": sysconfig.get_config_var("INSTSONAME"),
}))
"""


@functools.cache
def find_server():
    """Return the folder of tritonserver and that of libpython, or skip the test with the reason."""
    if not (ENVIRONMENT / ".ready").is_file():
        pytest.skip(f"no tritonserver in build/triton-env; run `{COMMAND}`")
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv; install util-linux")
    found = json.loads(subprocess.check_output([ENVIRONMENT / "bin" / "python", "-c", _DESCRIBE], text=True))
    libraries = Path(found["libraries"])
    if not (libraries / found["library"]).exists():
        pytest.skip(f"no {found['library']}, which Triton's Python needs; install libpython3-dev")
    return Path(found["server"]), libraries


@contextmanager
def triton_server(repository, log, *options):
    """Run tritonserver on a repository, on loopback and with no model loaded.

    Yields a client of its HTTP service, and the address. The server ends with this process, too.
    """
    from tritonclient.http import InferenceServerClient

    folder, libraries = find_server()
    address = f"127.0.0.1:{free_port()}"
    host, port = address.split(":")
    prefix = f"tcmoa-tests-{port}-"
    command = [
        *("setpriv", "--pdeathsig", "TERM", folder / "bin" / "tritonserver"),
        *(f"--model-repository={repository}", "--model-control-mode=explicit"),
        *(f"--backend-directory={folder / 'backends'}", f"--cache-directory={folder / 'caches'}"),
        *(f"--http-address={host}", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false"),
        "--exit-timeout-secs=3",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        *options,
    ]
    environment = {
        **os.environ,
        "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(libraries),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_for_port(process, host, int(port), log)
        with InferenceServerClient(
            address, concurrency=4, network_timeout=60, connection_timeout=60
        ) as client:
            yield client, address
    finally:
        stop(process)
        for region in SHARED_MEMORY.glob(f"{prefix}*"):  # of processes that were killed
            region.unlink()


def wait_for_port(process, host, port, log):
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            assert process.poll() is None, log.read_text(errors="replace")[-4000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-4000:]
            time.sleep(0.05)
        else:
            return


def stop(process):
    """Stop the server and the processes of its models."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
