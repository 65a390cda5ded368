"""Measuring on several cores, with one process each, fed over pipes.

Subprocesses instead of `multiprocessing`: they do not import the caller's script, so notebooks and scripts without a
main guard work; they have an environment of their own (one thread each in NumPy, and memory that is kept); Ctrl-C in
the terminal does not reach them; and they end with their parent, however it ends.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from typing import Final, TypeAlias

from tcmoa_calibration.evaluate.measure import (
    JobResult,
    MeasureSettings,
    Outcome,
    PairEvaluator,
    PairJob,
    out_of_memory,
)
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.stalls import stall_watch

MeasuredJob: TypeAlias = tuple[PairJob, tuple[Outcome, ...]]

ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
KEEP_MEMORY: Final = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
"""glibc returns the memory of large arrays to the system and requests it again: a quarter of the running time."""

_KILLED: Final = -9


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure_all(
    settings: MeasureSettings, jobs: Sequence[PairJob], num_processes: int
) -> Generator[MeasuredJob, None, None]:
    """Measure pairs in several processes, or in this one if `num_processes` or the number of jobs is 1.

    Closing the generator ends the processes.

    Yields:
        Each job with its outcomes, in the order in which they finish.

    Raises:
        InputError: A method cannot be loaded.
        MissingError: A package or device that a method requires is missing.
    """
    num_processes = min(num_processes, len(jobs))
    if num_processes <= 1 or not sys.executable:
        with closing(PairEvaluator(settings)) as evaluator:
            for job in jobs:
                yield job, evaluator.measure(job)
        return
    num_left, shown = len(jobs), set[str]()
    pool = WorkerPool(settings, jobs, num_processes)
    try:
        while num_left:
            reply = pool.replies.get()
            if isinstance(reply, BaseException):
                raise reply
            job, result = reply
            for text in result.warnings:  # every process raises the same ones
                if text not in shown:
                    shown.add(text)
                    warnings.warn(text, UserWarning, stacklevel=2)
            num_left -= 1
            yield job, result.outcomes
    finally:
        pool.shutdown(kill=num_left > 0)


class WorkerPool:
    """Threads that feed one process each.

    Attributes:
        replies: Each job with its result, or an error that ends the evaluation.
    """

    def __init__(self, settings: MeasureSettings, jobs: Sequence[PairJob], num_processes: int) -> None:
        self.replies: queue.SimpleQueue[tuple[PairJob, JobResult] | BaseException] = queue.SimpleQueue()
        self._settings = settings
        self._jobs: queue.SimpleQueue[PairJob] = queue.SimpleQueue()
        for job in jobs:
            self._jobs.put(job)
        self._lock, self._is_shut_down = threading.Lock(), False
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._threads = [
            threading.Thread(target=self._feed, args=(index,), daemon=True) for index in range(num_processes)
        ]
        for thread in self._threads:
            thread.start()

    def shutdown(self, *, kill: bool) -> None:
        """End all processes and wait for them; `kill` ends them at once."""
        with self._lock:
            self._is_shut_down = True
            for process in self._processes.values() if kill else ():
                process.kill()
        for thread in self._threads:
            thread.join()

    def _feed(self, index: int) -> None:
        """Give jobs to a process until none is left; a process that died is replaced."""
        process: subprocess.Popen[bytes] | None = None
        try:
            while not self._is_shut_down:
                job = self._jobs.get_nowait()
                process = process or self._spawn(index)
                if process is None:
                    return
                with stall_watch(process) as watch:
                    reply = _request(process, job)
                if isinstance(reply, TcmoaError):
                    self.replies.put(reply)
                    return
                if reply is None:
                    _close(process)
                    problem = watch.problem if watch.has_ended_it else None
                    reply, process = _failed_result(job, process.returncode, problem), None
                self.replies.put((job, reply))
        except queue.Empty:
            pass
        except BaseException as error:  # the reader of `replies` would wait forever
            self.replies.put(error)
        finally:
            if process is not None:
                _close(process)

    def _spawn(self, index: int) -> subprocess.Popen[bytes] | None:
        """Start a process; None after `shutdown`."""
        with self._lock:
            if self._is_shut_down:
                return None
            show_errors = os.environ.get("TCMOA_DEBUG")
            process = subprocess.Popen(
                # -P: a file random.py in the current folder must not be imported
                [sys.executable, "-P", "-m", "tcmoa_calibration.evaluate.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if show_errors else subprocess.DEVNULL,
                env={**KEEP_MEMORY, **os.environ, **ONE_THREAD},
                start_new_session=True,  # this process handles Ctrl-C
            )
            self._processes[index] = process
        with suppress(OSError):  # a process that died does not reply either
            _send(process, self._settings)
        return process


def _send(process: subprocess.Popen[bytes], message: MeasureSettings | PairJob) -> None:
    assert process.stdin is not None  # opened as a pipe
    pickle.dump(message, process.stdin)
    process.stdin.flush()


def _request(process: subprocess.Popen[bytes], job: PairJob) -> JobResult | TcmoaError | None:
    """Return the reply to a job; None if the process died."""
    assert process.stdout is not None  # opened as a pipe
    try:
        _send(process, job)
        reply: JobResult | TcmoaError = pickle.load(process.stdout)
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    return reply


def _failed_result(job: PairJob, exit_code: int, problem: str | None) -> JobResult:
    """Return the result of a job whose process died; the system kills processes when it runs out of memory."""
    name = job.pair.name
    error: TcmoaError = out_of_memory(name)
    if problem is not None:
        error = TcmoaError(problem, subject=name, remedy="Run the same command again")
    elif exit_code != _KILLED:
        error = TcmoaError(f"internal error: its process ended with exit code {exit_code}", subject=name)
    return JobResult(tuple(Outcome(name, index, error) for index in job.keys))


def _close(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError), stall_watch(process):
        process.communicate()  # closes stdin, which ends the process
