"""The stream of one pair without Ray: states, pauses, files, and what is reported."""

import contextlib
import json
import os
import socket
import threading
import time
import urllib.request

import pytest

from fleet_pieces import check_videos, write_fleet
from free_ports import free_port
from tcmoa_runtime import Bundle
from tcmoa_runtime.fleet import backoff, runner
from tcmoa_runtime.fleet.backoff import FREE_STARTS, HEALTHY_S, Backoff, StartHistory
from tcmoa_runtime.fleet.file import FleetFile
from tcmoa_runtime.fleet.recovery import recover_files
from tcmoa_runtime.fleet.runner import PairRunner
from tcmoa_runtime.streams.output_locks import OutputLockedError, OutputLocks, check_not_locked

NODE = {"id": "1", "ip": "127.0.0.1", "host": "here"}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Pauses of a tenth of a second."""
    monkeypatch.setattr(backoff, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(runner, "FIRST_PAUSE_S", 0.1)


@pytest.fixture
def run(exported, sources, tmp_path):
    """Function that runs a pair of these options; it is stopped at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(first_pause=0.0, **table):
            path = write_fleet(
                tmp_path / "fleet.toml", exported("vif"), sources, tmp_path / "out", {"gate": table}
            )
            pair = FleetFile.read(path).pairs["gate"]
            started = PairRunner(
                pair, lambda: Bundle.open(exported("vif")).path, NODE, first_pause=first_pause
            )
            started.start()
            stack.callback(started.stop)
            return started

        yield start


def until(started, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition(report := started.report()):
        assert time.monotonic() < deadline, report
        time.sleep(0.01)
    return report


def is_running(report):
    return report["state"] == "running" and report["stats"]["frames"] > 2


def test_a_stream_runs_reports_and_completes_its_file(run, tmp_path):
    started = run(page="127.0.0.1:0")
    report = until(started, is_running)
    assert json.loads(json.dumps(report)) == report
    assert (report["name"], report["size"], report["live"], report["error"]) == (
        "gate",
        [130, 100],
        True,
        None,
    )
    assert report["frame_s"] < 5
    assert report["age_ms"] is not None
    assert report["outs"] == [str(next((tmp_path / "out").glob(".gate-*"))).replace("/.gate", "/gate")[:-17]]
    with urllib.request.urlopen(report["page"], timeout=60) as response:
        assert b"<title>tcmoa stream</title>" in response.read()
    jpeg = started.picture(64)
    assert jpeg.startswith(b"\xff\xd8")
    assert len(started.picture(1000)) > len(jpeg)
    assert started.stop()
    assert started.report()["state"] == "ended"
    (name,) = check_videos(tmp_path / "out")
    assert name.startswith("gate-20")


def test_a_source_that_cannot_be_opened_is_tried_again_with_longer_pauses(run, tmp_path):
    started = run(x=str(tmp_path / "late.mkv"))
    report = until(started, lambda report: report["start_count"] >= 3 and report["state"] == "waiting")
    assert report["error"] == f"{tmp_path}/late.mkv: no such file or folder"
    assert 0 <= report["retry_s"] <= 0.8
    assert report["page"] is None
    (tmp_path / "late.mkv").symlink_to(tmp_path.parent / "none")
    until(started, lambda report: report["start_count"] >= 4)


def test_a_source_that_comes_back_clears_the_error(run, sources, tmp_path):
    started = run(x=str(tmp_path / "late.mkv"), page="127.0.0.1:0")
    until(started, lambda report: report["error"] is not None)
    (tmp_path / "late.mkv").symlink_to(sources / "x.mkv")
    report = until(started, is_running)
    assert report["error"] is None


def test_files_that_end_are_over(run, short_sources):
    started = run(x=str(short_sources / "x.mkv"), y=str(short_sources / "y.mkv"), realtime=False)
    report = until(started, lambda report: report["state"] == "ended")
    assert (report["start_count"], report["stats"]["frames"], report["live"]) == (1, 25, False)


def test_files_are_played_again_on_the_same_port(run, short_sources):
    started = run(
        x=str(short_sources / "x.mkv"),
        y=str(short_sources / "y.mkv"),
        restart="always",
        page="127.0.0.1:0",
        out=[],
    )
    pages = set()
    until(started, lambda report: pages.add(report["page"]) or report["start_count"] >= 3)
    assert len(pages - {None}) == 1


def test_a_page_whose_port_was_taken_meanwhile_gets_another_one(run, short_sources, monkeypatch):
    started = run(
        x=str(short_sources / "x.mkv"),
        y=str(short_sources / "y.mkv"),
        restart="always",
        page="127.0.0.1:0",
        out=[],
    )
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = started._page_port = other.getsockname()[1]
        report = until(started, lambda report: report["page"] is not None)
    assert report["error"] is None
    assert report["page"] != f"http://127.0.0.1:{taken}/"


@pytest.mark.parametrize(("restart", "state"), [("failure", "waiting"), ("never", "failed")])
def test_live_sources_that_end_are_a_failure(run, short_sources, restart, state):
    started = run(x=str(short_sources / "x.mkv"), y=str(short_sources / "y.mkv"), restart=restart)
    report = until(started, lambda report: report["state"] == state)
    assert report["error"] == "gate: the sources have ended"


def test_a_number_of_frames_is_an_end(run):
    started = run(frames=3)
    report = until(started, lambda report: report["state"] == "ended")
    assert report["stats"]["frames"] == 3


def test_the_url_of_a_pair_is_locked_once_in_its_process(run):
    out = f"udp://127.0.0.1:{free_port()}"
    started = run(out=out)
    until(started, is_running)
    with pytest.raises(OutputLockedError):
        check_not_locked([out])
    assert started.stop()
    assert started.report()["error"] is None
    check_not_locked([out])


def test_an_output_that_fails_restarts_the_stream_though_others_work(run, tmp_path, monkeypatch):
    from tcmoa_runtime.streams.interfaces import SinkError
    from tcmoa_runtime.streams.sinks.video import VideoFileSink

    write = VideoFileSink.write

    def fail(sink, frame):
        if sink.name.endswith(".mp4"):
            raise SinkError("writing failed: disk full", subject=sink.name)
        write(sink, frame)

    monkeypatch.setattr(VideoFileSink, "write", fail)
    started = run(out=[f"{tmp_path}/{{time}}.mkv", f"{tmp_path}/{{time}}.mp4"])
    report = until(started, lambda report: report["error"] is not None)
    assert report["error"].endswith(".mp4: writing failed: disk full")
    until(started, lambda report: report["start_count"] >= 2)


def test_a_backend_that_breaks_is_loaded_again(run, monkeypatch):
    from tcmoa_runtime import Fuser

    loads, broken = [], threading.Event()
    load = Fuser.load

    def count(*arguments, **options):
        loads.append(1)
        fuser = load(*arguments, **options)
        if len(loads) == 1:
            monkeypatch.setattr(fuser.backend, "infer", lambda inputs: broken.set() or 1 / 0)
        return fuser

    monkeypatch.setattr(Fuser, "load", count)
    started = run()
    report = until(started, lambda report: report["error"] is not None)
    assert report["error"] == "ZeroDivisionError: division by zero"
    until(started, is_running)
    assert (len(loads), broken.is_set()) == (2, True)


def test_a_stream_without_frames_is_stalled(run, monkeypatch):
    monkeypatch.setattr(runner, "STALL_S", 0.5)
    started = run(x="/dev/null", out=[])
    assert until(started, lambda report: report["state"] == "waiting")["frame_s"] is None
    stats = {"rate": 25.0}
    assert not runner._is_stalled(stats, 0.4)
    assert runner._is_stalled(stats, 0.6)
    assert not runner._is_stalled({"rate": 0.1}, 60)
    assert runner._is_stalled(None, 0.6)


def test_an_output_that_another_stream_writes_is_waited_for(run, tmp_path):
    out, locks = f"{tmp_path}/out/{{time}}.mkv", OutputLocks()
    (tmp_path / "out").mkdir()
    partial = tmp_path / "out" / ".20260131T142501Z.mkv.1a2b3c4d.partial"
    partial.write_bytes(b"frames")
    locks.add([out, tmp_path / "out" / "20260131T142501Z.mkv"])
    started = run(out=out, frames=1)
    report = until(started, lambda report: report["start_count"] >= 2)
    assert report["error"] == (
        f"{out}: is being written by process {os.getpid()}; expected one stream at a time. Wait until it has ended, or "
        "choose another output."
    )
    assert recover_files([out]) == []
    assert partial.exists()
    locks.close()
    until(started, lambda report: report["state"] == "ended")
    assert (tmp_path / "out" / "20260131T142501Z.mkv").read_bytes() == b"frames"
    assert started.stop()
    check_not_locked([out])


def test_stopping_while_a_stream_waits_or_opens_is_prompt(run, tmp_path):
    started = run(first_pause=60.0)
    report = until(started, lambda report: report["state"] == "waiting")
    assert report["error"] == "its process has died several times in the last minutes"
    began = time.monotonic()
    assert started.stop()
    assert time.monotonic() - began < 20  # not the pause; a busy machine takes some seconds


def test_a_pair_that_is_stopped_before_it_starts_names_what_an_earlier_process_has_left(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".gate-20260131T142501Z.mkv.1a2b3c4d.partial").write_bytes(b"frames")
    started = run(first_pause=60.0)
    until(started, lambda report: report["state"] == "waiting")
    assert started.stop()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["gate-20260131T142501Z.mkv"]


def test_a_page_that_cannot_be_opened_is_the_error(run):
    started = run(page="203.0.113.1:80", token="long-enough")
    report = until(started, lambda report: report["error"] is not None)
    assert (
        report["error"]
        == "page: cannot listen on 203.0.113.1:80: Cannot assign requested address. Choose another "
        "port, or 0 for any free port."
    )


def test_passwords_are_not_reported(run):
    started = run(x="rtsp://admin:secret@127.0.0.1:9/v", reconnect=0)
    report = until(started, lambda report: report["error"] is not None)
    assert "secret" not in json.dumps(report)
    assert report["x"] == "rtsp://***@127.0.0.1:9/v"


def test_pauses_double_until_a_stream_was_healthy():
    pauses = Backoff()
    assert [pauses.pause_after(5) for _ in range(9)] == pytest.approx(
        [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6]
    )
    assert [pauses.pause_after(5) for _ in range(3)] == pytest.approx([51.2, 60, 60])
    assert pauses.pause_after(HEALTHY_S) == 0.1


def test_a_process_that_dies_again_and_again_pauses(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(backoff, "FIRST_PAUSE_S", 1.0)
    now = 1e9
    history = StartHistory("yard", "gate", lambda: now)
    assert [history.record_start() for _ in range(FREE_STARTS)] == [0.0] * FREE_STARTS
    assert [history.record_start() for _ in range(7)] == [2, 4, 8, 16, 32, 60, 60]
    assert StartHistory("yard", "roof", lambda: now).record_start() == 0
    now += backoff.HISTORY_S
    assert history.record_start() == 0
    (tmp_path / "tcmoa" / "fleet" / "yard" / "gate.json").write_text("damaged")
    assert [history.record_start() for _ in range(4)] == [0, 0, 0, 2]
    history.clear()
    assert history.record_start() == 0


def test_a_cache_folder_that_others_can_write_to_records_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "tcmoa").mkdir(mode=0o777)
    (tmp_path / "tcmoa").chmod(0o777)
    assert [StartHistory("yard", "gate").record_start() for _ in range(9)] == [0] * 9
    assert "starts of streams are not recorded" in caplog.text


def test_files_of_a_killed_process_get_their_names(tmp_path):
    mine = [".gate-20260131T142501Z.mkv.1a2b3c4d.partial", ".gate-20260131T142502Z.mkv.1a2b3c4d.partial"]
    others = [
        ".gate-2-20260131T142501Z.mkv.1a2b3c4d.partial",  # of a pair `gate-2`
        ".gate-20260131T142501Z.mp4.1a2b3c4d.partial",
        ".gate-20260131T142501Z.mkv.partial",
        ".gate-2026.mkv.1a2b3c4d.partial",
    ]
    for name in (*mine, *others):
        (tmp_path / name).write_bytes(b"frames")
    empty = tmp_path / ".gate-20260131T142503Z.mkv.1a2b3c4d.partial"
    empty.touch()
    found = recover_files(
        [f"{tmp_path}/gate-{{time}}.mkv", "rtsp://h/gate-{time}.mkv", f"{tmp_path}/{{time}}/"]
    )
    assert [path.name for path in found] == ["gate-20260131T142501Z.mkv", "gate-20260131T142502Z.mkv"]
    assert {path.name for path in tmp_path.iterdir()} == {*others, *(path.name for path in found)}
    inner = tmp_path / "20260131T142501Z"
    inner.mkdir()
    (inner / ".gate.mkv.00112233.partial").write_bytes(b"frames")
    (inner / "gate.mkv").write_bytes(b"older")
    assert recover_files([f"{tmp_path}/{{time}}/gate.mkv"]) == []  # a name that is taken
    (inner / "gate.mkv").unlink()
    assert recover_files([f"{tmp_path}/{{time}}/gate.mkv"]) == [inner / "gate.mkv"]
    assert recover_files([f"{tmp_path}/none/{{time}}.mkv"]) == []
