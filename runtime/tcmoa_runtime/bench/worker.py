"""A process that runs frames when it is told to, and how it is talked to: one line in, one line of JSON out.

What is measured runs in a process of its own, so that one's threads, memory and caches are no other's.
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
from typing import Any, Self

from tcmoa_runtime.errors import TcmoaError

Infer = Callable[[], object]
"""Runs one frame."""
Command = Callable[[Infer, Sequence[str]], dict[str, Any]]
"""What a worker answers, from what runs a frame and the words after the command's name."""


class Worker:
    """The side that asks. `command` starts a program that calls `serve`; `name` begins every error."""

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
                with suppress(OSError):  # what was not written has no reader any more
                    pipe.close()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def load(self) -> tuple[float, float]:
        """Milliseconds of loading and of the first frame; TcmoaError where it cannot be loaded or has ended."""
        answer = self.ask("load")
        return float(answer["load_ms"]), float(answer["first_ms"])

    def run(self, frames: int) -> list[float]:
        """Milliseconds of each of so many frames."""
        return [float(value) for value in self.ask(f"run {frames}")["ms"]]

    def peak_mb(self) -> float:
        """Largest resident memory so far, in 10^6 bytes."""
        return float(self.ask("peak")["peak_mb"])

    def ask(self, words: str) -> dict[str, Any]:
        """The answer to a line of words; TcmoaError where it is an error or the process has ended."""
        process = self._process
        try:
            assert process.stdin is not None  # they were asked for
            assert process.stdout is not None
            process.stdin.write(words + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            answer = json.loads(line) if line else {"error": f"its process ended ({_ending(process)})"}
        except (OSError, ValueError) as error:
            answer = {"error": f"its process ended ({_ending(process)}; {error})"}
        if "error" in answer:
            raise TcmoaError(f"{self.name}: {answer['error']}")
        return dict(answer)


def _ending(process: subprocess.Popen[str]) -> str:
    try:
        return f"exit status {process.wait(timeout=5)}"
    except subprocess.TimeoutExpired:
        return "it does not answer"


def serve(load: Callable[[], Infer], commands: Mapping[str, Command] | None = None) -> None:
    """The worker's side, until stdin ends: `load`, `run N`, `peak`, and `commands` by their first word.

    Time starts here, so what `load` imports is in the time of loading.
    """
    started = time.perf_counter()
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what native code prints must not come between
    infer: Infer | None = None
    for line in sys.stdin:
        words = line.split()
        answer: dict[str, Any]
        try:
            if words[0] == "load":
                infer = load()
                loaded = time.perf_counter()
                infer()
                first = time.perf_counter()
                answer = {"load_ms": (loaded - started) * 1e3, "first_ms": (first - loaded) * 1e3}
            elif words[0] == "run" and infer is not None:
                answer = {"ms": [_timed(infer) for _ in range(int(words[1]))]}
            elif commands is not None and words[0] in commands and infer is not None:
                answer = commands[words[0]](infer, words[1:])
            else:
                answer = {"peak_mb": peak_mb()}
        except Exception as error:  # told to who asked
            reason = " ".join(str(error).split()) or type(error).__name__
            answer = {"error": reason}
        out.write(json.dumps(answer) + "\n")


def _timed(run: Infer) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def peak_mb() -> float:
    """Largest resident memory of this process so far, in 10^6 bytes."""
    try:
        # Linux hands ru_maxrss on from the process that started this one; the high-water mark begins anew.
        lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
    except (OSError, StopIteration):
        import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6
