"""A fleet as its users run it: its file, its supervisor as a process, and its API."""

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import av
import numpy as np

from video_pieces import gradient, write

START = """
import sys
from tcmoa_runtime.cli import run
sys.exit(run(sys.argv[1:]))
"""


def write_sources(folder, seconds=240):
    """Write x.mkv and y.mkv of 130x100 that play for some seconds at 25 frames per second."""
    folder.mkdir(exist_ok=True)
    cycle = [gradient(i, 100, 130) for i in range(25)]
    for name in "xy":
        write(folder / f"{name}.mkv", cycle * seconds, codec="mjpeg")
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
        "page": "off",
        "cpus": 0.25,
        **defaults,
    }
    tables = {"defaults": given, **{f"pairs.{name}": table for name, table in pairs.items()}}
    lines = []
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
        """Return the body of a response; None if nobody listens or it is an error."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
                return response.read()
        except (urllib.error.URLError, OSError):
            return None

    def pairs(self):
        """Return the pairs by name; none while the page is not up."""
        body = self.get("/api/fleet")
        return {} if body is None else {pair["name"]: pair for pair in json.loads(body)["pairs"]}

    def until(self, condition, seconds=60):
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

    def interrupt(self, seconds=40):
        """End it as Ctrl-C does; return its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(seconds)

    def close(self):
        """End it, if it runs."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


def all_run(*names):
    """Return the condition that exactly these pairs are there and emit frames."""
    return lambda pairs: (
        sorted(pairs) == sorted(names)
        and all(pair["state"] == "running" and pair["frames"] > 0 for pair in pairs.values())
    )


def check_videos(folder):
    """Check that every file below a folder can be played to its end, and that none is hidden; return the names."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    assert not [path.name for path in files if path.name.startswith(".")]
    for path in files:
        with av.open(str(path)) as video:
            times = [frame.time for frame in video.decode(video=0)]
        assert times, path.name
        assert np.all(np.diff(times) > 0), path.name
    return [path.name for path in files]
