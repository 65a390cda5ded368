"""The service over HTTP: image files, access, limits, overload, counts and a stop while requests run."""

import asyncio
import contextlib
import json
import logging
import re
import socket
import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from prometheus_text import read_metrics
from service_pieces import SECONDS, exchange, form_body, held_fuser, infer_body, noise, running_service
from stream_pieces import copying_fuser
from tcmoa_runtime import Bundle
from tcmoa_runtime.options.serve import ServeOptions

pytest.importorskip("uvicorn", reason="uvicorn is not installed; `pip install 'tcmoa[serve]'` runs this")

import httpx
from starlette.applications import Starlette
from starlette.routing import Mount

from tcmoa_runtime.serving import body as body_module
from tcmoa_runtime.serving import gate, server
from tcmoa_runtime.serving.application import make_application
from tcmoa_runtime.serving.connection import MAX_HEAD_BYTES
from tcmoa_runtime.web import access, connections

TOKEN = "secret-of-this-test"
HEIGHT, WIDTH = 100, 130


@pytest.fixture(scope="module")
def opened(exported):
    return Bundle.open(exported("vif"))


@pytest.fixture(scope="module")
def service(opened, exported):
    fusers = {
        "copy": copying_fuser(opened),
        "bgr": copying_fuser(Bundle.open(exported("bgr"))),
    }
    with running_service(fusers, ServeOptions(max_body_mib=1)) as running:
        yield running


@pytest.fixture(autouse=True)
def no_fault_is_logged(caplog):
    yield
    records = caplog.get_records("call")
    assert [record.getMessage() for record in records if record.levelno >= logging.ERROR] == []


@pytest.fixture(autouse=True)
def long_lingering(monkeypatch):
    """Wait for the rest of a body that is too large, however long a busy machine takes to send it."""
    monkeypatch.setattr(gate, "LINGERING_SECONDS", SECONDS)


@pytest.fixture(scope="module")
def frame():
    return noise(HEIGHT, WIDTH)


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def rgb(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def fuse(service, fields, headers=None):
    """Post a form; return (status, headers, body)."""
    body, form_headers = form_body(fields)
    return service.request("POST", "/v1/fuse", body, {**form_headers, **(headers or {})})


# Image files


@pytest.mark.parametrize("bundle_name", ["copy", "bgr"])
def test_two_image_files_become_one(service, frame, bundle_name):
    status, headers, data = fuse(service, [("x", png(frame)), ("y", png(frame)), ("bundle", bundle_name)])
    assert (status, headers["Content-Type"]) == (200, "image/png")
    np.testing.assert_array_equal(rgb(data), frame)


@pytest.mark.parametrize(
    ("fields", "accept", "media_type", "start"),
    [
        ([], "image/jpeg", "image/jpeg", b"\xff\xd8"),
        ([], "text/html, image/webp;q=0.9, image/png;q=0.1", "image/webp", b"RIFF"),
        ([], "text/html, */*;q=0.5", "image/png", b"\x89PNG"),
        ([], "image/png;q=0, image/*", "image/jpeg", b"\xff\xd8"),
        ([("format", "tiff")], "image/jpeg", "image/tiff", b"II*\0"),
        ([("format", "JPG")], "*/*", "image/jpeg", b"\xff\xd8"),
        ([("format", "bmp")], "*/*", "image/bmp", b"BM"),
    ],
)
def test_a_field_or_the_accept_header_chooses_the_format(service, frame, fields, accept, media_type, start):
    files = [("x", png(frame)), ("y", png(frame))]
    status, headers, data = fuse(service, [*files, *fields], {"Accept": accept})
    assert (status, headers["Content-Type"], data[: len(start)]) == (200, media_type, start)


def test_fields_set_the_prompt(opened, frame):
    fuser = copying_fuser(opened)
    with running_service({"copy": fuser}) as running:
        fields = [("x", png(frame)), ("y", png(frame)), ("scale", "1.5"), ("shift", "-0.25")]
        assert fuse(running, fields)[0] == 200
    (call,) = fuser.backend.calls
    assert {name: float(array.mean()) for name, array in call.items()} == {
        "prompt_scale": 1.5,
        "prompt_shift": -0.25,
    }


X, Y = ("x", b"x"), ("y", b"y")
WRONG_FORMS = {
    "missing": ([X], {}, 400, "y: missing; expected one image file, e.g. -F y=@y.png with curl"),
    "text": ([X, ("y", "y")], {}, 400, "y: text; expected one image file, e.g. -F y=@y.png with curl"),
    "twice": ([X, X], {}, 400, "x: given twice; expected one image file, e.g. -F x=@x.png with curl"),
    "three": ([X, X, X], {}, 400, "body: not a form: Too many files. Maximum number of files is 2; expected "
              "multipart/form-data with the files x and y"),
    "field": ([X, Y, ("shfit", "1")], {}, 400, "shfit: no such field; expected x, y, bundle, scale, shift, format"),
    "number": ([X, Y, ("shift", "much")], {}, 400, "shift: 'much'; expected a number"),
    "format": ([X, Y, ("format", "gif")], {}, 400,
               "format: 'gif'; expected one of png, jpeg, jpg, webp, tiff, tif, bmp"),
    "format twice": ([X, Y, ("format", "png"), ("format", "png")], {}, 400,
                     "format: a file, or given twice; expected one field of text"),
    "accept": ([X, Y], {"Accept": "text/html"}, 406,
               "Accept: 'text/html'; expected one of image/png, image/jpeg, image/webp, image/tiff, image/bmp."),
    "bundle": ([X, Y, ("bundle", "other")], {}, 404, "other: no such bundle; expected copy, bgr."),
    "image": ([X, Y], {}, 400, "x: not a readable image; expected PNG, JPEG, TIFF, BMP or WebP"),
    "json": ([X, Y], {"Content-Type": "application/json"}, 415,
             "body: content type 'application/json'; expected multipart/form-data with the files x and y."),
    "no boundary": ([X, Y], {"Content-Type": "multipart/form-data"}, 400,
                    "body: not a form: Missing boundary in multipart; expected multipart/form-data with the files x "
                    "and y"),
    "gzip": ([X, Y], {"Content-Encoding": "gzip"}, 415, "body: content encoding 'gzip'; expected none."),
    "large": ([X, ("y", b"y" * (1 << 20))], {}, 413,
              "body: 1048811 bytes; expected at most 1048576 bytes. Send smaller images or image files."),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_FORMS)
def test_a_wrong_form_gets_one_line(service, case):
    fields, headers, status, line = WRONG_FORMS[case]
    answer = fuse(service, fields, headers)
    assert (answer[0], json.loads(answer[2])) == (status, {"error": line})


def test_a_field_in_the_query_is_refused(service):
    line = "shift: in the query; expected fields of the form: x, y, bundle, scale, shift, format"
    assert service.call("POST", "/v1/fuse?shift=0.2") == (400, {"error": line})


def test_a_body_without_length_is_limited_while_it_is_read(service):
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    head = (
        b"POST /v2/models/copy/infer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n"
    )
    answer = exchange(service.port, head + 17 * chunk + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
        "error": "body: longer than that; expected at most 1048576 bytes. Send smaller images or image files."
    }


def test_a_body_that_is_too_large_is_not_read(service, monkeypatch):
    """The client that asks before it sends is refused before it sends."""
    monkeypatch.setattr(gate, "LINGERING_SECONDS", 0.1)
    head = b"POST /v1/fuse HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\nExpect: 100-continue\r\n\r\n"
    answer = exchange(service.port, head)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer


def test_nothing_is_waited_for_after_the_end_of_a_body_that_is_too_large(opened):
    app = make_application({"copy": copying_fuser(opened)}, ServeOptions(max_body_mib=1))
    head = {"type": "http", "method": "POST", "path": "/v1/fuse", "query_string": b"", "headers": []}
    bodies, sent = [{"type": "http.request", "body": bytes(2 << 20), "more_body": False}], []

    async def receive():
        return bodies.pop()  # IndexError after the last one: a real server never sends another

    async def send(message):
        sent.append(message)

    asyncio.run(app(head, receive, send))
    assert sent[0]["status"] == 413
    assert [message.get("more_body", False) for message in sent[1:]] == [True, False]
    app.state.service.queue.shutdown()


# Routes and the page

NO_ROUTE = (
    "path: no such route; expected one of /, /v1/fuse, /v2/health/live, /v2/health/ready, /v2, "
    "/v2/repository/index, /v2/models/{name}, /v2/models/{name}/ready, /v2/models/{name}/infer, /metrics"
)


@pytest.mark.parametrize(
    ("method", "path", "status", "line"),
    [
        ("GET", "/nothing", 404, NO_ROUTE),
        ("GET", "/v2/", 404, NO_ROUTE),
        ("GET", "/v2/models/x/infer", 405, "method: not one of this route; expected POST."),
        ("DELETE", "/v1/fuse", 405, "method: not one of this route; expected POST."),
        ("GET", "/v2/models/..%2Fcopy", 404, NO_ROUTE),
        ("GET", "/v2/models/" + "a" * 500, 404, "a" * 397 + "..."),
    ],
)
def test_a_wrong_path_or_method_gets_one_line(service, method, path, status, line):
    assert service.call(method, path) == (status, {"error": line})


def test_the_page_names_the_bundles_and_loads_nothing_else(service):
    status, headers, text = service.request("GET", "/")
    assert (status, headers.get_content_type()) == (200, "text/html")
    for name in (b"copy", b"bgr"):
        assert b'<option data-x="visible" data-y="infrared">' + name + b"</option>" in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "'unsafe-inline'" not in headers["Content-Security-Policy"]
    assert b"://" not in text


def test_metrics_count_requests_and_pairs(opened, frame):
    with running_service({"copy": copying_fuser(opened)}) as running:
        batch = np.stack([frame] * 3)
        assert running.infer(frame)[0] == 200
        assert running.infer(batch)[0] == 200
        assert running.infer(frame, parameters={"prompt_shift": 99})[0] == 400
        assert running.request("GET", "/odd")[0] == 404
        status, headers, text = running.request("GET", "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    metrics = read_metrics(text.decode())
    route = ("route", "/v2/models/{name}/infer")
    assert metrics["tcmoa_serve_requests_total"] == (
        "counter",
        {
            (("method", "POST"), route, ("status", "200")): 2,
            (("method", "POST"), route, ("status", "400")): 1,
            (("method", "other"), ("route", "other"), ("status", "404")): 1,
        },
    )
    assert metrics["tcmoa_serve_pairs_total"][1] == {(("model", "copy"),): 4}
    assert metrics["tcmoa_serve_request_seconds_count"][1][(route,)] == 3
    assert metrics["tcmoa_serve_request_seconds_sum"][1][(route,)] > 0
    assert metrics["tcmoa_serve_fuse_seconds_bucket"][1][(("le", "+Inf"), ("model", "copy"))] == 2
    gauges = ("ready", "queue_length", "running", "requests_in_flight")
    assert [metrics[f"tcmoa_serve_{name}"][1][()] for name in gauges] == [1, 0, 0, 1]


def test_each_request_is_a_line_of_the_log_without_its_token(opened, caplog):
    caplog.set_level(logging.INFO, "tcmoa.service")
    with running_service({"copy": copying_fuser(opened)}, token=TOKEN) as running:
        running.request("GET", f"/metrics?token={TOKEN}")
    (record,) = (record for record in caplog.records if record.name == "tcmoa.service")
    assert re.fullmatch(r"service: 127\.0\.0\.1 GET /metrics 200 \d+\.\d ms", record.getMessage())
    assert (record.event, record.method, record.path, record.status) == ("request", "GET", "/metrics", 200)
    assert TOKEN not in caplog.text


def test_the_application_can_be_mounted_in_another(opened, frame):
    app = Starlette(routes=[Mount("/fusion", app=make_application({"copy": copying_fuser(opened)}))])
    body, headers = form_body([("x", png(frame)), ("y", png(frame))])

    async def visit():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://any.example") as client:
            response = await client.post("/fusion/v1/fuse", content=body, headers=headers)
            np.testing.assert_array_equal(rgb(response.content), frame)
            assert (await client.get("/fusion/v2/health/ready")).json() == {"ready": True}
            assert (await client.get("/fusion/v2/models/copy")).json()["name"] == "copy"
            assert (await client.get("/fusion/")).text.startswith("<!doctype html>")
            assert (await client.get("/fusion/nothing")).status_code == 404

    asyncio.run(visit())
    app.routes[0].app.state.service.queue.shutdown()


# Access


@pytest.mark.parametrize(
    ("headers", "host", "status", "line"),
    [
        ({}, "example.com", 403, "host: 'example.com'; expected localhost, because this service is for this machine "
         "only. Serve it on another address, which requires a token."),
        ({"Origin": "http://example.com"}, "127.0.0.1", 403,
         "origin: 'http://example.com'; other sites may not use this service."),
    ],
)  # fmt: skip
def test_other_hosts_and_sites_are_refused(service, headers, host, status, line):
    assert service.call("POST", "/v1/fuse", b"", headers, host) == (status, {"error": line})


def test_off_loopback_a_token_is_required_and_generated(opened, frame):
    with running_service({"copy": copying_fuser(opened)}, address="0.0.0.0") as running:
        token = running.service._access.token
        assert len(token) >= 20
        line = (
            "a token is required. Open the URL that `tcmoa serve` printed, or send the header `Authorization: Bearer "
            "TOKEN`."
        )
        for path in ("/", "/v2", "/v2/models/copy", "/metrics", "/nothing"):
            assert running.call("GET", path, host="service.example") == (401, {"error": line})
        assert running.infer(frame)[0] == 401
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert running.call("GET", path, host="service.example")[0] == 200
        assert running.infer(frame, headers={"Authorization": f"Bearer {token}"})[0] == 200
        status, headers, _ = running.request("GET", f"/?token={token}")
        assert (status, headers["Location"]) == (303, "/")
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert running.request("GET", "/metrics", headers={"Cookie": cookie.partition(";")[0]})[0] == 200


def test_an_address_may_send_only_some_wrong_tokens(opened):
    with running_service({"copy": copying_fuser(opened)}, token=TOKEN) as running:
        running.service._access.wrong_tokens._clock = lambda: 1000.0
        for index in range(access.MAX_WRONG_TOKENS):
            assert running.request("GET", f"/metrics?token=wrong-{index}")[0] == 401
        status, headers, _ = running.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert (status, headers["Retry-After"]) == (429, "60")
        assert running.request("GET", "/v2/health/ready")[0] == 200


# Overload


class Call(threading.Thread):
    """A request for inference in a thread."""

    def __init__(self, service, frame, **fields):
        super().__init__()
        self._call, self.answer = lambda: service.infer(frame, **fields), None
        self.start()

    def run(self):
        self.answer = self._call()


def wait_for(condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_does_not_fit_into_the_queue_is_refused_at_once(opened, frame):
    fuser, backend = held_fuser(opened)
    with running_service({"held": fuser}, ServeOptions(max_queue=2)) as running:
        calls = [Call(running, frame) for _ in range(3)]
        queue = running.service.queue
        wait_for(lambda: (queue.num_running, queue.num_waiting) == (1, 2))
        body, length = infer_body({"x": frame, "y": frame})
        status, headers, text = running.request(
            "POST", "/v2/models/held/infer", body, {"Inference-Header-Content-Length": str(length)}
        )
        assert (status, headers["Retry-After"]) == (503, "1")
        line = "queue: 2 requests wait, which is the maximum. Try again in 1 s."
        assert json.loads(text) == {"error": line}
        assert running.request("GET", "/v2/health/ready")[0] == 200  # full is not broken
        metrics = read_metrics(running.request("GET", "/metrics")[2].decode())
        assert metrics["tcmoa_serve_queue_length"][1][()] == 2
        for _ in calls:
            backend.go.release()
        for call in calls:
            call.join(SECONDS)
        assert [call.answer[0] for call in calls] == [200, 200, 200]
        backend.go.release()
        assert running.infer(frame, parameters={"timeout": 1})[0] == 200  # it does not have to wait
        assert (queue.num_running, queue.num_waiting) == (0, 0)


def test_work_that_is_late_or_whose_client_is_gone_is_not_begun(opened, frame):
    fuser, backend = held_fuser(opened)
    options = ServeOptions(max_queue=4)
    with running_service({"held": fuser}, options) as running:
        queue = running.service.queue
        first = Call(running, frame)
        assert backend.begun.acquire(timeout=SECONDS)
        body, length = infer_body({"x": frame, "y": frame})
        with socket.create_connection(("127.0.0.1", running.port)) as leaver:
            leaver.sendall(
                b"POST /v2/models/held/infer HTTP/1.1\r\nHost: localhost\r\n"
                b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
                % (length, len(body))
                + body
            )
            wait_for(lambda: queue.num_waiting == 1)
        wait_for(lambda: queue.num_waiting == 0)
        running.service._options = replace(options, max_wait=0.2)
        late = running.infer(frame)
        hurried = running.infer(frame, parameters={"timeout": 1000})
        backend.go.release()
        first.join(SECONDS)
        assert first.answer[0] == 200
        lines = [
            f"queue: the request has waited for {wait} s, its maximum, and was not begun. Try again, or allow it more "
            "time."
            for wait in ("0.2", "0.001")
        ]
        assert [late[:2], hurried[:2]] == [(504, {"error": line}) for line in lines]
        assert backend.runs == 1
        metrics = read_metrics(running.request("GET", "/metrics")[2].decode())
    counts = {dict(labels)["status"]: n for labels, n in metrics["tcmoa_serve_requests_total"][1].items()}
    assert counts == {"200": 1, "499": 1, "504": 2}


def test_several_pairs_are_fused_at_once(opened, frame):
    fuser, backend = held_fuser(opened)
    with running_service({"held": fuser}, ServeOptions(concurrency=2, max_queue=0)) as running:
        calls = [Call(running, frame) for _ in range(2)]
        for _ in calls:
            assert backend.begun.acquire(timeout=SECONDS)
        assert running.infer(frame)[0] == 503
        for _ in calls:
            backend.go.release()
        for call in calls:
            call.join(SECONDS)
    assert [call.answer[0] for call in calls] == [200, 200]


def test_an_error_of_a_backend_is_one_line_and_the_next_request_works(opened, frame, caplog):
    fuser = copying_fuser(opened)
    fuser.backend.fails_at = 0
    with running_service({"copy": fuser}) as running:
        assert running.infer(frame)[:2] == (
            500,
            {"error": "internal error: RuntimeError. The log of the service has details."},
        )
        fuser.backend.fails_at = None
        assert running.infer(frame)[0] == 200
    assert [record.getMessage() for record in caplog.records] == [
        "service: POST /v2/models/copy/infer failed"
    ]
    caplog.clear()


# The end


def test_a_stop_ends_requests_in_flight_and_takes_no_more(opened, frame):
    fuser, backend = held_fuser(opened)
    with running_service({"held": fuser}) as running:
        calls = [Call(running, frame) for _ in range(3)]
        queue = running.service.queue
        wait_for(lambda: (queue.num_running, queue.num_waiting) == (1, 2))
        running.server.stop()
        wait_for(lambda: running.request("GET", "/v2/health/ready")[0] == 503)
        assert running.call("GET", "/v2/health/live")[0] == 200
        status, text, _ = running.infer(frame)
        assert (status, text) == (
            503,
            {
                "error": "service: is stopping, and takes no more requests. Send the request to another replica, or "
                "later."
            },
        )
        for _ in calls:
            backend.go.release()
        for call in calls:
            call.join(SECONDS)
    assert [call.answer[0] for call in calls] == [200, 200, 200]
    assert running.has_ended is True


def test_requests_that_do_not_end_are_cut_off(opened, frame, caplog):
    fuser, backend = held_fuser(opened)
    with running_service({"held": fuser}, grace=0.2) as running:
        calls = [Call(running, frame) for _ in range(2)]
        wait_for(lambda: running.service.queue.num_waiting == 1 and backend.runs == 1)
        running.server.stop()
        wait_for(lambda: running.has_ended is not None)
        for _ in calls:
            backend.go.release()
            backend.go.release()
    assert running.has_ended is False
    assert "service: requests had not ended after 0.2 s, and were cut off" in caplog.text
    line = "service: has stopped before the request had ended. Send it to another replica, or later."
    for call in calls:
        call.join(SECONDS)
        assert call.answer[:2] == (503, {"error": line})


def slow_reader(running, image):
    """Send a request whose response does not fit into the buffers of its connection; return the connection."""
    body, length = infer_body({"x": image, "y": image})
    client = socket.socket()
    client.settimeout(SECONDS)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", running.port))
    wait_for(lambda: running.server.connections.total == 1)
    client.sendall(
        b"POST /v2/models/copy/infer HTTP/1.1\r\nHost: localhost\r\nInference-Header-Content-Length: %d\r\n"
        b"Content-Length: %d\r\n\r\n" % (length, len(body)) + body
    )
    return client


@pytest.mark.parametrize("is_read", [True, False])
def test_a_stop_waits_until_responses_are_sent(opened, monkeypatch, is_read):
    large, received = noise(1000, 1300), b""
    fuser = copying_fuser(opened, fit="resize")
    with running_service({"copy": fuser}, grace=SECONDS if is_read else 0.5) as running:
        monkeypatch.setattr(server, "CLOSE_SECONDS", 0.1)
        client = slow_reader(running, large)
        wait_for(lambda: running.service.metrics._pairs["copy"] == 1)
        wait_for(lambda: running.service.queue.num_running + running.service.queue.num_waiting == 0)
        running.server.stop()
        if is_read:
            wait_for(lambda: running.request("GET", "/v2/health/ready")[0] == 503)
            time.sleep(0.3)
            assert running.request("GET", "/v2/health/live")[0] == 200
            while chunk := client.recv(1 << 16):
                received += chunk
        wait_for(lambda: running.has_ended is not None)
        client.close()
    assert running.has_ended is is_read
    head, _, rest = received.partition(b"\r\n\r\n")
    assert not is_read or f"content-length: {len(rest)}\r\n".encode() in head + b"\r\n"


# Connections


def test_the_limit_of_an_address_leaves_places_for_others(service):
    wait_for(lambda: service.server.connections.total == 0)  # those of other tests
    idle = [
        socket.create_connection(("127.0.0.1", service.port))
        for _ in range(connections.MAX_CONNECTIONS_PER_ADDRESS)
    ]
    try:
        wait_for(lambda: service.server.connections.total == len(idle))
        answer = exchange(service.port, b"")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"connections: 32 are open from your address, which is the maximum.\n")
    finally:
        for client in idle:
            client.close()
    wait_for(lambda: service.server.connections.total == 0)
    assert service.request("GET", "/v2")[0] == 200


def test_headers_and_bodies_have_a_time_limit(service, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(connections, "HEADER_SECONDS", 0.2)
        assert exchange(service.port, b"") == b""
        for _ in range(20):  # a busy machine may take longer even to send the first byte
            with contextlib.suppress(ConnectionError):
                answer = exchange(service.port, b"GET / HTTP/1.1\r\nHost: loc")
                if answer:
                    break
    line = b"request: its headers were not complete in time.\n"
    assert (answer.startswith(b"HTTP/1.1 408 "), answer.endswith(line)) == (True, True)
    monkeypatch.setattr(body_module, "BODY_SECONDS", 0.2)
    head = b"POST /v1/fuse HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{"
    answer = exchange(service.port, head)
    assert answer.startswith(b"HTTP/1.1 408 ")
    line = (
        "body: has not arrived in time; expected it within 0.2 s, or 65536 bytes more for each second more."
    )
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": line}


def test_a_connection_is_used_for_several_requests(service, monkeypatch):
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.3)
    request = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = exchange(service.port, 3 * request)
    assert answer.count(b'{"live":true}') == 3


def test_a_request_that_was_sent_before_the_last_response_may_take_longer_than_a_client_may_be_idle(
    opened, frame, monkeypatch
):
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.05)
    fuser, backend = held_fuser(opened)
    body, length = infer_body({"x": frame, "y": frame})
    with running_service({"held": fuser}) as running:
        answers = []
        data = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" + (
            b"POST /v2/models/held/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (length, len(body)) + body
        )
        client = threading.Thread(target=lambda: answers.append(exchange(running.port, data)))
        client.start()
        assert backend.begun.acquire(timeout=SECONDS)
        time.sleep(0.2)
        backend.go.release()
        client.join(SECONDS)
    assert answers[0].endswith(frame.tobytes())


@pytest.mark.parametrize(
    ("data", "status", "line"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n", 400, b"request: Invalid HTTP request received."),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400,
         b"request: Invalid HTTP request received."),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", 431,
         b"request: its headers are longer than 32768 bytes."),
        (b"GET /" + b"a" * MAX_HEAD_BYTES, 431, b"request: its headers are longer than 32768 bytes."),
        (b"GET / HTTP/1.1\r\nHost: [\r\nConnection: close\r\n\r\n", 400,
         b'{"error":"host: \'[\'; expected a name or an address."}'),
    ],
    ids=["tls", "length", "headers", "path", "host"],
)  # fmt: skip
def test_a_wrong_request_head_gets_one_line(service, data, status, line):
    answer = exchange(service.port, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.rstrip(b"\n").endswith(line)


def test_a_client_that_does_not_read_is_disconnected(opened, monkeypatch):
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.3)
    large = noise(1000, 1300)
    with running_service({"copy": copying_fuser(opened, fit="resize")}) as running:
        client = slow_reader(running, large)
        wait_for(lambda: running.server.connections.total == 0)
        client.close()
