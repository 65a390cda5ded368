"""Network sinks: the receiver decodes the stream, and a lost connection drops frames but never ends the stream."""

import socket
import subprocess
import time

import pytest

from stream_pieces import ListSink, ScriptedSource, copying_fuser
from tcmoa_runtime import Stream
from tcmoa_runtime.streams.interfaces import SinkError
from tcmoa_runtime.streams.sinks import SinkOptions, open_sink
from tcmoa_runtime.streams.view import ViewSink
from video_pieces import FFMPEG, FFPROBE, count_frames, free_port, fused, gradient, stream_format

av = pytest.importorskip("av", reason="PyAV is not installed; `pip install 'tcmoa[stream]'` runs this")
pytestmark = pytest.mark.skipif(
    not (FFPROBE and FFMPEG), reason="ffmpeg is not installed; `apt-get install ffmpeg` runs this"
)
LIVE = {"live": True}


def receiver(url, path, *options, seconds=8):
    quick = ["-probesize", "50000", "-analyzeduration", "300000"]
    call = [FFMPEG, "-v", "error", "-y", *quick, *options, "-i", url, "-t", str(seconds), "-c", "copy", path]
    return subprocess.Popen(call, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def stop(process):
    """Let FFmpeg complete its file."""
    try:
        process.communicate(b"q", timeout=20)
    finally:
        process.kill()
        process.wait()


def push(sink, count, *, start=0, pause=0.02):
    for i in range(start, start + count):
        sink.write(fused(i, gradient(i, 96, 128)))
        time.sleep(pause)


def test_mpeg_ts_over_udp_is_decoded_by_the_receiver(tmp_path):
    url = f"udp://127.0.0.1:{free_port()}"
    listening = receiver(f"{url}?timeout=3000000", tmp_path / "r.ts")
    time.sleep(0.5)
    sink = open_sink(url)
    sink.open(stream_format(96, 128, **LIVE))
    push(sink, 120)
    sink.close()
    stop(listening)
    assert count_frames(tmp_path / "r.ts") > 60


def test_rtsp_is_pushed_to_a_listener(tmp_path):
    url = f"rtsp://127.0.0.1:{free_port()}/live"
    listening = receiver(url, tmp_path / "r.ts", "-rtsp_flags", "listen")
    sink = open_sink(url)
    deadline = time.monotonic() + 15
    while True:
        try:
            sink.open(stream_format(96, 128, **LIVE))
            break
        except SinkError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    push(sink, 100)
    sink.close()
    stop(listening)
    assert count_frames(tmp_path / "r.ts") > 50


@pytest.mark.slow
def test_a_lost_connection_is_opened_again(tmp_path):
    port = free_port()
    first = receiver(f"tcp://127.0.0.1:{port}?listen=1", tmp_path / "a.ts", "-f", "mpegts", seconds=60)
    sink, second = open_sink(f"tcp://127.0.0.1:{port}"), None
    deadline = time.monotonic() + 15
    while True:
        try:
            sink.open(stream_format(96, 128, **LIVE))
            break
        except SinkError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    try:
        push(sink, 40)
        first.kill()
        first.wait()
        index, longest = 40, 0.0
        while not sink.dropped:
            assert time.monotonic() < deadline + 30
            began = time.monotonic()
            push(sink, 1, start=index, pause=0.01)
            longest, index = max(longest, time.monotonic() - began), index + 1
        second = receiver(f"tcp://127.0.0.1:{port}?listen=1", tmp_path / "b.ts", "-f", "mpegts", seconds=60)
        while not sink.reconnects:
            assert time.monotonic() < deadline + 60
            push(sink, 1, start=index, pause=0.02)
            index += 1
        push(sink, 60, start=index)
        assert longest < 4
    finally:
        sink.close()
        for process in (first, second):
            if process is not None:
                stop(process) if process is second else process.kill()
                process.wait()
                process.stdin.close()
                process.stderr.close()
    assert count_frames(tmp_path / "b.ts") > 20


def test_a_failed_first_connection_is_reported_without_the_password():
    sink = open_sink(f"tcp://user:secret@127.0.0.1:{free_port()}")
    with pytest.raises(SinkError, match="connection failed: Connection refused") as caught:
        sink.open(stream_format(96, 128, **LIVE))
    assert "secret" not in str(caught.value)
    sink.close()


def test_frames_without_a_connection_are_counted_and_a_lost_end_is_an_error():
    """The listener goes away after the first frames."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = open_sink(f"tcp://127.0.0.1:{server.getsockname()[1]}?password=secret")
        sink.open(stream_format(96, 128, **LIVE))
        server.accept()[0].close()
    deadline = time.monotonic() + 20
    index = 0
    while sink.dropped < 3:
        assert time.monotonic() < deadline
        push(sink, 1, start=index, pause=0.001)
        index += 1
    with pytest.raises(SinkError, match=r"connection lost: .*; the last 3 frames were not sent") as caught:
        sink.close()
    assert "secret" not in str(caught.value)
    sink.close()


def test_what_a_sink_drops_is_in_the_statistics(bundle):
    class Dropping(ListSink):
        dropped = 0

        def write(self, frame):
            self.dropped += 1

    x, y = (ScriptedSource([40 * i for i in range(10)]) for _ in "xy")
    stream = Stream(copying_fuser(bundle), x, y, sinks=[ViewSink(Dropping("net"), "blend")])
    assert stream.run().snapshot()["dropped"] == {"sink-net": 10}


def test_a_codec_for_files_only_is_refused():
    with pytest.raises(SinkError, match="the container mpegts cannot hold ffv1"):
        open_sink("udp://127.0.0.1:5000", SinkOptions(codec="ffv1"))
