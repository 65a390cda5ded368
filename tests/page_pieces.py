"""A stream with its page, and small clients of it."""

import contextlib
import json
import struct
import threading
import urllib.error
import urllib.request

from stream_pieces import LiveSource, copying_fuser
from tcmoa_runtime import Stream
from tcmoa_runtime.streams.page.sink import Page


@contextlib.contextmanager
def running_page(bundle, *, address="127.0.0.1:0", token=None, rate=50, x=None, y=None, **options):
    """A live stream of numbered frames whose page is served; gives (page, stream)."""
    page = Page(address, token=token)
    sinks = [page, *options.pop("sinks", [])]
    with contextlib.closing(page):
        stream = Stream(
            options.pop("fuser", None) or copying_fuser(bundle),
            x or LiveSource(rate, name="camera-x"),
            y or LiveSource(rate, name="camera-y"),
            sinks=sinks,
            **options,
        )
        running = threading.Thread(target=stream.run)
        running.start()
        try:
            wait_for_frames(page, stream)
            yield page, stream
        finally:
            stream.stop()
            running.join(20)
    assert not running.is_alive()


def wait_for_frames(page, stream, count=1, seconds=10.0):
    """Until the stream has put out so many."""
    over = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if stream.stats.snapshot()["frames"] >= count:
            return
        over.wait(0.01)
    raise AssertionError(f"{page.url}: no {count} frames in {seconds} s")


def request(page, path, method="GET", body=None, headers=None, raw=None, host="127.0.0.1"):
    """(status, headers, body as bytes) of one HTTP request; a body is sent as JSON."""
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} if data is not None else {}
    asked = urllib.request.Request(
        f"http://{host}:{page.port}{path}", data, {**sent, **(headers or {})}, method=method
    )
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(asked, timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def call(page, path, method="GET", body=None, **options):
    """(status, answer) of a request that is answered in JSON."""
    status, headers, answer = request(page, path, method, body, **options)
    assert headers.get_content_type() == "application/json", answer
    return status, json.loads(answer)


def parts_of(message):
    """(header, {view: bytes}) of a message of the WebSocket."""
    (length,) = struct.unpack_from("<I", message)
    header = json.loads(message[4 : 4 + length])
    place, parts = 4 + length, {}
    for view, size in header.get("parts", []):
        parts[view] = message[place : place + size]
        place += size
    assert place == len(message)
    return header, parts


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None
