"""A fleet as its users run it: its file, its supervisor as a process, and its API."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from tcmoa_runtime.fleet.pool import NameTakenError, StopOutcome
from tcmoa_runtime.streams.stats import Stats
from video_pieces import fused, gradient, write

START = """
import sys
from tcmoa_runtime.cli import run
sys.exit(run(sys.argv[1:]))
"""


def write_sources(folder, num_frames=2400, interval_ms=100):
    """Write x.mkv and y.mkv of 130x100: 25 frames again and again."""
    import av  # here, so that tests without video files need no PyAV

    images = write(folder / "images.mkv", [gradient(i, 100, 130) for i in range(25)], codec="mjpeg")
    with av.open(str(images)) as video, av.open(str(folder / "x.mkv"), "w") as repeated:
        packets = [bytes(packet) for packet in video.demux(video=0) if packet.size]
        stream = repeated.add_stream_from_template(video.streams.video[0])
        for i in range(num_frames):
            packet = av.Packet(packets[i % len(packets)])
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 1000), True
            packet.pts = packet.dts = i * interval_ms
            repeated.mux(packet)
    images.unlink()
    (folder / "y.mkv").symlink_to(folder / "x.mkv")
    return folder


def write_fleet(path, bundle, sources, out, pairs, **defaults):
    """Write a fleet.toml with quoted values; `pairs` are tables by name."""
    out.mkdir(exist_ok=True)
    given = {
        "bundle": str(bundle),
        "x": str(sources / "x.mkv"),
        "y": str(sources / "y.mkv"),
        "out": str(out / "{pair}-{time}.mkv"),
        "realtime": True,
        "backend": "onnxruntime",  # which each process loads a second faster than OpenVINO
        "page": "off",
        "cpus": 0.25,
        **defaults,
    }
    tables = {"defaults": given, **{f"pairs.{name}": table for name, table in pairs.items()}}
    lines = [f'name = "{path.stem}"', ""]
    for title, table in tables.items():
        lines += [f"[{title}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""]
    path.write_text("\n".join(lines))
    return path


class SupervisorProcess:
    """`tcmoa fleet` as a process, and clients of its page."""

    def __init__(self, file, port, *options, environment=None):
        self.port = port
        self.log = file.with_name(f"supervisor-{time.monotonic_ns()}.log")
        command = [
            *(sys.executable, "-c", START, "fleet", str(file)),
            *("--page", f"127.0.0.1:{port}", *options),
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def get(self, path):
        """Return the body of a response; None if there is no server or it is an error."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as response:
                return response.read()
        except (urllib.error.URLError, OSError):
            return None

    def pairs(self):
        """Return the pairs by name; none while the page is not up."""
        body = self.get("/api/fleet")
        return {} if body is None else {pair["name"]: pair for pair in json.loads(body)["pairs"]}

    def until(self, condition, seconds=180):
        """Wait until a condition of the pairs holds; return the pairs and the seconds that it took."""
        began = time.monotonic()
        while True:
            pairs = self.pairs()
            if pairs and condition(pairs):
                return pairs, time.monotonic() - began
            states = {name: (pair["state"], pair["message"], pair["error"]) for name, pair in pairs.items()}
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < began + seconds, f"{states}\n{self.log.read_text()}"
            time.sleep(0.1)

    def kill(self):
        """End it as a machine that loses power does."""
        self.process.kill()
        self.process.wait()

    def close(self):
        """End it, if it runs."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


def all_run(*names):
    """Return the condition that these pairs emit frames."""
    return lambda pairs: all(
        name in pairs and pairs[name]["state"] == "running" and pairs[name]["frames"] > 0 for name in names
    )


def check_videos(folder):
    """Check that every file below a folder can be played to its end, and that none is hidden; return the names."""
    import av  # here, so that tests without video files need no PyAV

    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    assert [path.name for path in files if path.name.startswith(".")] == []
    for path in files:
        with av.open(str(path)) as video:
            times = [frame.time for frame in video.decode(video=0)]
        assert times, path.name
        assert np.all(np.diff(times) > 0), path.name
    return [path.name for path in files]


def report_of(name, state="running", **values):
    """A report of a pair as its actor gives it."""
    stats = Stats()
    stats.record_output(fused(0, np.zeros((2, 2, 3), np.uint8)), skew=0.01)
    return {
        "name": name,
        "digest": "a",
        "state": state,
        "state_s": 12.0,
        "message": None,
        "error": None,
        "retry_s": None,
        "start_count": 1,
        "process_s": 60.0,
        "pid": 100,
        "node": {"id": "1" * 8, "ip": "10.0.0.1", "host": "node-1"},
        "page": "http://127.0.0.1:9000/",
        "x": "rtsp://***@10.0.0.9/v",
        "y": "rtsp://10.0.0.9/t",
        "outs": [f"/video/{name}.mkv"],
        "live": True,
        "size": [640, 480],
        "frame_s": 0.02,
        "age_ms": 81.5,
        "stats": stats.snapshot(),
        "supervisor": None,
        "is_fleet_stopping": False,
        **values,
    }


class ScriptedPool:
    """Actors without processes: each answers as `reports` says, and stops at once unless it is in `stubborn`.

    `outcomes` has what the first questions after the outcome of its stop get, by name.
    """

    def __init__(self, present=()):
        self.present = set(present)
        self.reports = {name: report_of(name) for name in present}
        self.dying, self.stubborn, self.problems, self.outcomes = set(), set(), {}, {}
        self.calls = []

    def names(self):
        return set(self.present)

    def start(self, work):
        if work.pair.name in self.dying:
            self.dying.discard(work.pair.name)
            raise NameTakenError(work.pair.name)
        assert work.pair.name not in self.present, "a double"
        self.calls.append(("start", work.pair.name))
        self.present.add(work.pair.name)
        self.reports[work.pair.name] = report_of(work.pair.name, digest=work.digest)

    def poll(self, timeout):
        return {name: report for name, report in self.reports.items() if name in self.present}

    def request_stop(self, name, *, is_fleet_stopping=False):
        self.calls.append(("stop", name))
        if name in self.reports:
            self.reports[name]["is_fleet_stopping"] = is_fleet_stopping

    def stop_outcome(self, name):
        if ("stop", name) not in self.calls:
            return StopOutcome.NOT_ASKED
        if self.outcomes.get(name):
            return self.outcomes[name].pop(0)
        return StopOutcome.PENDING if name in self.stubborn else StopOutcome.COMPLETE

    def kill(self, name):
        self.calls.append(("kill", name))
        self.present.discard(name)

    def picture(self, name, width, timeout):
        picture = np.full((48, 64, 3), 40 + 2 * (sum(name.encode()) % 90), np.uint8)
        return cv2.imencode(".jpg", picture)[1].tobytes()

    def problem_of(self, name):
        return self.problems.get(name)

    def why_pending(self, pair):
        return "waiting for 1 CPU"
