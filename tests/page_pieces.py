"""A running stream with its page, and small HTTP clients."""

import contextlib
import json
import socket
import struct
import threading
import urllib.error
import urllib.request

from stream_pieces import LiveSource, copying_fuser, wait_until
from tcmoa_runtime import Stream
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.page.sink import Page


@contextlib.contextmanager
def running_page(bundle, *, address="127.0.0.1:0", token=None, rate=50, x=None, y=None, **options):
    """Serve the page of a live stream of numbered frames; yield (page, stream)."""
    options.setdefault("options", StreamOptions(tolerance=2.0))  # a stall of the machine is no loss
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
            running.join(60)
    assert not running.is_alive()


def wait_for_frames(page, stream, count=1):
    """Wait until the stream has emitted this many frames."""
    wait_until(lambda: stream.stats.snapshot()["frames"] >= count, f"{page.url}: fewer than {count} frames")


def request(page, path, method="GET", body=None, headers=None, raw=None, host="127.0.0.1"):
    """Send an HTTP request, a body as JSON; return (status, headers, body in bytes)."""
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} if data is not None else {}
    message = urllib.request.Request(
        f"http://{host}:{page.port}{path}", data, {**sent, **(headers or {})}, method=method
    )
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(message, timeout=60) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def call(page, path, method="GET", body=None, **options):
    """Send an HTTP request; return (status, JSON of the response)."""
    status, headers, text = request(page, path, method, body, **options)
    assert headers.get_content_type() == "application/json", text
    return status, json.loads(text)


def exchange(page, data, *, seconds=60.0):
    """Send bytes over a new connection; return (status, headers, body) of the answer, read until the page closes it."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=seconds) as client:
        client.sendall(data)
        return read_answer(client)


def read_answer(client):
    """Read one HTTP answer from a socket; return (status, headers in lower case, body as text)."""
    received = b""
    while (chunk := client.recv(65536)) != b"":
        received += chunk
        head, mark, body = received.partition(b"\r\n\r\n")
        if not mark:
            continue
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if len(body) >= int(headers["content-length"]):
            return int(first.split()[1]), headers, body.decode()
    raise AssertionError(f"the connection was closed after {received!r}")


def parts_of(message):
    """Split a message of the WebSocket into (header, {part: bytes})."""
    (length,) = struct.unpack_from("<I", message)
    header = json.loads(message[4 : 4 + length])
    position, parts = 4 + length, {}
    for name, size in header.get("parts", []):
        parts[name] = message[position : position + size]
        position += size
    assert position == len(message)
    return header, parts


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None
