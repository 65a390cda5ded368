"""The supervisor with scripted actors and a scripted clock."""

import contextlib
import itertools
import shutil
import threading

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from fleet_pieces import ScriptedPool, report_of
from tcmoa_runtime import Bundle
from tcmoa_runtime.cluster.bundle_shipping import BundleReference, bundle_hash
from tcmoa_runtime.cluster.nodes import ClusterNode
from tcmoa_runtime.cluster.session import RaySession
from tcmoa_runtime.errors import BundleError, InputError
from tcmoa_runtime.fleet import run
from tcmoa_runtime.fleet.actor import LEASE_S, Lease, open_bundle
from tcmoa_runtime.fleet.file import FleetFile
from tcmoa_runtime.fleet.pool import StopOutcome, Work
from tcmoa_runtime.fleet.reconcile import Changes, find_changes
from tcmoa_runtime.fleet.supervisor import (
    ENDING_S,
    KILL_S,
    LOST_S,
    OPENING_S,
    SILENT_S,
    UNKNOWN_S,
    FleetStoppingError,
    Supervisor,
)

ME = {"id": "2", "host": "here", "pid": 1}
OTHER = {"id": "1", "host": "there", "pid": 7}


class Clock:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def pause(self, seconds):
        self.now += seconds


@pytest.fixture
def work(tmp_path):
    """Function that returns work for pairs, by name, with these digests."""

    def make(**digests):
        path = tmp_path / "fleet.toml"
        tables = (f'[pairs.{name}]\nbundle = "b"\nx = "rtsp://h/x"\ny = "rtsp://h/y"\n' for name in digests)
        path.write_text("".join(tables) or "[pairs.none]\nbundle = 'b'\nx = 'a'\ny = 'b'\n")
        pairs = FleetFile.read(path).pairs
        return {name: Work(pairs[name], None, digest) for name, digest in digests.items()}

    return make


def supervisor_of(pool):
    clock, lines = Clock(), []
    return Supervisor("yard", pool, ME, lines.append, clock), clock, lines


def states(supervisor):
    return {pair.name: pair.state for pair in supervisor.status().pairs}


NAMES = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["1", "2"]))


@given(wanted=NAMES, present=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["1", "2", None])))
def test_changes_are_the_difference_and_nothing_else(wanted, present):
    changes = find_changes(wanted, present)
    after = {name: digest for name, digest in present.items() if name not in changes.stop}
    for name in (*changes.start, *changes.restart):
        after[name] = wanted[name]
    assert after.keys() == wanted.keys()
    assert all(digest in (wanted[name], None) for name, digest in after.items())
    untouched = set(present) - {*changes.stop, *changes.restart}
    assert all(present[name] in (wanted[name], None) for name in untouched)
    assert len({*changes.start, *changes.restart, *changes.stop}) == sum(
        map(len, (changes.start, changes.restart, changes.stop))
    )


def test_changes_are_described_in_a_line():
    assert str(Changes(("a", "b"), ("c",), ("d",))) == "start a, b; restart c; stop d"
    assert (str(Changes()), bool(Changes())) == ("nothing changed", False)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (None, "a: waiting: again in 2 s"),
        ("cam: cannot be opened", "a: waiting: cam: cannot be opened; again in 2 s"),
    ],
)
def test_a_stream_that_waits_is_described_with_its_error_if_it_has_one(work, error, line):
    pool = ScriptedPool()
    supervisor, clock, lines = supervisor_of(pool)
    supervisor.set_work(work(a="1"))
    supervisor.step()
    pool.reports["a"] = report_of("a", "waiting", digest="1", error=error, retry_s=1.4)
    for _ in range(3):
        clock.pause(1)
        supervisor.step()
    assert lines[-1] == line


def test_only_what_has_changed_is_restarted(work):
    pool = ScriptedPool()
    supervisor, clock, lines = supervisor_of(pool)
    supervisor.set_work(work(a="1", b="1", c="1"))
    supervisor.step()
    supervisor.step()
    assert states(supervisor) == dict.fromkeys("abc", "running")
    pool.calls.clear()
    supervisor.set_work(work(a="1", b="2", d="1"))
    assert str(supervisor.changes()) == "start d; restart b; stop c"
    for _ in range(3):
        clock.pause(1)
        supervisor.step()
    assert pool.calls[0] == ("start", "d")
    assert sorted(pool.calls[1:5]) == [("kill", "b"), ("kill", "c"), ("stop", "b"), ("stop", "c")]
    assert pool.calls[5:] == [("start", "b")]
    assert states(supervisor) == {"a": "running", "b": "running", "d": "running"}
    assert "c: stopped" in lines


def test_a_stream_that_still_writes_is_waited_for_before_it_is_started_again(work):
    pool = ScriptedPool(["a"])
    supervisor, clock, _ = supervisor_of(pool)
    supervisor.take_over(clock.pause)
    supervisor.set_work(work(a="2"))
    pool.stubborn.add("a")
    for _ in range(3):
        clock.pause(1)
        supervisor.step()
    assert pool.calls == [("stop", "a")]
    assert states(supervisor) == {"a": "stopping"}
    clock.pause(ENDING_S)
    supervisor.step()
    pool.dying.add("a")  # its name is still taken
    supervisor.step()
    supervisor.step()
    supervisor.step()
    assert pool.calls == [("stop", "a"), ("kill", "a"), ("start", "a")]


def test_a_stream_that_opens_its_sources_is_not_waited_for(work):
    pool = ScriptedPool(["a"])
    supervisor, clock, _ = supervisor_of(pool)
    supervisor.take_over(clock.pause)
    pool.reports["a"] = report_of("a", "starting")
    pool.stubborn.add("a")
    supervisor.step()
    clock.pause(OPENING_S - 1)
    supervisor.step()
    assert pool.calls == [("stop", "a")]
    clock.pause(2)
    supervisor.step()
    assert pool.calls == [("stop", "a"), ("kill", "a")]


def test_an_actor_that_answers_late_may_complete_its_files_all_the_same(work):
    pool = ScriptedPool(["a"])
    supervisor, clock, _ = supervisor_of(pool)
    supervisor.take_over(clock.pause)
    report = pool.reports.pop("a")
    pool.stubborn.add("a")
    clock.pause(LOST_S + 1)
    supervisor.step()  # which removes it
    clock.pause(SILENT_S - 1)
    supervisor.step()
    assert pool.calls == [("stop", "a")]
    pool.reports["a"] = report
    supervisor.step()
    clock.pause(SILENT_S - 1)
    supervisor.step()
    assert pool.calls == [("stop", "a")]
    pool.stubborn.clear()
    supervisor.step()
    assert pool.calls == [("stop", "a"), ("kill", "a")]


def test_an_actor_that_does_not_answer_is_ended_and_that_is_no_success(work, caplog):
    pool = ScriptedPool(["a", "b"])
    visitor, clock, _ = supervisor_of(pool)
    visitor.look()
    pool.reports.pop("a")
    pool.stubborn.add("a")
    began = clock.now
    assert not visitor.stop_all(clock.pause)
    assert SILENT_S <= clock.now - began < SILENT_S + 1
    assert pool.present == set()
    assert [record.message for record in caplog.records] == [
        "a: did not complete its files in 10 s; its process is ended"
    ]


def test_an_actor_whose_process_dies_while_it_stops_is_asked_again(work):
    """Ray starts its process again, which names the files that the other one has left."""
    pool = ScriptedPool(["a"])
    visitor, clock, _ = supervisor_of(pool)
    visitor.look()
    pool.outcomes["a"] = [StopOutcome.DIED, StopOutcome.PENDING]
    assert visitor.stop_all(clock.pause)
    assert pool.calls == [("stop", "a"), ("stop", "a"), ("kill", "a")]


def test_an_actor_that_has_not_completed_its_files_in_time_is_no_success(work):
    pool = ScriptedPool(["a"])
    visitor, clock, _ = supervisor_of(pool)
    visitor.look()
    pool.outcomes["a"] = [StopOutcome.INCOMPLETE]
    assert not visitor.stop_all(clock.pause)
    assert pool.calls == [("stop", "a"), ("kill", "a")]


def test_actors_are_taken_over_as_they_are(work):
    pool = ScriptedPool(["a", "b"])
    supervisor, clock, lines = supervisor_of(pool)
    assert supervisor.take_over(clock.pause) == 2
    supervisor.set_work(work(a="a", b="a"))
    supervisor.step()
    assert pool.calls == []
    assert states(supervisor) == {"a": "running", "b": "running"}
    assert "a: running on node-1 (10.0.0.1), page http://127.0.0.1:9000/" in lines


def test_an_actor_that_does_not_answer_is_lost_and_left_to_ray(work):
    pool = ScriptedPool(["a"])
    supervisor, clock, _ = supervisor_of(pool)
    supervisor.take_over(clock.pause)
    supervisor.set_work(work(a="a"))
    supervisor.step()
    report = pool.reports.pop("a")
    clock.pause(LOST_S + 1)
    supervisor.step()
    (pair,) = supervisor.status().pairs
    assert (pair.state, pair.message) == ("lost", "its process or node does not answer; Ray restarts it")
    pool.reports["a"] = {**report, "node": {"id": "2", "ip": "10.0.0.2", "host": "node-2"}}
    supervisor.step()
    assert states(supervisor) == {"a": "running"}
    assert pool.calls == []


def test_an_actor_that_was_never_heard_of_is_replaced(work):
    pool = ScriptedPool(["a"])
    pool.reports.clear()
    supervisor, clock, _ = supervisor_of(pool)
    supervisor.take_over(clock.pause)
    supervisor.set_work(work(a="1"))
    supervisor.step()
    assert states(supervisor) == {"a": "pending"}
    clock.pause(UNKNOWN_S + 1)
    for _ in range(3):
        supervisor.step()
    assert pool.calls == [("kill", "a"), ("start", "a")]


def test_an_actor_that_ray_has_given_up_is_started_again_with_longer_pauses(work):
    pool = ScriptedPool()
    supervisor, clock, _ = supervisor_of(pool)
    supervisor.set_work(work(a="1"))
    starts = []
    for _ in range(40):
        supervisor.step()
        if pool.present:
            starts.append(clock.now)
            pool.present.clear()
            pool.problems["a"] = "no module named av"
        clock.pause(1)
    assert [later - earlier for earlier, later in itertools.pairwise(starts)] == [2, 3, 5, 9, 17]
    (pair,) = supervisor.status().pairs
    assert (pair.state, pair.message) == ("lost", "no module named av")


def test_a_pair_without_room_is_pending_and_says_why(work):
    pool = ScriptedPool()
    supervisor, clock, lines = supervisor_of(pool)
    supervisor.set_work(work(a="1"))
    supervisor.step()
    pool.reports.clear()
    supervisor._entries["a"].report = None
    clock.pause(LOST_S + 1)
    supervisor.step()
    (pair,) = supervisor.status().pairs
    assert (pair.state, pair.message) == ("pending", "waiting for 1 CPU")
    assert lines == ["a: pending: starting a process"]


def test_two_supervisors_do_not_watch_one_fleet(work):
    pool = ScriptedPool(["a"])
    pool.reports["a"]["supervisor"] = OTHER
    supervisor, clock, _ = supervisor_of(pool)
    with pytest.raises(InputError) as caught:
        supervisor.take_over(clock.pause)
    assert str(caught.value) == (
        "fleet yard: is watched by process 7 on there already; expected one supervisor. End that one first, or give "
        "this fleet another name."
    )
    pool.reports["a"]["supervisor"] = None
    assert supervisor.take_over(clock.pause) == 1
    pool.reports["a"]["supervisor"] = OTHER
    with pytest.raises(InputError):
        supervisor.step()


def test_the_supervisor_that_has_started_first_holds_the_lease():
    clock = Clock()
    lease = Lease(clock)
    late, early = ME, OTHER
    assert lease.ask(None) is None
    assert lease.ask(late) is None
    assert lease.ask(None) == late
    assert lease.ask(early) is None  # e.g. it was suspended
    assert lease.ask(late) == early
    clock.pause(LEASE_S + 1)
    assert lease.ask(late) is None


def test_a_visitor_stops_a_fleet_and_its_supervisor_reads_it(work):
    pool = ScriptedPool(["a", "b"])
    visitor, clock, lines = supervisor_of(pool)
    found = visitor.look()
    assert (found.counts(), found.supervisor) == ({"running": 2}, None)
    assert visitor.stop_all(clock.pause, is_fleet_stopping=True)
    assert pool.present == set()
    assert sorted(lines[-2:]) == ["a: stopped", "b: stopped"]
    assert pool.calls[:2] == [("stop", "a"), ("stop", "b")] or pool.calls[:2] == [
        ("stop", "b"),
        ("stop", "a"),
    ]
    pool = ScriptedPool(["a"])
    supervisor, clock, _ = supervisor_of(pool)
    pool.reports["a"] = report_of("a", is_fleet_stopping=True)
    with pytest.raises(FleetStoppingError):
        supervisor.step()
    assert supervisor.is_fleet_stopping


def test_a_refused_file_is_shown_until_a_right_one_comes(work):
    supervisor, _, _ = supervisor_of(ScriptedPool())
    supervisor.set_work(work(a="1"))
    supervisor.refuse_file("fleet.toml: not TOML")
    supervisor.step()
    assert supervisor.status().file_error == "fleet.toml: not TOML"
    supervisor.set_work(work(a="1"))
    supervisor.step()
    assert supervisor.status().file_error is None


def test_a_bundle_that_is_copied_goes_to_every_node_also_to_those_that_join(work, monkeypatch, caplog):
    node = {name: ClusterNode(name, f"10.0.0.{name}", 1, 0) for name in "123"}
    nodes, calls, now = [node["1"], node["2"]], [], Clock()

    def fetch(function, asked, reference):
        calls.append([each.node_id for each in asked])
        return ["disk full" if each.node_id == "2" and len(calls) == 1 else "" for each in asked]

    copied = BundleReference("night", "a" * 64, None, (("fusion.onnx", object()),))
    monkeypatch.setattr(run, "ship_bundle", lambda path: copied)
    monkeypatch.setattr(run, "list_nodes", lambda: tuple(nodes))
    monkeypatch.setattr(run, "on_each_node", fetch)
    monkeypatch.setattr(run.time, "monotonic", now)
    shipper = run.Shipper()
    pairs = {name: each.pair for name, each in work(a="1", b="1").items()}
    found = shipper.work_of(FleetFile(name="yard", pairs=pairs))
    assert found["a"].digest != pairs["a"].digest
    assert calls == [["1", "2"]]
    assert found["a"].bundle == BundleReference(
        "night", "a" * 64
    )  # without files, which end with the supervisor
    assert "not copied to node 10.0.0.2: disk full" in caplog.text
    shipper.spread()  # a moment later
    assert len(calls) == 1
    nodes.append(node["3"])
    now.pause(run.NODES_S)
    shipper.spread()
    assert calls[1:] == [["2", "3"]]
    now.pause(run.CACHE_S)  # a cache may have been deleted meanwhile
    shipper.spread()
    assert calls[2:] == [["1", "2", "3"]]


def test_a_file_that_changes_is_read_when_it_has_settled(tmp_path):
    path, now = tmp_path / "fleet.toml", Clock()
    path.write_text("a")
    watched = run.WatchedFile(path, now)
    assert not watched.has_changed()
    for text in ("ab", "abc"):
        path.write_text(text)
        assert not watched.has_changed()
        now.pause(run.SETTLE_S / 2)
    assert not watched.has_changed()
    now.pause(run.SETTLE_S)
    assert watched.has_changed()
    assert not watched.has_changed()
    path.unlink()
    watched.has_changed()
    now.pause(run.SETTLE_S)
    assert watched.has_changed()


def test_an_actor_that_outlives_its_end_is_ended_again(work):
    pool = ScriptedPool(["gone"])
    supervisor, clock, lines = supervisor_of(pool)
    kill, pool.kill = pool.kill, lambda name: pool.calls.append(("kill", name))  # Ray does not take the call
    supervisor.set_work(work(a="1"))
    supervisor.step()
    supervisor.step()
    assert pool.calls.count(("kill", "gone")) == 1
    clock.pause(KILL_S + 1)
    pool.kill = kill
    supervisor.step()
    supervisor.step()
    assert pool.calls.count(("kill", "gone")) == 2
    assert pool.present == {"a"}
    assert lines[-1] == "gone: stopped"


@pytest.fixture
def opening(tmp_path, monkeypatch):
    """A fleet's file, and a function that opens it on scripted actors; it takes what happens while Ray starts."""
    path = tmp_path / "fleet.toml"
    path.write_text('[pairs.a]\nbundle = "b"\nx = "rtsp://h/x"\ny = "rtsp://h/y"\n')

    def open_fleet(while_ray_starts=lambda: None):
        @contextlib.contextmanager
        def session(address):
            while_ray_starts()
            yield RaySession(address, ())

        def work_of(_, file):
            return {name: Work(pair, None, "1") for name, pair in file.pairs.items()}

        monkeypatch.setattr(run, "ray_session", session)
        monkeypatch.setattr(run, "RayActors", lambda *_: ScriptedPool())
        monkeypatch.setattr(run.Shipper, "work_of", work_of)
        monkeypatch.setattr(run, "check_bundles", lambda *_: None)
        monkeypatch.setattr(run, "SETTLE_S", 0.0)
        return run.open_fleet(path, None, lambda _: None)

    return path, open_fleet


class EndingAfter(threading.Event):
    """An event that is set after some waits."""

    def __init__(self, waits):
        super().__init__()
        self._left = waits

    def wait(self, timeout=None):
        self._left -= 1
        if self._left <= 0:
            self.set()
        return True


def test_a_file_that_changes_while_ray_starts_is_read_again(opening):
    path, open_fleet = opening

    def change():
        path.write_text(path.read_text().replace("pairs.a", "pairs.b") + "# changed\n")

    with open_fleet(change) as fleet:
        fleet.watch(EndingAfter(3), threading.Event())
        assert list(states(fleet.supervisor)) == ["b"]


def test_a_cluster_that_is_lost_while_the_file_is_read_is_one_line(opening, monkeypatch):
    _path, open_fleet = opening

    def lost(*_):
        raise ray.exceptions.RaySystemError("no answer")

    reading = threading.Event()
    with open_fleet() as fleet:
        monkeypatch.setattr(run.Shipper, "work_of", lost)
        reading.set()
        with pytest.raises(run.ConnectionLostError, match=r"^fleet fleet: the connection to Ray is lost: "):
            fleet.watch(EndingAfter(3), reading)


def test_a_copied_bundle_is_opened_in_the_cache_of_the_node(vif, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reference = BundleReference("night", "a" * 64)
    with pytest.raises(BundleError) as caught:
        open_bundle(reference)
    assert str(caught.value) == (
        "night: no copy of it on this node yet; expected one from the supervisor of the fleet. Start the supervisor, "
        "if none runs."
    )
    shutil.copytree(vif, tmp_path / "tcmoa" / "bundles" / ("a" * 64))
    assert open_bundle(reference) == tmp_path / "tcmoa" / "bundles" / ("a" * 64)
    assert open_bundle(BundleReference("night", bundle_hash(Bundle.open(vif)), str(vif))) == vif
