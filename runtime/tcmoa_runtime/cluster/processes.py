"""The processes of a private Ray, which end with its session: Ray itself does not wait for its workers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from tcmoa_runtime.log import get_logger

if TYPE_CHECKING:
    from ray._private.services import ProcessInfo

GRACE_S: Final = 3.0
"""How long processes may take to end by themselves after Ray has ended, e.g. for their exit handlers."""
KILL_S: Final = 10.0
"""How long the system may take to end processes that were killed."""

POLL_S: Final = 0.02
"""Time between two looks at them."""

_log = get_logger("cluster")


@contextlib.contextmanager
def processes_ended(folder: Path) -> Iterator[None]:
    """Wait after a with-block, which shuts down a private Ray, until none of its processes is left.

    Those that take longer than `GRACE_S` are killed.

    Args:
        folder: Its temporary folder, which is in the command lines of its processes.
    """
    started = _started_by_ray()
    try:
        yield
    finally:
        # Workers that Ray was still starting are found by their command line only.
        left = _wait(started | _named_after(folder), GRACE_S)
        for process in left:
            _log.info("process %d of Ray does not end: it is killed", process.pid)
            with contextlib.suppress(psutil.Error):
                process.kill()
        for process in _wait(left, KILL_S):
            _log.warning("process %d of Ray does not end", process.pid)


def _started_by_ray() -> set[psutil.Process]:
    """Return the processes of the node that `ray.init` has started in this process, and those below them."""
    from ray._private import worker

    node = worker._global_node
    groups: list[list[ProcessInfo]] = [] if node is None else list(node.all_processes.values())
    found: set[psutil.Process] = set()
    for info in chain.from_iterable(groups):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(info.process.pid)
            found |= {process, *process.children(recursive=True)}
    return found


def _named_after(folder: Path) -> set[psutil.Process]:
    """Return the processes that have a path below a folder in their command line."""
    return {
        process
        for process in psutil.process_iter(["cmdline"])
        if any(f"{folder}/" in argument for argument in process.info["cmdline"] or ())
    }


def _wait(processes: Collection[psutil.Process], timeout: float) -> set[psutil.Process]:
    """Wait for processes to end; returns those that have not."""
    deadline = time.monotonic() + timeout
    while (alive := {process for process in processes if _runs(process)}) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return alive


def _runs(process: psutil.Process) -> bool:
    """Whether a process runs; one that has ended, and waits for its parent to notice, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
