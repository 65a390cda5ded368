"""What a call of a service costs beside a call of the fuser: `docs/growing.md`. Prints Markdown.

    python benchmarks/call_overhead.py [--calls 300] [--triton HOST:PORT]

Everything is `nano-vif` at 640x480 on one thread, and calls are made in turn, in one run: the fuser in this process,
`tcmoa serve` in another by Python's `http.client` and by Triton's client, and Triton where `--triton` names a server
that has loaded the repository of `tcmoa repository nano-vif`. "over the fuser" is the median of the differences of a
round.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Final

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from tcmoa_runtime import Fuser
from tcmoa_runtime.contract import FUSED, X, Y
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.images import read_frame, resize_frame
from tcmoa_runtime.serving.protocol import HEADER_LENGTH
from tcmoa_runtime.shipped_pairs import shipped_pairs
from tcmoa_runtime.typing import Frame

BUNDLE: Final = "nano-vif"
SIZE: Final = (480, 640)
WARM_UP: Final = 5
_TCMOA: Final = "import sys; from tcmoa_runtime.cli import run; sys.exit(run(sys.argv[1:]))"
_START_SECONDS: Final = 60.0


@contextmanager
def served(backend: str) -> Iterator[str]:
    """Run `tcmoa serve` in another process; yields HOST:PORT."""
    command = [sys.executable, "-P", "-c", _TCMOA, "serve", BUNDLE, "--port", "0"]
    command += ["--threads", "1", "--backend", backend]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stderr.readline() if process.stderr is not None else ""
            yield line.split("http://")[1].split("/")[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_START_SECONDS)


def caller(address: str, x: Frame, y: Frame, *, batched: bool) -> Callable[[], Frame]:
    """Return a call of `infer` with binary tensors: a new tensor for each frame, as a client with a camera makes."""
    client = InferenceServerClient(address)

    def call() -> Frame:
        inputs = []
        for name, frame in ((X, x), (Y, y)):
            array = frame[None] if batched else frame
            inputs.append(InferInput(name, list(array.shape), "UINT8"))
            inputs[-1].set_data_from_numpy(array)
        result = client.infer(BUNDLE, inputs, outputs=[InferRequestedOutput(FUSED)])
        return np.asarray(result.as_numpy(FUSED)).reshape(*SIZE, 3)

    return call


def plain_caller(address: str, x: Frame, y: Frame) -> Callable[[], Frame]:
    """Return a call of `infer` with binary tensors by Python's own client."""
    connection = HTTPConnection(address)

    def call() -> Frame:
        inputs = [
            {
                "name": name,
                "shape": list(frame.shape),
                "datatype": "UINT8",
                "parameters": {"binary_data_size": frame.nbytes},
            }
            for name, frame in ((X, x), (Y, y))
        ]
        head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
        connection.request(
            "POST",
            f"/v2/models/{BUNDLE}/infer",
            b"".join((head, x.data, y.data)),
            {HEADER_LENGTH: str(len(head))},
        )
        response = connection.getresponse()
        data = response.read()
        return np.frombuffer(data, np.uint8, offset=int(response.headers[HEADER_LENGTH])).reshape(*SIZE, 3)

    return call


def measure_calls(calls: int, backend: str, triton: str | None) -> dict[str, dict[str, float]]:
    """Return medians in milliseconds of a call, and over the fuser's of the same round, by kind."""
    pair = shipped_pairs("vif")[0]
    x, y = (resize_frame(read_frame(path), SIZE) for path in (pair.x, pair.y))
    with Fuser.load(BUNDLE, backend, threads=1) as fuser, served(backend) as address:  # type: ignore[arg-type]
        kinds: dict[str, Callable[[], Frame]] = {
            "fuser": lambda: fuser(x, y),
            "`tcmoa serve`, `http.client`": plain_caller(address, x, y),
            "`tcmoa serve`, Triton's client": caller(address, x, y, batched=False),
        }
        if triton is not None:
            kinds["Triton with the Python backend, Triton's client"] = caller(triton, x, y, batched=True)
        expected = fuser(x, y)
        for name, call in kinds.items():
            if not np.array_equal(call(), expected):
                raise TcmoaError("another frame than the fuser's", subject=name)
        rounds = []
        for _ in range(calls + WARM_UP):
            seconds = {}
            for name, call in kinds.items():
                start = time.perf_counter()
                call()
                seconds[name] = 1e3 * (time.perf_counter() - start)
            rounds.append(seconds)
    kept = rounds[WARM_UP:]
    return {
        name: {
            "p50_ms": statistics.median(each[name] for each in kept),
            "over_fuser_ms": statistics.median(each[name] - each["fuser"] for each in kept),
        }
        for name in kinds
    }


def to_markdown(measured: dict[str, dict[str, float]]) -> str:
    """Format the figures as a table."""
    lines = ["| call | p50, ms | over the fuser, ms |", "|---|---:|---:|"]
    for name, row in measured.items():
        lines.append(f"| {name} | {row['p50_ms']:.1f} | {row['over_fuser_ms']:.1f} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=300, help="rounds of calls")
    parser.add_argument("--backend", default="openvino", help="backend of all kinds")
    parser.add_argument("--triton", metavar="HOST:PORT", help="HTTP address of a Triton server")
    options = parser.parse_args()
    if options.calls < 1:
        parser.error("no calls; expected 1 or more")
    try:
        print(to_markdown(measure_calls(options.calls, options.backend, options.triton)))
    except TcmoaError as error:
        print(f"call_overhead: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
