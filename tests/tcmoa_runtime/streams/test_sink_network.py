"""Network sinks: the receiver decodes the stream, and a lost connection drops frames but never ends the stream."""

import contextlib
import socket
import subprocess
import time

import pytest

from free_ports import free_port
from stream_pieces import ListSink, ScriptedSource, copying_fuser, wait_until
from tcmoa_runtime import Stream
from tcmoa_runtime.streams.interfaces import SinkError
from tcmoa_runtime.streams.sinks import SinkOptions, open_sink
from tcmoa_runtime.streams.view import ViewSink
from video_pieces import FFMPEG, FFPROBE, count_frames, fused, gradient, stream_format

av = pytest.importorskip("av", reason="PyAV is not installed; `pip install 'tcmoa[stream]'` runs this")
pytestmark = pytest.mark.skipif(
    not (FFPROBE and FFMPEG), reason="ffmpeg is not installed; `apt-get install ffmpeg` runs this"
)
LIVE = {"live": True}


@contextlib.contextmanager
def receiving(url, path, *options):
    """Let FFmpeg write what it receives to `path`; yield its process, which is killed at the end."""
    quick = ["-probesize", "50000", "-analyzeduration", "300000"]
    call = [
        FFMPEG,
        "-v",
        "quiet",
        "-y",
        *quick,
        *options,
        "-i",
        url,
        "-c",
        "copy",
        "-flush_packets",
        "1",
        path,
    ]
    process = subprocess.Popen(call, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def push(sink, count, *, start=0, pause=0.02):
    for i in range(start, start + count):
        sink.write(fused(i, gradient(i, 96, 128)))
        time.sleep(pause)


def push_until_received(sink, path, count, *, start=0):
    """Push frames until the receiver has written `count` of them to `path`; on a busy machine it starts late."""
    deadline, index = time.monotonic() + 90, start
    while index % 20 or not path.exists() or count_frames(path) < count:
        assert time.monotonic() < deadline
        push(sink, 1, start=index)
        index += 1


def connect(sink):
    """Open a sink as soon as the receiver listens."""

    def is_open():
        try:
            sink.open(stream_format(96, 128, **LIVE))
        except SinkError:
            return False
        return True

    wait_until(is_open)


def test_mpeg_ts_over_udp_is_decoded_by_the_receiver(tmp_path):
    port = free_port()
    sink = open_sink(f"UDP://127.0.0.1:{port}")
    assert (sink.name, sink.url) == (f"UDP://127.0.0.1:{port}", f"udp://127.0.0.1:{port}")
    with receiving(sink.url, tmp_path / "r.ts"):
        connect(sink)
        push_until_received(sink, tmp_path / "r.ts", 60)
        sink.close()


def test_rtsp_is_pushed_to_a_listener(tmp_path):
    sink = open_sink(f"rtsp://127.0.0.1:{free_port()}/live")
    with receiving(sink.url, tmp_path / "r.ts", "-rtsp_flags", "listen"):
        connect(sink)
        push_until_received(sink, tmp_path / "r.ts", 50)
        sink.close()


@pytest.mark.slow
def test_a_lost_connection_is_opened_again(tmp_path):
    sink = open_sink(f"tcp://127.0.0.1:{free_port()}")
    listener = f"{sink.url}?listen=1"
    with receiving(listener, tmp_path / "a.ts", "-f", "mpegts"):
        connect(sink)
        push(sink, 40)
    index, longest, deadline = 40, 0.0, time.monotonic() + 60
    while not sink.dropped:
        assert time.monotonic() < deadline
        began = time.monotonic()
        push(sink, 1, start=index, pause=0.01)
        longest, index = max(longest, time.monotonic() - began), index + 1
    with receiving(listener, tmp_path / "b.ts", "-f", "mpegts"):
        while not sink.reconnects:
            assert time.monotonic() < deadline + 60
            push(sink, 1, start=index, pause=0.02)
            index += 1
        push_until_received(sink, tmp_path / "b.ts", 20, start=index)
        sink.close()
    assert longest < 20


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
    deadline = time.monotonic() + 60
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
