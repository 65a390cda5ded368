"""A running service with a fuser that can be held, and small HTTP clients."""

import contextlib
import http.client
import json
import socket
import threading

import numpy as np
import pytest

from stream_pieces import CopyingBackend
from tcmoa_runtime import Fuser

pytest.importorskip("uvicorn", reason="uvicorn is not installed; `pip install 'tcmoa[serve]'` runs this")

from tcmoa_runtime.serving.application import make_application
from tcmoa_runtime.serving.local import service_access
from tcmoa_runtime.serving.server import ServiceServer
from tcmoa_runtime.web.address import Address

SECONDS = 60.0
"""Time for what a test waits for: long, as a busy machine takes its time and a test that passes does not."""


class HeldBackend(CopyingBackend):
    """A backend that returns x when its test releases it."""

    def __init__(self, bundle):
        super().__init__(bundle)
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.runs = 0

    def infer(self, inputs):
        self.runs += 1
        self.begun.release()
        assert self.go.acquire(timeout=SECONDS)
        return super().infer(inputs)


class HttpService:
    """A service at a port of this machine."""

    def __init__(self, port):
        self.port = port

    def request(self, method, path, body=None, headers=None, host="127.0.0.1"):
        """Send a request; return (status, headers, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Host": f"{host}:{self.port}", **(headers or {})})
            response = connection.getresponse()
            return response.status, response.headers, response.read()

    def call(self, method, path, body=None, headers=None, host="127.0.0.1"):
        """Send a request; return (status, JSON of the response)."""
        status, received, text = self.request(method, path, body, headers, host)
        assert received.get_content_type() == "application/json", text
        return status, json.loads(text)

    def fuse(self, model, x, y, parameters=None):
        """Send two uint8 arrays; return the fused one."""
        parameters = {"binary_data_output": True, **(parameters or {})}
        status, answer, data = self.infer(x, y, model=model, parameters=parameters)
        assert status == 200, answer
        return np.frombuffer(data, np.uint8).reshape(answer["outputs"][0]["shape"])

    def infer(self, x, y=None, *, model, headers=None, **fields):
        """Send two uint8 arrays as binary data; return (status, JSON of the response, its binary data)."""
        body, length = infer_body({"x": x, "y": x if y is None else y}, **fields)
        status, received, data = self.request(
            "POST",
            f"/v2/models/{model}/infer",
            body,
            {"Inference-Header-Content-Length": str(length), **(headers or {})},
        )
        size = int(received.get("Inference-Header-Content-Length", len(data)))
        return status, json.loads(data[:size]), data[size:]


class RunningService(HttpService):
    """A service in a thread of this process."""

    def __init__(self, server, app, port, fusers):
        super().__init__(port)
        self.server, self.service, self.fusers = server, app.state.service, fusers
        self.has_ended = None

    def infer(self, x, y=None, *, model=None, headers=None, **fields):
        """Send two uint8 arrays to a model, the first one by default."""
        return super().infer(x, y, model=model or next(iter(self.fusers)), headers=headers, **fields)


def infer_body(arrays, **fields):
    """Return the body of a request with binary data, and the length of its JSON."""
    inputs = [
        {
            "name": name,
            "shape": array.shape,
            "datatype": "UINT8",
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]
    fields.setdefault("parameters", {"binary_data_output": True})
    head = json.dumps({"inputs": inputs, **fields}).encode()
    return head + b"".join(array.tobytes() for array in arrays.values()), len(head)


@contextlib.contextmanager
def running_service(fusers, options=None, *, token=None, address="127.0.0.1", grace=10, **arguments):
    """Serve fusers by name."""
    where = Address(address, 0)
    listener = where.bind(subject="service")
    port = listener.getsockname()[1]
    app = make_application(fusers, options, access=service_access(where, token, port), **arguments)
    server = ServiceServer(app, listener)
    started = threading.Event()
    running = RunningService(server, app, port, fusers)

    def run():
        running.has_ended = server.run(grace, started.set)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(SECONDS)
    try:
        yield running
    finally:
        if not server._stopping.is_set():  # a second stop cuts requests off
            server.stop()
        thread.join(SECONDS)
    assert not thread.is_alive()


def held_fuser(bundle):
    """A fuser of a real bundle, and its backend, which returns x when its test releases it."""
    backend = HeldBackend(bundle)
    return Fuser(bundle, backend), backend


def form_body(fields):
    """Return a multipart body and its content type; a value of bytes is a file."""
    lines = []
    for name, value in fields:
        is_file = isinstance(value, bytes)
        extra = f'; filename="{name}.png"\r\nContent-Type: application/octet-stream' if is_file else ""
        lines.append(f'--edge\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode())
        lines.append((value if is_file else value.encode()) + b"\r\n")
    return b"".join([*lines, b"--edge--\r\n"]), {"Content-Type": "multipart/form-data; boundary=edge"}


def noise(height, width, seed=0, channels=3, dtype=np.uint8):
    """Random pixels [H, W, C]."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype)


def exchange(port, data):
    """Send bytes over a new connection; return all that is received until it is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as client:
        client.sendall(data)
        received = b""
        while (chunk := client.recv(65536)) != b"":
            received += chunk
        return received
