"""The page against hostile clients, before and after its token: limits, and one line for every wrong request."""

import asyncio
import json
import logging
import re
import resource
import socket

import numpy as np
import pytest

from page_pieces import call, exchange, read_answer, request, running_page, wait_for_frames
from stream_pieces import LiveSource, wait_until
from tcmoa_runtime.streams.page import browser, json_body
from tcmoa_runtime.web import access, connections, refusal

aiohttp = pytest.importorskip(
    "aiohttp", reason="aiohttp is not installed; `pip install 'tcmoa[stream]'` runs this"
)

TOKEN = "secret-of-this-test"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def served(bundle):
    with running_page(bundle) as both:
        yield both


@pytest.fixture(autouse=True)
def no_fault_is_logged(caplog):
    yield
    assert [
        record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR
    ] == []


def connect(page, count=1):
    """Open idle connections."""
    return [socket.create_connection(("127.0.0.1", page.port), timeout=60) for _ in range(count)]


def is_closed(client):
    """Whether the page has closed a connection without an answer."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


# Requests that are wrong in themselves


@pytest.mark.parametrize(
    ("data", "status", "line"),
    [
        (b"GET / HTTP/1.1\r\nHost: [\r\n\r\n", 400, "host: '['; expected a name or an address."),
        (b"GET / HTTP/1.1\r\nHost: [::1%\r\n\r\n", 400, "host: '[::1%'; expected a name or an address."),
        (
            b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
            403,
            r"host: '\udcff\udcfe'; expected localhost, because this page is for this machine only. Serve it on "
            "another address, which requires a token.",
        ),
        (
            b"GET /api/state HTTP/1.0\r\n\r\n",
            403,
            "host: ''; expected localhost, because this page is for this machine only. Serve it on another address, "
            "which requires a token.",
        ),
        (
            b"POST /api/reset HTTP/1.1\r\nHost: localhost\r\nOrigin: http://[\r\nContent-Length: 0\r\n\r\n",
            403,
            "origin: 'http://['; other sites may not control this stream.",
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n", 400, r"request: .+"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400, r"request: .+"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", 400, r"request: .+"),
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, r"request: .+"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 10_000 + b"\r\n\r\n", 400, r"request: .+"),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: a\r\n" * 1000 + b"\r\n",
            400,
            r"request: .+",
        ),
        (b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "No WebSocket UPGRADE hdr: .+"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: me\r\n\r\n", 417, "Unknown Expect: me"),
    ],
    ids=["host", "host-ipv6", "host-bytes", "no-host", "origin", "tls", "length", "header", "long-line", "long-header",
         "many-headers", "no-upgrade", "expect"],
)  # fmt: skip
def test_a_wrong_request_head_gets_one_line(served, data, status, line):
    page, stream = served
    answer = exchange(page, data)
    body = answer[2]
    text = json.loads(body)["error"] if answer[1]["content-type"].startswith("application/json") else body
    assert answer[0] == status, body
    assert text.rstrip("\n") == line or re.fullmatch(line, text.rstrip("\n")), text
    assert len(text.splitlines()) == 1
    assert stream.control.state()["change_count"] == 0


@pytest.mark.parametrize(
    ("headers", "raw", "line"),
    [
        (JSON, b"[" * 100_000, "body: more than 4 levels of lists and objects"),
        (JSON, b'{"shift": ' + b"[" * 900 + b"]" * 900 + b"}", "body: more than 4 levels of lists and objects"),
        (JSON, b'{"shift": ' + b'{"a":' * 5 + b"1" + b"}" * 6, "body: more than 4 levels of lists and objects"),
        (JSON, b'{"shift": ' + b"9" * 400 + b"}", "shift: holds NaN or infinity; expected finite numbers"),
        (JSON, b'{"shift": -' + b"9" * 5000 + b"}", "shift: holds NaN or infinity; expected finite numbers"),
        (JSON, b'{"shift": 1e999}', "shift: holds NaN or infinity; expected finite numbers"),
        (
            JSON,
            b'{"shift": [[1, ' + b"9" * 400 + b"]]}",
            "shift: shape [1, 2]; expected a number, a map [13, 17] or maps [1, 13, 17] (one number per token)",
        ),
        (JSON, b'{"shift": 0.1, "ramp": ' + b"9" * 400 + b"}", "ramp: inf; expected seconds, 0 or more"),
        (
            JSON,
            b'{"shift": NaN}',
            "body: not valid JSON: NaN is not a number in JSON",
        ),
        (JSON, b'{"\\ud800": 1}', r"body: unknown key '\ud800'; expected scale, shift, ramp"),
        (JSON, b"\xff\xfe{}", "body: cannot be decoded: invalid start byte; expected JSON in UTF-8"),
        (
            {"Content-Type": "application/json; charset=undefined"},
            "{\"shift\": \"ä\"}".encode("latin-1"),
            "body: cannot be decoded: invalid continuation byte; expected JSON in UTF-8",
        ),
        (
            {**JSON, "Content-Encoding": "gzip"},
            b"\x1f\x8b",
            "body: content encoding 'gzip'; expected none",
        ),
        ({"Content-Type": "nonsense"}, b"{}", "body: content type application/octet-stream; expected application/json"),
    ],
    ids=["deep", "deep-900", "deep-objects", "digits-400", "digits-5000", "exponent", "digits-in-map", "ramp", "nan",
         "surrogate", "bytes", "charset", "gzip", "type"],
)  # fmt: skip
def test_a_wrong_body_gets_one_line_and_changes_nothing(served, headers, raw, line):
    page, stream = served
    status, answer = call(page, "/api/control", "POST", raw=raw, headers=headers)
    assert (status, answer["error"]) == (400, line)
    assert stream.control.state()["change_count"] == 0


@pytest.mark.parametrize("charset", ["no-such", "rot13", "idna", "undefined", "utf-16", "zlib"])
def test_a_body_is_utf_8_whatever_charset_is_named(served, charset):
    page, stream = served
    headers = {"Content-Type": f"application/json; charset={charset}"}
    assert call(page, "/api/control", "POST", {"shift": 0.25, "ramp": 0}, headers=headers)[0] == 200
    assert stream.control.values() == (1.0, 0.25)


@pytest.mark.parametrize("rectangle", [b"9" * 400, b"1e400", b"-" + b"9" * 400])
def test_a_rectangle_of_numbers_that_are_too_large_is_refused(served, rectangle):
    raw = b'{"rectangle": [0, 0, 5, ' + rectangle + b"]}"
    status, answer = call(served[0], "/api/region", "PUT", raw=raw)
    assert status == 400
    assert re.fullmatch(
        r"region rectangle: 0,0,5,-?inf; expected left, top, width and height within 130x100", answer["error"]
    )


def test_a_long_part_of_a_request_is_shortened_in_its_answer(served):
    status, answer = call(served[0], "/api/control", "POST", {"a" * 100_000: 1})
    assert status == 400
    assert len(answer["error"]) == refusal.MAX_LINE
    assert answer["error"].endswith("...")


def test_a_fault_of_a_handler_is_one_line_and_is_logged(served, monkeypatch, caplog):
    page, stream = served
    monkeypatch.setattr(stream.control, "state", lambda: 1 / 0)
    status, answer = call(page, "/api/state")
    assert status == 500
    assert answer["error"] == "internal error: ZeroDivisionError. The log of the stream has details."
    assert "page: GET /api/state failed" in caplog.text
    caplog.clear()


# The token


@pytest.mark.parametrize(
    "header",
    [b"Authorization: Bearer \xff\xfe", b"Authorization: \xff", b"Cookie: tcmoa-token-%d=\xff", b"Cookie: \xff=\xfe;;=",
     b"Cookie: tcmoa-token-%d=\"a\\377\"", b"Authorization: Bearer"],
)  # fmt: skip
def test_a_token_that_is_not_text_is_a_wrong_token(bundle, header):
    with running_page(bundle, token=TOKEN) as (page, _):
        header = header.replace(b"%d", str(page.port).encode())
        answer = exchange(page, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n")
    assert answer[0] == 401
    assert answer[2] == (
        "a token is required. Open the URL that `tcmoa stream` printed, or send the header `Authorization: Bearer "
        "TOKEN`.\n"
    )


def test_an_address_may_send_only_some_wrong_tokens(bundle):
    with running_page(bundle, token=TOKEN) as (page, _):
        page._server._access.wrong_tokens._clock = lambda: 1000.0
        for index in range(access.MAX_WRONG_TOKENS):
            assert request(page, "/metrics")[0] == 401  # without a token: not counted
            assert request(page, f"/metrics?token=wrong-{index}")[0] == 401
        for token in ("another-wrong-one", TOKEN):
            status, headers, body = request(page, "/metrics", headers={"Authorization": f"Bearer {token}"})
            assert status == 429
            assert headers["Retry-After"] == "60"
            assert body.decode() == "token: 20 wrong ones from your address. Try again in 60 s.\n"
        page._server._access.wrong_tokens._clock = lambda: 1000.0 + access.WRONG_TOKEN_SECONDS
        assert request(page, "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200


def test_wrong_tokens_are_counted_by_network_and_memory_is_bounded():
    now = [0.0]
    wrong = access.WrongTokens(clock=lambda: now[0])
    for index in range(5000):
        wrong.add(f"10.0.{index // 256}.{index % 256}")
    assert len(wrong._times) == access.MAX_NETWORKS
    for _ in range(access.MAX_WRONG_TOKENS):
        assert wrong.seconds_left("192.0.2.1") == 0
        wrong.add("192.0.2.1")
        now[0] += 1
    assert wrong.seconds_left("192.0.2.1") == 40
    now[0] += 41
    assert wrong.seconds_left("192.0.2.1") == 0


@pytest.mark.parametrize(
    ("peer", "network"),
    [(("192.0.2.1", 5), "192.0.2.1"), (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
     (("2001:db8:1:2:3::4", 5, 0, 0), "2001:db8:1:2::/64"), (("fe80::1%eth0", 5, 0, 2), "fe80::/64"), (None, ""),
     ("", "")],
)  # fmt: skip
def test_limits_count_by_network(peer, network):
    assert connections.client_network(peer) == network


def test_the_token_leaves_no_trace(bundle, caplog):
    caplog.set_level(logging.DEBUG)
    with running_page(bundle, token=TOKEN) as (page, _):
        _, headers, body = request(page, f"/?token={TOKEN}")
        assert TOKEN not in body.decode() + headers["Location"]
        for path in ("/", "/api/state", "/metrics", "/nothing", f"/api/frame.jpg?view={TOKEN}&token={TOKEN}"):
            _, headers, body = request(page, path, headers={"Authorization": f"Bearer {TOKEN}"})
            assert headers["Cache-Control"] == "no-store"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["X-Frame-Options"] == "DENY"
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert TOKEN not in body.decode(errors="replace").replace(f"view: '{TOKEN}'", "")
    assert TOKEN not in caplog.text


# Limits


def test_the_limit_of_an_address_leaves_places_for_others(served, monkeypatch):
    page, stream = served
    monkeypatch.setattr(connections, "HEADER_SECONDS", 120)  # for connections that are idle
    idle = connect(page, connections.MAX_CONNECTIONS_PER_ADDRESS)
    try:
        status, headers, body = exchange(page, b"")
        assert (status, headers["connection"]) == (503, "close")
        assert body == "connections: 32 are open from your address, which is the maximum.\n"
        with socket.socket() as other:
            other.bind(("127.0.0.2", 0))
            other.connect(("127.0.0.1", page.port))
            other.sendall(b"GET /api/state HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_answer(other)[0] == 200
    finally:
        for client in idle:
            client.close()
    frames = stream.stats.snapshot()["frames"]
    wait_for_frames(page, stream, frames + 3)
    assert call(page, "/api/state")[0] == 200


def test_connections_take_a_part_of_the_descriptors(monkeypatch):
    limits = {"soft": 1024}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits["soft"], 4096))
    assert connections.max_connections() == 128
    limits["soft"] = 256
    assert connections.max_connections() == 64
    limits["soft"] = resource.RLIM_INFINITY
    assert connections.max_connections() == 128
    counter = connections.ConnectionCounter(2, 2)
    assert counter.add("a") is None
    assert counter.add("b") is None
    assert counter.add("c") == "connections: 2 are open, which is the maximum."
    counter.remove("a")
    assert counter.add("c") is None


def test_the_stream_and_the_page_survive_the_end_of_descriptors(served, caplog):
    page, stream = served
    clients = [socket.socket() for _ in range(4)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = socket.socket()
    free = probe.fileno()
    probe.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        for client in clients:
            client.settimeout(60)
            client.connect(("127.0.0.1", page.port))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        frames = stream.stats.snapshot()["frames"]
        wait_for_frames(page, stream, frames + 5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for client in clients:
        assert read_answer(client)[0] == 200
        client.close()
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["page: cannot accept connections: Too many open files"]


def test_headers_and_bodies_have_a_time_limit(served, monkeypatch):
    page, _ = served
    # All of them pass at once; the test must send its requests meanwhile.
    monkeypatch.setattr(connections, "HEADER_SECONDS", 2)
    monkeypatch.setattr(connections, "IDLE_SECONDS", 2)
    monkeypatch.setattr(json_body, "BODY_SECONDS", 0.2)
    half = b"GET / HTTP/1.1\r\nHost: loc"
    idle, slow, second, body = connect(page, 4)
    slow.sendall(half)
    second.sendall(b"GET /api/state HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert read_answer(second)[0] == 200
    second.sendall(half)
    body.sendall(
        b"POST /api/control HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    line = "request: its headers were not complete in time.\n"
    for client in (slow, second):
        status, headers, text = read_answer(client)
        assert (status, headers["connection"], text) == (408, "close", line)
    status, _, text = read_answer(body)
    assert (status, text) == (408, '{"error": "body: not complete within 0.2 seconds."}')
    assert is_closed(idle)
    for client in (idle, slow, second, body):
        client.close()


def test_a_client_that_does_not_read_is_disconnected(bundle, monkeypatch):
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.3)
    noise = np.random.default_rng(0).integers(0, 255, (100, 130, 3), np.uint8)
    with running_page(bundle, x=LiveSource(50, images=lambda _: noise)) as (page, stream):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", page.port))
        client.sendall(b"GET /api/snapshot.png HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
        wait_until(lambda: not page._server.connections.total)
        client.close()
        wait_for_frames(page, stream, stream.stats.snapshot()["frames"] + 3)


def test_a_browser_that_does_not_answer_is_disconnected(served, monkeypatch):
    monkeypatch.setattr(browser, "ACKNOWLEDGE_SECONDS", 0.2)

    async def visit():
        async with aiohttp.ClientSession() as session:
            socket_ = await session.ws_connect(f"http://127.0.0.1:{served[0].port}/live")
            while (message := await socket_.receive(timeout=60)).type is aiohttp.WSMsgType.BINARY:
                pass
            return message.type

    assert asyncio.run(visit()) in (
        aiohttp.WSMsgType.CLOSED,
        aiohttp.WSMsgType.ERROR,
        aiohttp.WSMsgType.CLOSE,
    )


# Values that are composed


def test_a_region_and_a_prompt_that_are_accepted_never_end_the_stream(served):
    """Both values round to 16 in float32, and their sum to 16.000002, which the model refuses."""
    page, stream = served
    assert call(page, "/api/control", "POST", {"shift": -13.73, "ramp": 0})[0] == 200
    answer = call(page, "/api/region", "PUT", {"rectangle": [0, 0, 130, 100], "shift": 16.0000009, "ramp": 0})
    assert answer[0] == 200
    assert stream.control.values()[1].max() == 16
    wait_for_frames(page, stream, stream.stats.snapshot()["frames"] + 5)
    assert stream.error is None


# Secrets


def test_addresses_are_shown_without_secrets(bundle):
    secret = "srt://cam:9000?passphrase=pa55word1234&mode=caller"
    with running_page(
        bundle,
        x=LiveSource(50, name="rtsp://me:pa/55word@cam/live?token=pa55word"),
        y=LiveSource(50, name=secret),
    ) as (page, _):
        for path in ("/api/state", "/api/stats", "/metrics", "/"):
            assert "55word" not in request(page, path)[2].decode()
        stream = call(page, "/api/state")[1]["stream"]
    assert stream["x"] == "rtsp://***@cam/live?token=***"
    assert stream["y"] == "srt://cam:9000?passphrase=***&mode=caller"
