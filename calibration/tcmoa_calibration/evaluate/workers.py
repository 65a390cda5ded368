"""Measuring on several cores: one process each, fed over pipes.

Own processes rather than `multiprocessing`: they do not import the caller's script again, so that notebooks and
scripts without a main guard may use them; they get an environment of their own (one thread each for what NumPy
calls, no shuttling of large arrays between process and system); a terminal's Ctrl-C does not reach them, and they
end when we do, whatever became of us.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from typing import Any, Final

from tcmoa_calibration.evaluate.measure import NO_MEMORY, Measured, Measurer, Plan, Task
from tcmoa_runtime import errors

Result = tuple[Task, list[Measured]]

ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
KEEP_MEMORY: Final = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
"""glibc gives large arrays back to the system and asks for them anew each time: a quarter of the running time."""

_KILLED: Final = -9


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure_all(plan: Plan, tasks: Sequence[Task], jobs: int) -> Generator[Result, None, None]:
    """Results as they come; in this process where `jobs` is 1 or there is one task only.

    Raises InputError or MissingError where a contestant cannot be loaded. Closing the iterator ends the processes.
    """
    jobs = min(jobs, len(tasks))
    if jobs <= 1 or not sys.executable:
        with closing(Measurer(plan)) as measurer:
            for task in tasks:
                yield task, measurer.measure(task)
        return
    missing, noted = len(tasks), set()
    crew = _Crew(plan, tasks, jobs)
    try:
        while missing:
            result = crew.results.get()
            if isinstance(result, UserWarning):  # each process has the same to say
                if str(result) not in noted:
                    noted.add(str(result))
                    warnings.warn(result, stacklevel=2)
            elif isinstance(result, BaseException):
                raise result
            else:
                missing -= 1
                yield result
    finally:
        crew.dismiss(kill=missing > 0)


class _Crew:
    """Threads that feed a process each."""

    def __init__(self, plan: Plan, tasks: Sequence[Task], jobs: int) -> None:
        self.results: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
        self._first_line = json.dumps(plan.to_json()) + "\n"
        self._waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
        for task in tasks:
            self._waiting.put(task)
        self._lock, self._dismissed = threading.Lock(), False
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._threads = [threading.Thread(target=self._feed, args=(i,), daemon=True) for i in range(jobs)]
        for thread in self._threads:
            thread.start()

    def dismiss(self, *, kill: bool) -> None:
        """End all processes, at once where `kill`, and wait for them."""
        with self._lock:
            self._dismissed = True
            for process in self._processes.values() if kill else ():
                process.kill()
        for thread in self._threads:
            thread.join()

    def _feed(self, place: int) -> None:
        process: subprocess.Popen[str] | None = None
        try:
            while not self._dismissed:
                task = self._waiting.get_nowait()
                process = process or self._hire(place)
                if process is None:
                    return
                reply = _ask(process, task)
                if reply is None:
                    _end(process)
                    code, process = process.returncode, None
                    why = NO_MEMORY if code == _KILLED else f"fault: its process ended with {code}"
                    failed = [Measured(i, f"{task.name}: {why}", True) for i in task.keys]
                    self.results.put((task, failed))
                elif "stop" in reply:
                    self.results.put(_error(reply["stop"]))
                    return
                else:
                    for note in reply["notes"]:
                        self.results.put(UserWarning(note))
                    self.results.put((task, [Measured(**entry) for entry in reply["measured"]]))
        except queue.Empty:
            pass
        except BaseException as error:  # else the one who waits for results would wait for ever
            self.results.put(error)
        finally:
            if process is not None:
                _end(process)

    def _hire(self, place: int) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._dismissed:
                return None
            debug = os.environ.get("TCMOA_DEBUG")
            process = subprocess.Popen(
                # -P: a random.py where the user happens to stand is not to be imported
                [sys.executable, "-P", "-m", "tcmoa_calibration.evaluate.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if debug else subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env={**KEEP_MEMORY, **os.environ, **ONE_THREAD},
                start_new_session=True,  # Ctrl-C is ours to handle
            )
            self._processes[place] = process
        with suppress(OSError):  # it died: noticed when it does not answer
            _write(process, self._first_line)
        return process


def _write(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


def _ask(process: subprocess.Popen[str], task: Task) -> dict[str, Any] | None:
    """The answer to a task; None where the process has died."""
    assert process.stdout is not None
    try:
        _write(process, json.dumps(asdict(task)) + "\n")
        line = process.stdout.readline()
    except OSError:
        return None
    return json.loads(line) if line.endswith("\n") else None


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(OSError):
        process.communicate()  # closes its input, upon which it ends


def _error(told: dict[str, str]) -> errors.TcmoaError:
    kind = getattr(errors, told["kind"], errors.TcmoaError)
    error = kind(told["message"])
    return error if isinstance(error, errors.TcmoaError) else errors.TcmoaError(told["message"])
