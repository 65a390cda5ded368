"""A Ray cluster of several simulated nodes on this machine, each with its own loopback address and cache folder."""

import contextlib
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from free_ports import free_port
from tcmoa_runtime.cluster.address import ask

START_TIMEOUT_S = 180

# A node whose processes were killed refuses connections, and counts as dead after two checks. A busy one answers late,
# for which Ray waits ten seconds.
_FAST_DEATH = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "200",
    "RAY_health_check_failure_threshold": "2",
}


@dataclass
class SimulatedNode:
    """A node: `ray start --block` and everything that it starts, in one session of processes."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path
    cache: Path
    """XDG_CACHE_HOME of its processes."""

    @property
    def pids(self) -> list[int]:
        """Processes of the node that are alive."""
        return [pid for pid, session in _sessions() if session == self.process.pid]

    def kill(self) -> None:
        """Kill all processes of the node at once, as a machine that loses power."""
        for _ in range(3):  # what was being started meanwhile, too
            for pid in self.pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            if not self.pids:
                return
            time.sleep(0.05)


@dataclass
class SimulatedCluster:
    """A head, which takes no work, and nodes that do."""

    folder: Path
    token: str
    port: int
    client_port: int
    prefix: str
    cpus: int
    object_store_bytes: int
    head: SimulatedNode | None = None
    nodes: list[SimulatedNode] = field(default_factory=list)

    @property
    def address(self) -> str:
        """HOST:PORT for `--address`."""
        return f"{self.prefix}.2:{self.port}"

    @property
    def client_address(self) -> str:
        """ray://HOST:PORT for `--address`."""
        return f"ray://{self.prefix}.2:{self.client_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a program that connects."""
        return {"RAY_AUTH_TOKEN": self.token}

    def start_head(self) -> None:
        """Start the head without waiting."""
        options = ["--head", f"--port={self.port}", f"--ray-client-server-port={self.client_port}"]
        self.head = self._start(
            2, [*options, "--include-dashboard=false", f"--temp-dir={self.folder / 'r'}"], 0
        )

    def add_node(self) -> SimulatedNode:
        """Start another node and wait until it has joined."""
        node = self.start_node()
        self.wait()
        return node

    def start_node(self) -> SimulatedNode:
        """Start another node without waiting."""
        node = self._start(3 + len(self.nodes), [f"--address={self.address}"], self.cpus)
        self.nodes.append(node)
        return node

    def wait(self) -> None:
        """Wait until every node that is alive has joined."""
        deadline = time.monotonic() + START_TIMEOUT_S
        for node in self.nodes:
            while node.process.returncode is None and b"Ray runtime started" not in node.log.read_bytes():
                if node.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"node {node.address} did not start: {node.log.read_text()[-2000:]}")
                time.sleep(0.05)

    def stop(self) -> None:
        """Kill every process of the cluster, and remove its files."""
        for node in (*self.nodes, self.head):
            if node is not None:
                node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, number: int, options: list[str], cpus: int) -> SimulatedNode:
        address, log = f"{self.prefix}.{number}", self.folder / f"node{number}.log"
        cache = self.folder / f"cache{number}"
        environment = {
            **os.environ,
            **_FAST_DEATH,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "AUTOSCALER_METRIC_PORT": "0",
            "DASHBOARD_METRIC_PORT": "0",
            # Else the head's server of clients, which forks beside threads of gRPC, loses a process in five.
            "GRPC_ENABLE_FORK_SUPPORT": "0",
            "XDG_CACHE_HOME": str(cache),
            "PYTHONPATH": str(Path(__file__).parent),
        }
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
            *(f"--node-ip-address={address}", f"--num-cpus={cpus}", "--num-gpus=0"),
            f"--object-store-memory={self.object_store_bytes}",
            *("--min-worker-port=0", "--max-worker-port=0"),
            *("--no-monitor", "--include-log-monitor=false"),  # processes that nothing here uses
            f"--dashboard-agent-listen-port={free_port()}",
            f"--temp-dir={self.folder / str(number)}",  # of its own: nodes that start at once take names there
            *options,
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        return SimulatedNode(address, process, log, cache)


@contextlib.contextmanager
def simulated_cluster(
    num_nodes: int = 2, *, cpus: int = 1, object_store_bytes: int = 80_000_000
) -> Iterator[SimulatedCluster]:
    """Start a cluster for the time of a with-block; no process or file of it is left.

    Args:
        num_nodes: Nodes that take work, besides the head.
        cpus: Logical CPUs of each.
        object_store_bytes: Size of each node's object store; Ray needs 75 MiB or more.
    """
    folder = Path(
        tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    )  # short: paths of sockets have at most 107 bytes
    prefix = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}"
    cluster = SimulatedCluster(
        folder, secrets.token_hex(16), free_port(), free_port(), prefix, cpus, object_store_bytes
    )
    try:
        cluster.start_head()
        deadline = time.monotonic() + START_TIMEOUT_S
        while ask(cluster.address, cluster.token) != "ready":
            if cluster.head.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the head did not start: {cluster.head.log.read_text()[-2000:]}")
            time.sleep(0.1)
        for _ in range(num_nodes):
            cluster.start_node()
        cluster.wait()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes with one CPU each, for the tests of a module; `connected` lets a test connect to it."""
    pytest.importorskip("ray")
    with simulated_cluster() as started:
        yield started


@pytest.fixture
def connected(cluster, monkeypatch):
    """The cluster, with its token in the environment of this process."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    return cluster


def _sessions() -> Iterator[tuple[int, int]]:
    """Yield (pid, session) of every process that is no zombie."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                state, _ppid, _group, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if state != "Z":
                    yield int(folder.name), int(session)
