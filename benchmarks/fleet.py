"""What a fleet costs besides fusing: the supervisor at many pairs, and the process of a pair.

python benchmarks/fleet.py [--pairs 100] [--seconds 20]

The supervisor is the real one with its page, which one client asks each second, as a browser does. The pairs are
simulated: one process answers for all of them, with reports of the real size. The process of a pair is a real one, on a
private Ray of this machine: first idle, because a source cannot be opened, then with sources of its bundle's size.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from tcmoa_runtime.cluster.session import ray_session
from tcmoa_runtime.fleet.actor import this_supervisor
from tcmoa_runtime.fleet.file import FleetFile
from tcmoa_runtime.fleet.page.server import FleetPage
from tcmoa_runtime.fleet.pool import Work
from tcmoa_runtime.fleet.ray_actors import RayActors
from tcmoa_runtime.fleet.run import Shipper
from tcmoa_runtime.fleet.supervisor import POLL_S, Supervisor
from tcmoa_runtime.images import write_image
from tcmoa_runtime.web.address import DEFAULT_HOST, Address

TICKS: float = os.sysconf("SC_CLK_TCK")
PAIR = '[pairs.{name}]\nbundle = "nano-vif"\nx = "{x}"\ny = "{y}"\nrealtime = true\nrate = 5\nrestart = "always"\n'


class OneForAll(RayActors):
    """Actors of Ray of which one process stands for all."""

    def __init__(self, names: list[str], report: dict[str, Any]) -> None:
        super().__init__("simulated", None)
        import ray

        class Echo:
            def report(self, name: str) -> dict[str, Any]:
                return {**report, "name": name, "digest": name}

        echo = ray.remote(Echo).options(num_cpus=0, max_concurrency=8).remote()
        ray.get(echo.report.remote("warm"))
        self._pairs, self._echo = set(names), echo

    def names(self) -> set[str]:
        """Ask Ray, as the real one does."""
        super().names()
        return self._pairs

    def poll(self, timeout: float) -> dict[str, Any]:
        """Ask for each pair by its own call."""
        import ray

        calls = {self._echo.report.remote(name): name for name in self._pairs}
        answered, _ = ray.wait(list(calls), num_returns=len(calls), timeout=1.0)
        return {calls[call]: ray.get(call) for call in answered}


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident memory of a process, and its share of it where pages are shared, in MiB."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) / 1024
    return found["Rss"], found["Pss"]


def run_pair(folder: Path, seconds: float) -> dict[str, Any]:
    """Measure the process of one pair, idle and running; returns its last report."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "xy":
        (folder / name).mkdir()
        for i in range(20):
            write_image(folder / name / f"{i:02}.png", rng.integers(0, 255, (480, 640, 3), np.uint8))
    file = folder / "fleet.toml"
    report: dict[str, Any] = {}
    for title, x in (("idle", folder / "none"), ("running at 5/s, 640x480, nano-vif", folder / "x")):
        file.write_text(PAIR.format(name="gate", x=x, y=folder / "y"))
        fleet, me = FleetFile.read(file), this_supervisor()
        supervisor = Supervisor("bench", RayActors("bench", me), me, lambda _line: None)
        supervisor.take_over()
        supervisor.set_work(Shipper().work_of(fleet))
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            supervisor.step()
            time.sleep(POLL_S)
            found = supervisor.status().pairs[0].report
            if found is not None and found["start_count"] >= (4 if title == "idle" else 1):
                report = dict(found)
                break
        time.sleep(3)
        pid = report["pid"]
        before, began = cpu_seconds(pid), time.monotonic()
        time.sleep(seconds)
        share = (cpu_seconds(pid) - before) / (time.monotonic() - began)
        rss, pss = memory_mib(pid)
        print(f"process of a pair, {title}: {share:.1%} of a core, {rss:.0f} MiB (its share {pss:.0f} MiB)")
        for _ in range(3):
            supervisor.step()
        last = supervisor.status().pairs[0].report
        report = dict(last) if last is not None else report
        supervisor.stop_all()
    return report


def run_supervisor(num_pairs: int, report: dict[str, Any], folder: Path, seconds: float) -> None:
    """Measure the supervisor with simulated pairs."""
    names = [f"camera-{i:03}" for i in range(num_pairs)]
    file = folder / "many.toml"
    file.write_text("".join(PAIR.format(name=name, x="a", y="b") for name in names))
    pairs = FleetFile.read(file).pairs
    reference = Shipper().work_of(FleetFile.read(folder / "gate" / "fleet.toml"))["gate"].bundle
    supervisor = Supervisor("simulated", OneForAll(names, report), this_supervisor(), lambda _line: None)
    supervisor.set_work({name: Work(pair, reference, name) for name, pair in pairs.items()})
    page = FleetPage(Address(DEFAULT_HOST, 0), None)
    if page is None:
        raise RuntimeError("no page")
    page.start(supervisor)
    supervisor.step()
    before, began, count = time.process_time(), time.monotonic(), 0
    while time.monotonic() - began < seconds:
        start = time.monotonic()
        supervisor.step()
        size = len(urllib.request.urlopen(f"{page.url}api/fleet").read())
        count += 1
        time.sleep(max(0.0, POLL_S - (time.monotonic() - start)))
    share = (time.process_time() - before) / (time.monotonic() - began)
    rss, _ = memory_mib(os.getpid())
    print(
        f"supervisor of {num_pairs} simulated pairs, with a client of its page: {share:.1%} of a core, {rss:.0f} MiB, "
        f"{size / 1024:.0f} KiB for each answer to the page"
    )
    began_cpu = time.process_time()
    size = len(urllib.request.urlopen(f"{page.url}metrics").read())
    print(
        f"one scrape of its metrics: {1000 * (time.process_time() - began_cpu):.0f} ms of CPU, {size / 1024:.0f} KiB"
    )
    page.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ray_session():
        folder = Path(name)
        report = run_pair(folder / "gate", options.seconds)
        run_supervisor(options.pairs, report, folder, options.seconds)


if __name__ == "__main__":
    main()
