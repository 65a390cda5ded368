"""The service on Ray Serve: on a private Ray of this machine, and on two simulated nodes with a replica killed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from free_ports import free_port
from process_tree import descendants, listeners, runs
from ray_cluster import cluster, connected  # noqa: F401  # fixtures
from service_pieces import HttpService
from tcmoa_runtime import Fuser
from tcmoa_runtime.cli import run

ray = pytest.importorskip("ray", reason="Ray is not installed; `pip install 'tcmoa[ray]'` runs this")
pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "import sys; from tcmoa_runtime.cli import run; sys.exit(run(sys.argv[1:]))"]


@contextlib.contextmanager
def serving(*arguments, environment=None):
    """Run `tcmoa serve`; yield the process and its service when requests are taken."""
    port = free_port()
    count = int(arguments[arguments.index("--replicas") + 1])
    process = subprocess.Popen(
        [*COMMAND, "serve", *map(str, arguments), "--port", str(port), "--threads", "1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        lines = [process.stderr.readline() for _ in range(2 if "--address" in arguments else 3)]
        steps = ["service: starting Ray on this machine\n"] if "--address" not in arguments else []
        steps.append(f"service: loading the bundles in {count} {'replica' if count == 1 else 'replicas'}\n")
        assert lines == [*steps, f"service: http://127.0.0.1:{port}/ serves vif\n"], lines
        yield process, HttpService(port)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def stop(process):
    """Stop a command and return its exit code and what else it printed."""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def test_a_private_ray_serves_on_loopback_only(vif, pair):
    with serving(vif, "--replicas", "1") as (process, service):
        children = descendants(process.pid)
        with Fuser.load(vif, threads=1) as fuser:
            fused = service.fuse("vif", *pair)
            np.testing.assert_array_equal(fused, fuser(*pair))
        addresses = listeners([process.pid, *children])
        assert addresses
        assert [each for each in addresses if not each.startswith(("127.", "::ffff:127.", "::1"))] == []
        assert service.call("GET", "/v2", host="example.com")[0] == 403
        assert stop(process) == (0, "", "")
    assert [pid for pid in children if runs(pid)] == []


def test_replicas_on_two_nodes_give_the_bytes_of_the_fuser_and_a_killed_one_comes_back(
    connected,  # noqa: F811
    vif,
    pair,
):
    """A bundle in a folder that only this process sees goes to the nodes by the object store."""
    with serving(vif, "--replicas", "2", "--address", connected.address) as (process, service):
        with Fuser.load(vif, threads=1) as fuser:
            expected = fuser(*pair, scale=1.5)
        replicas = [pid for node in connected.nodes for pid in node.pids if is_replica(pid)]
        assert len(replicas) == 2
        assert all(any(is_replica(pid) for pid in node.pids) for node in connected.nodes)
        for _ in range(4):
            fused = service.fuse("vif", *pair, parameters={"prompt_scale": 1.5})
            np.testing.assert_array_equal(fused, expected)
        assert service.call("POST", "/v2/models/vif/infer", b"{}") == (
            400,
            {"error": 'body: no inputs; expected {"inputs": [...]}'},
        )
        os.kill(replicas[0], signal.SIGKILL)
        deadline = time.monotonic() + 180
        while True:
            alive = [pid for node in connected.nodes for pid in node.pids if is_replica(pid)]
            if len(alive) == 2 and replicas[0] not in alive:
                break
            assert time.monotonic() < deadline
            time.sleep(0.2)
        fused = service.fuse("vif", *pair, parameters={"prompt_scale": 1.5})
        np.testing.assert_array_equal(fused, expected)
        assert stop(process) == (0, "", "")
    deadline = time.monotonic() + 180
    while any(is_replica(pid) for node in connected.nodes for pid in node.pids):  # which the nodes end
        assert time.monotonic() < deadline
        time.sleep(0.2)


def is_replica(pid):
    """Whether a process is a replica of Ray Serve."""
    try:
        return b"ServeReplica" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_what_prevents_a_service_on_ray_is_one_line(tmp_path, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert run(["serve", "nano-vif", "--address", "127.0.0.1:1"]) == 2
        assert run(["serve", "nano-vif", "--replicas", "1", "--port", str(port)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("tcmoa: error: 127.0.0.1:1: no Ray cluster answers; expected ")
    assert lines[1:] == [
        f"tcmoa: error: service: cannot listen on 127.0.0.1:{port}: Address already in use. Choose another port, or 0 "
        "for any free port."
    ]
