"""Live sources: network streams of real processes that stop and restart, and simulated cameras."""

import functools
import http.server
import re
import socket
import subprocess
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from free_ports import free_port
from stream_pieces import LiveSource, ScriptedSource, wait_until
from tcmoa_runtime.streams import opening
from tcmoa_runtime.streams.interfaces import SourceError
from tcmoa_runtime.streams.sources import SourceOptions, camera, open_source, reconnecting
from tcmoa_runtime.streams.sources.reconnecting import Reconnecting
from video_pieces import FFMPEG, gradient, write

av = pytest.importorskip("av", reason="PyAV is not installed; `pip install 'tcmoa[stream]'` runs this")
needs_ffmpeg = pytest.mark.skipif(
    FFMPEG is None, reason="ffmpeg is not installed; `apt-get install ffmpeg` runs this"
)
SERVER = Path(__file__).parents[2] / "rtsp_server.py"
SYSTEM_PYTHON = "/usr/bin/python3"


# Reconnecting, without a network


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(reconnecting, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(reconnecting, "MAX_PAUSE_SECONDS", 0.02)


def test_frame_numbers_continue_over_connections(quick):
    connections = [
        ScriptedSource([0, 40]),
        ScriptedSource([7000, 7040, 7080], fails_after=2),
        ScriptedSource([5]),
    ]
    source = Reconnecting(lambda: connections.pop(0), 30)
    frames = [source.read() for _ in range(5)]
    source.close()
    assert [f.index for f in frames] == [0, 1, 2, 3, 4]
    assert [f.pts for f in frames] == [0, 40, 7000, 7040, 5]
    assert source.reconnects == 2


def test_timestamps_of_another_time_base_are_converted(quick):
    other = ScriptedSource([3])
    other.time_base = Fraction(1, 10)
    connections = [ScriptedSource([0]), other]
    source = Reconnecting(lambda: connections.pop(0), 30)
    assert [source.read().time for _ in range(2)] == [0.0, 0.3]
    source.close()


def test_a_source_that_stays_lost_is_an_error_with_the_reason(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(reconnecting, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    first = ScriptedSource([0], fails_after=1, name="camera")
    attempts = []

    def connect():
        attempts.append(now.seconds)
        raise SourceError("not there", subject="camera")

    source = Reconnecting(connect, 20, first)
    monkeypatch.setattr(source._closed, "wait", lambda pause: setattr(now, "seconds", now.seconds + pause))
    source.read()
    with pytest.raises(
        SourceError, match=r"^camera: lost for more than 20 s: broke\. Use reconnect to wait longer\.$"
    ):
        source.read()
    assert attempts == [100.25, 100.75, 101.75, 103.75, 107.75, 112.75, 117.75]


def test_the_first_connection_must_work():
    def connect():
        raise SourceError("not there", subject="camera")

    with pytest.raises(SourceError, match="not there"):
        Reconnecting(connect, 30)


def test_closing_wakes_a_source_that_is_reconnecting():
    source = Reconnecting(lambda: LiveSource(1), 30, LiveSource(1000, hook=lambda i: "die" if i else None))
    source.read()
    ended = []
    thread = threading.Thread(target=lambda: ended.append(source.read()))
    thread.start()
    time.sleep(0.1)
    source.close()
    thread.join(60)
    assert ended == [None]


# Real networks


@pytest.fixture
def web(tmp_path):
    """A web server of `tmp_path`: its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://user:secret@127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@needs_ffmpeg
def test_a_file_on_a_web_server_is_not_live_and_that_is_said(web, tmp_path, caplog):
    write(tmp_path / "v.mp4", [gradient(i) for i in range(10)])
    messages = []
    source = open_source(f"{web}/v.mp4", on_message=messages.append)
    assert not source.live
    assert len(list(iter(source.read, None))) == 10
    source.close()
    name = f"{web}/v.mp4".replace("user:secret", "***")
    assert (source.name, messages) == (name, [f"opening {name}"])
    assert caplog.messages == [
        f"{name}: has a duration: read as a file, every frame of it. Set live=True to treat it as live."
    ]
    caplog.clear()
    open_source(f"{web}/v.mp4", SourceOptions(live=False)).close()
    assert caplog.messages == []


def test_a_long_opening_says_what_it_waits_for(monkeypatch):
    monkeypatch.setattr(opening, "MESSAGE_SECONDS", 0.05)
    messages = []
    with opening.reported_opening("rtsp://camera/live", messages.append) as on_phase:
        wait_until(lambda: len(messages) > 1)
        on_phase("waiting for a key frame")
        wait_until(lambda: "key frame" in messages[-1])
    assert messages[0] == "opening rtsp://camera/live"
    waits = list(dict.fromkeys(re.sub(r"\(\d+ s\)", "(N s)", message) for message in messages[1:]))
    assert waits == ["rtsp://camera/live: opening (N s)", "rtsp://camera/live: waiting for a key frame (N s)"]


def test_an_unreachable_url_is_one_line_without_the_password(web):
    rtsp = f"rtsp://user:secret@127.0.0.1:{free_port()}/live"
    for url, reason in (
        (f"{web}/none.mp4", "404"),
        (rtsp, "Connection refused"),
        (rtsp.replace("rtsp", "RTSP"), "Connection refused"),
    ):
        with pytest.raises(SourceError, match=f"cannot be opened: .*{reason}") as caught:
            open_source(url, SourceOptions(reconnect=0))
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def sender(port, *, seconds=120):
    """FFmpeg sending MPEG-TS over UDP, in real time."""
    call = [
        FFMPEG,
        "-v",
        "error",
        "-re",
        "-f",
        "lavfi",
        "-i",
        f"testsrc=size=128x96:rate=25:duration={seconds}",
    ]
    codec = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10", "-f", "mpegts"]
    return subprocess.Popen(
        [*call, *codec, f"udp://127.0.0.1:{port}?pkt_size=1316"], stderr=subprocess.DEVNULL
    )


@needs_ffmpeg
def test_a_udp_sender_that_is_killed_and_restarted():
    port = free_port()
    first = sender(port)
    source = open_source(f"udp://127.0.0.1:{port}", SourceOptions(timeout=30, reconnect=60))
    second = None
    try:
        assert source.live
        before = [source.read() for _ in range(15)]
        np.testing.assert_allclose(np.diff([f.time for f in before]), 0.04, atol=2e-3)
        first.kill()
        first.wait()
        second = sender(port)
        deadline = time.monotonic() + 90
        frame = source.read()
        while frame.index < 60:
            assert time.monotonic() < deadline
            frame = source.read()
        assert frame.image.shape == (96, 128, 3)
    finally:
        source.close()
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()


@needs_ffmpeg
def test_noise_on_the_network_does_not_end_a_source():
    port = free_port()
    process = sender(port)
    source = open_source(f"udp://127.0.0.1:{port}", SourceOptions(timeout=30))
    try:
        source.read()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
            rng = np.random.default_rng(0)
            for _ in range(20):
                noise.sendto(rng.bytes(1316), ("127.0.0.1", port))
                time.sleep(0.01)
        frames = [source.read() for _ in range(60)]
        assert frames[-1].image.shape == (96, 128, 3)
    finally:
        source.close()
        process.kill()
        process.wait()


def rtsp_server(port):
    found = Path(SYSTEM_PYTHON).exists() and not subprocess.run(
        [SYSTEM_PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"], capture_output=True, check=False
    ).returncode  # fmt: skip
    if not found:
        pytest.skip(
            "no RTSP server here; `apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good "
            "gstreamer1.0-plugins-ugly` runs this"
        )
    process = subprocess.Popen([SYSTEM_PYTHON, SERVER, str(port)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process):
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.slow
def test_an_rtsp_server_that_is_killed_and_restarted():
    port = free_port()
    server, servers = rtsp_server(port), []
    source = open_source(f"rtsp://127.0.0.1:{port}/live", SourceOptions(timeout=20, reconnect=90))
    try:
        assert (source.live, source.size) == (True, (96, 128))
        assert [source.read().index for _ in range(10)] == list(range(10))
        ended(server)
        servers.append(rtsp_server(port))
        deadline = time.monotonic() + 90
        while source.reconnects == 0:
            assert time.monotonic() < deadline
            frame = source.read()
        assert frame is not None
        assert source.read().index > 10
    finally:
        source.close()
        for process in (server, *servers):
            ended(process)


# Cameras


class Capture:
    """A simulated `cv2.VideoCapture`."""

    def __init__(self, images, opened=True):
        self.images, self.opened, self.set_to, self.released = list(images), opened, {}, 0

    def isOpened(self):  # noqa: N802
        return self.opened

    def set(self, place, value):
        self.set_to[place] = value

    def get(self, place):
        return 30.0

    def read(self):
        return (True, self.images.pop(0)) if self.images else (False, None)

    def release(self):
        self.released += 1


@pytest.fixture
def device(monkeypatch):
    """A camera /dev/video0 that captures `images`."""
    import cv2

    def plug(images, **options):
        capture = Capture(images, **options)
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
        monkeypatch.setattr(camera.Path, "exists", lambda _: True)
        return capture

    return plug


def test_a_camera_has_its_own_size_and_the_requested_channel_order(device):
    import cv2

    capture = device([np.full((96, 128, 3), (10, 20, 30), np.uint8)] * 3)
    options = SourceOptions(rate=Fraction(30), ffmpeg={"width": "128"}, reconnect=0)
    source = open_source("/dev/video0", options)
    first, second = source.read(), source.read()
    assert tuple(first.image[0, 0]) == (30, 20, 10)
    assert (source.size, source.rate, source.live) == ((96, 128), 30, True)
    assert second.time >= first.time
    assert capture.set_to[cv2.CAP_PROP_FPS] == 30
    assert capture.set_to[cv2.CAP_PROP_FRAME_WIDTH] == 128
    source.close()
    assert capture.released
    assert source.read() is None


def test_a_16_bit_camera_is_stretched(device):
    device([np.random.default_rng(0).integers(29_000, 31_000, (96, 128)).astype(np.uint16)])
    source = open_source("/dev/video0", SourceOptions(reconnect=0))
    image = source.read().image
    assert (image.dtype, image.shape) == (np.uint8, (96, 128))
    assert image.std() > 50
    source.close()


def test_cameras_that_cannot_be_used(device):
    device([], opened=False)
    with pytest.raises(SourceError, match=r"cannot be opened\. Close other programs"):
        open_source("/dev/video0")
    silent = device([])
    with pytest.raises(SourceError, match="the camera gives no frame"):
        open_source("/dev/video0")
    assert silent.released
