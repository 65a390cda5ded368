"""A process that is measured, and the protocol to control it.

The parent process writes one request per line to the worker's stdin, and the worker answers each with one line of JSON
on stdout: an object with the result, or with the parts of an error (`error`, `remedy`, `settings`). The requests are

    load        load the model and run the first frame  -> {"load_ms": ..., "first_ms": ...}
    run N       run N frames                            -> {"ms": [...]}
    peak        peak resident memory so far             -> {"peak_mb": ...}

and those that the program adds. The worker ends when its stdin is closed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias

from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.stalls import stall_watch
from tcmoa_runtime.typing import JsonObject

RunFrame: TypeAlias = Callable[[], object]
"""Runs one frame."""
RequestHandler: TypeAlias = Callable[[RunFrame, Sequence[str]], JsonObject]
"""Answers a request, given the function that runs a frame and the words after the request's name."""


def python_module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in another process of this Python.

    With `-P`, a file in the current folder cannot take the place of a module, e.g. `hashlib.py` beside a bundle.
    """
    return [sys.executable, "-P", "-m", name, *arguments]


class LoadTimes(NamedTuple):
    """Milliseconds of loading, imports included, and of the first frame."""

    load_ms: float
    first_ms: float


class Worker:
    """The parent's side of a worker process; a context manager that kills the process.

    Args:
        name: What is measured; the subject of every error.
        command: Starts a program that calls `serve`.
        env: Environment of the process; None: the parent's.
    """

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=None if env is None else dict(env),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # a request that was not written yet has no reader
                    pipe.close()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def kill(self) -> None:
        """End the process, also from another thread; a request in progress then raises TcmoaError."""
        self._process.kill()

    def load(self) -> LoadTimes:
        """Load the model and run the first frame; raises TcmoaError like `request`."""
        answer: Mapping[str, Any] = self.request("load")
        return LoadTimes(float(answer["load_ms"]), float(answer["first_ms"]))

    def run(self, num_frames: int) -> list[float]:
        """Run frames and return the milliseconds of each."""
        answer: Mapping[str, Any] = self.request(f"run {num_frames}")
        return [float(value) for value in answer["ms"]]

    def peak_mb(self) -> float:
        """Return the peak resident memory of the process so far, in 10^6 bytes."""
        answer: Mapping[str, Any] = self.request("peak")
        return float(answer["peak_mb"])

    def request(self, line: str) -> JsonObject:
        """Send a request and return the answer.

        Raises:
            TcmoaError: The worker answered with an error, or its process has ended.
        """
        process = self._process
        try:
            assert process.stdin is not None  # because of stdin=PIPE
            assert process.stdout is not None
            with stall_watch(process) as watch:
                process.stdin.write(line + "\n")
                process.stdin.flush()
                text = process.stdout.readline()
            if text:
                answer: dict[str, Any] = json.loads(text)
            elif watch.has_ended_it:
                answer = {"error": watch.problem}
            else:
                answer = {"error": f"its process ended ({_describe_end(process)})"}
        except (OSError, ValueError) as error:
            answer = {"error": f"its process ended ({_describe_end(process)}; {error})"}
        if "error" in answer:
            raise TcmoaError(
                str(answer["error"]),
                subject=self.name,
                remedy=answer.get("remedy"),
                settings=answer.get("settings"),
            )
        return dict(answer)


def _describe_end(process: subprocess.Popen[str]) -> str:
    try:
        return f"exit status {process.wait(timeout=5)}"
    except subprocess.TimeoutExpired:
        return "it does not answer"


def serve(load: Callable[[], RunFrame], handlers: Mapping[str, RequestHandler] | None = None) -> None:
    """Answer requests until stdin is closed: the worker's side of the protocol.

    The time of loading starts here and includes what `load` imports.

    Args:
        load: Loads the model and returns the function that runs a frame.
        handlers: Further requests by name.
    """
    started = time.perf_counter()
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # output of native code must not get between the answers
    session = _Session(load, handlers or {}, started)
    for line in sys.stdin:
        try:
            answer = session.answer(line.split())
        except TcmoaError as error:
            answer = {
                "error": error.render_problem(),
                "remedy": error.remedy,
                "settings": {name: str(value) for name, value in error.settings.items()},
            }
        except Exception as error:  # the parent reports every failure
            answer = {"error": " ".join(str(error).split()) or type(error).__name__}
        out.write(json.dumps(answer) + "\n")


class _Session:
    """State of a worker: the function that runs a frame, once it is loaded."""

    def __init__(
        self, load: Callable[[], RunFrame], handlers: Mapping[str, RequestHandler], started: float
    ) -> None:
        self._load, self._handlers, self._started = load, handlers, started
        self._run_frame: RunFrame | None = None

    def answer(self, words: Sequence[str]) -> JsonObject:
        """Answer a request."""
        name, arguments = words[0], words[1:]
        if name == "peak":
            return {"peak_mb": peak_mb()}
        if name == "load":
            return self._load_model()
        if self._run_frame is None:
            raise TcmoaError("not loaded yet", subject=name)
        if name == "run":
            return {"ms": [_time_ms(self._run_frame) for _ in range(int(arguments[0]))]}
        if name in self._handlers:
            return self._handlers[name](self._run_frame, arguments)
        raise TcmoaError("unknown request", subject=name)

    def _load_model(self) -> JsonObject:
        self._run_frame = self._load()
        loaded = time.perf_counter()
        self._run_frame()
        first = time.perf_counter()
        return {"load_ms": (loaded - self._started) * 1e3, "first_ms": (first - loaded) * 1e3}


def _time_ms(run: RunFrame) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def peak_mb() -> float:
    """Return the peak resident memory of this process so far, in 10^6 bytes."""
    try:
        # On Linux ru_maxrss starts at the value of the parent process; the high-water mark starts anew.
        lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
    except (OSError, StopIteration):
        import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
