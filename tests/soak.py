"""Run a live stream for a long time, and watch memory, file descriptors and threads: `make soak`.

Two cameras that are lost and reopened every few seconds, the live page with a browser's connection and requests, a
recording that goes on, and recordings of streams that are opened and closed one after the other. Fusing copies x, so
that the process waits most of the time. The last line on stdout is a JSON object; the exit code is 1 if something grew.
"""

import argparse
import asyncio
import json
import statistics
import struct
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from stream_pieces import LiveSource, copying_fuser
from tcmoa_runtime import Bundle, Stream
from tcmoa_runtime.streams.page.sink import Page
from tcmoa_runtime.streams.sinks import open_sink
from tcmoa_runtime.streams.sources.reconnecting import Reconnecting

RATE = 10
CONNECTION_FRAMES = 40
"""Frames after which a camera is lost."""
WARM_UP = 0.4
"""Share of the time after which nothing may grow."""
MAX_GROWTH_MB = 16.0
MAX_GROWTH_COUNT = 4
"""Descriptors and threads: connections come and go."""


@dataclass(frozen=True)
class Sample:
    """What the process holds."""

    memory_mb: float
    descriptors: int
    threads: int


def take_sample():
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line
    )
    return Sample(
        int(status["VmRSS"].split()[0]) * 1024 / 1e6,
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
    )


def camera(name, size):
    """A camera that fails and ends in turn."""
    connections = iter(range(1_000_000))

    def connect():
        end = "die" if next(connections) % 2 else "end"
        return LiveSource(
            RATE, name=name, size=size, hook=lambda index: end if index == CONNECTION_FRAMES else None
        )

    return Reconnecting(connect, patience=30.0)


async def browse(url, stop):
    """Use the page as a browser does, and open a new connection for each request."""
    num_messages = 0
    while not stop.is_set():
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/live") as live:
            for _ in range(50):
                message = await live.receive(timeout=30)
                if stop.is_set() or message.type is not aiohttp.WSMsgType.BINARY:
                    break
                (length,) = struct.unpack_from("<I", message.data)
                header = json.loads(message.data[4 : 4 + length])
                await live.send_json({"ack": header["sequence"]})
                num_messages += 1
                if num_messages % 5 == 0:
                    await use_api(url, num_messages)
    return num_messages


async def use_api(url, number):
    async with aiohttp.ClientSession() as session:
        for path in ("/api/stats", "/api/frame.jpg", "/metrics"):
            async with session.get(url + path) as answer:
                assert answer.status == 200, (path, answer.status)
                await answer.read()
        async with session.post(f"{url}/api/control", json={"shift": number % 3 / 10, "ramp": 0.2}) as answer:
            assert answer.status == 200, await answer.text()


def record_again_and_again(fuser, folder, stop, counts):
    """Open and close streams that record."""
    size = fuser.size
    while not stop.is_set():
        target = folder / "short.mp4"
        sources = [LiveSource(RATE, name=name, size=size) for name in "xy"]
        with Stream(fuser, *sources, sinks=[open_sink(str(target))]) as stream:
            for number, _ in enumerate(stream):
                if number == 20 or stop.is_set():
                    break
        target.unlink(missing_ok=True)
        counts["recordings"] += 1


def soak(seconds):
    """Run for some seconds and return the result as JSON."""
    bundle = Bundle.open("nano-vif")
    fuser = copying_fuser(bundle)
    stop, counts, samples = threading.Event(), {"recordings": 0, "messages": 0}, []
    errors = []
    with tempfile.TemporaryDirectory() as name, closing(Page("127.0.0.1:0")) as page:
        folder = Path(name)
        stream = Stream(
            fuser,
            camera("x", bundle.size),
            camera("y", bundle.size),
            sinks=[page, open_sink(str(folder / "long.mp4"))],
        )

        def guarded(work):
            def call():
                try:
                    work()
                except Exception as error:  # shown at the end
                    errors.append(repr(error))
                    stop.set()

            return threading.Thread(target=call)

        threads = [guarded(stream.run)]
        threads[0].start()
        while not stream.stats.snapshot()["frames"] and not errors:
            time.sleep(0.1)

        def browse_page():
            counts["messages"] = asyncio.run(browse(page.url.rstrip("/"), stop))

        threads += [
            guarded(browse_page),
            guarded(lambda: record_again_and_again(fuser, folder, stop, counts)),
        ]
        for thread in threads[1:]:
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not stop.wait(1.0):
            fuser.backend.calls.clear()  # what the backend keeps for other tests
            samples.append(take_sample())
        stop.set()
        stream.stop()
        for thread in threads:
            thread.join(60)
        frames = stream.stats.snapshot()["frames"]
        reconnects = min(source.reconnects for source in stream.sources.values())
    return judge(samples) | counts | {"frames": frames, "reconnects": reconnects, "errors": errors}


def judge(samples):
    """Compare the last part of the samples with the part after the warm-up."""
    rest = samples[int(len(samples) * WARM_UP) :]
    first, last = rest[: len(rest) // 3], rest[-len(rest) // 3 :]
    growth = {
        "memory_mb": round(
            statistics.median(s.memory_mb for s in last) - statistics.median(s.memory_mb for s in first), 1
        ),
        "descriptors": max(s.descriptors for s in last) - max(s.descriptors for s in first),
        "threads": max(s.threads for s in last) - max(s.threads for s in first),
    }
    good = (
        growth["memory_mb"] <= MAX_GROWTH_MB
        and max(growth["descriptors"], growth["threads"]) <= MAX_GROWTH_COUNT
    )
    return {
        "seconds": len(samples),
        "peak": vars(max(rest, key=lambda s: s.memory_mb)),
        "growth": growth,
        "good": good,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0)
    result = soak(parser.parse_args().seconds)
    print(json.dumps(result))
    did_all = all(result[name] for name in ("frames", "reconnects", "recordings", "messages"))
    sys.exit(0 if result["good"] and did_all and not result["errors"] else 1)
