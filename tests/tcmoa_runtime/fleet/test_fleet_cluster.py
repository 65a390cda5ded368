"""A fleet on two simulated nodes of Ray, of which a process, a node and the supervisor are killed."""

import contextlib
import json
import os
import signal
import time
import urllib.request

import pytest

from fleet_pieces import SupervisorProcess, all_run, check_videos, write_fleet

pytest.importorskip("ray", reason="ray is not installed; `pip install 'tcmoa[ray]'` runs this")

from free_ports import free_port
from ray_cluster import simulated_cluster

pytestmark = pytest.mark.slow
NAMES = ("gate", "yard", "roof", "hall")


def test_a_fleet_outlives_a_process_a_node_and_its_supervisor(
    exported, sources, tmp_path, tcmoa, monkeypatch, record_property
):
    file, out = tmp_path / "yard.toml", tmp_path / "out"
    tables = {**{name: {} for name in NAMES}, "hall": {"page": "127.0.0.1:0"}, "tower": {"cpus": 500}}
    write_fleet(file, exported("vif"), sources, out, tables)
    port, seconds = free_port(), {}
    with simulated_cluster(2) as cluster, contextlib.ExitStack() as stack:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        environment = {**os.environ, **cluster.environment}
        began = time.monotonic()

        def supervise():
            return stack.enter_context(
                contextlib.closing(
                    SupervisorProcess(file, port, "--address", cluster.address, environment=environment)
                )
            )

        first = supervise()
        pairs, seconds["start"] = first.until(all_run(*NAMES))
        nodes = {pairs[name]["node"]["ip"] for name in NAMES}
        assert nodes == {node.address for node in cluster.nodes}
        assert first.get("/api/pairs/gate/picture.jpg").startswith(b"\xff\xd8")
        with urllib.request.urlopen(pairs["hall"]["page"], timeout=30) as page:
            assert b"<!doctype html>" in page.read().lower()

        # A process is killed.
        os.kill(pairs["gate"]["pid"], signal.SIGKILL)
        killed = pairs["gate"]["pid"]
        pairs, seconds["process"] = first.until(
            lambda pairs: pairs["gate"]["pid"] != killed and all_run(*NAMES)(pairs)
        )

        # A node is killed: its streams move, the others stay.
        victim = cluster.nodes[0]
        stay = {name: pairs[name]["pid"] for name in NAMES if pairs[name]["node"]["ip"] != victim.address}
        assert 0 < len(stay) < len(NAMES)
        victim.kill()
        pairs, seconds["node"] = first.until(
            lambda pairs: (
                all_run(*NAMES)(pairs)
                and all(pairs[name]["node"]["ip"] == cluster.nodes[1].address for name in NAMES)
            )
        )
        assert (pairs["tower"]["state"], pairs["tower"]["message"]) == ("pending", "no node has 500 CPUs")
        assert {name: pairs[name]["pid"] for name in stay} == stay

        # A wrong file is refused; a right one changes only what it changes.
        before = {name: pairs[name]["pid"] for name in NAMES}
        file.write_text(file.read_text() + "\n[pairs.new]\nofset = 1\n")
        deadline = time.monotonic() + 60
        while (error := json.loads(first.get("/api/fleet") or '{"file_error": null}')["file_error"]) is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert error == f"{file}: pairs.new: 'ofset' is no option; expected e.g. 'offset'"
        changed = {"gate": {}, "yard": {"deflicker": 0.5}, "roof": {}, "tower": {}}
        write_fleet(file, exported("vif"), sources, out, changed)
        pairs, seconds["change"] = first.until(
            lambda pairs: (
                all_run(*changed)(pairs) and "hall" not in pairs and pairs["yard"]["pid"] != before["yard"]
            )
        )
        assert {name: pairs[name]["pid"] for name in ("gate", "roof")} == {
            name: before[name] for name in ("gate", "roof")
        }

        # The supervisor is killed: the streams run on, and another one takes them over as they are.
        first.kill()
        before = {name: pair["pid"] for name, pair in pairs.items()}
        second = supervise()
        pairs, seconds["supervisor"] = second.until(all_run(*changed))
        assert {name: pair["pid"] for name, pair in pairs.items()} == before
        assert all(pair["process_s"] > 1 for pair in pairs.values())
        assert "fleet yard: takes over the streams that are there already: 4" in second.log.read_text()

        outcome = tcmoa("fleet", file, "--address", cluster.address, "--status", "--json")
        assert outcome.json["counts"] == {"running": 4}
        assert outcome.json["supervisor"]["pid"] == second.process.pid
        outcome = tcmoa("fleet", file, "--address", cluster.address, "--stop")
        assert (outcome.code, outcome.out) == (0, "fleet yard: 4 streams stopped\n")
        assert second.process.wait(60) == 0
        assert "fleet yard is being stopped by another process" in second.log.read_text()
        seconds["all"] = time.monotonic() - began
    print(seconds)
    names = check_videos(out)
    assert {name.split("-")[0] for name in names} == {*NAMES, "tower"}
