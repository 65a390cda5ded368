"""The part of the process environment that Ray reads, and which a session changes for its time only."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Final

from tcmoa_runtime.log import get_logger
from tcmoa_runtime.stop_signals import REPEAT_S, handled_stop_signals

_SET_BY_RAY: Final = "PYTHONBREAKPOINT"
"""Environment variable that Ray sets in a program that connects, and leaves."""
DEBUG: Final = "TCMOA_DEBUG"
"""Environment variable that shows what Ray prints and logs."""

LOOPBACK_SETTINGS: Final = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Makes Ray take the loopback address for that of the node, as it does by itself on Windows and macOS.

Given `127.0.0.1` as an address, Ray replaces it by another of the machine, and listens on all of them.
"""


_log = get_logger("cluster")


@contextlib.contextmanager
def set_variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables during a with-block; Ray's processes inherit them."""
    previous = {name: os.environ.get(name) for name in (*variables, _SET_BY_RAY)}
    os.environ.update(variables)
    _reread()
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _reread()


def read_token() -> str | None:
    """Return the token that RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token holds now; None without one."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # its stub leaves it out

    _reread()
    return str(AuthenticationTokenLoader.instance().get_raw_token(ignore_auth_mode=True)) or None


def _reread() -> None:
    """Let Ray read the mode and the token of authentication again: it keeps what it read first."""
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # as above

    Config.initialize("")  # before the token is dropped, as Ray's own tests do: a thread may still read it
    AuthenticationTokenLoader.instance().reset_cache()
    variable = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    ray_constants.ENABLE_RAY_CLUSTER = os.environ.get(variable, "1") != "0"


@contextlib.contextmanager
def quiet_ray() -> Iterator[None]:
    """Hide Ray's log during a with-block, unless `TCMOA_DEBUG` is set: its errors are raised as well.

    What Ray reports of processes that died, which it prints on stdout, goes to the log of `tcmoa`.
    """
    from ray._private import worker

    logger = logging.getLogger("ray")
    level, is_propagated, printed = logger.level, logger.propagate, worker.print_to_stdstream
    if not is_debugging():
        logger.setLevel(logging.CRITICAL + 1)
        vars(worker)["print_to_stdstream"] = _log_report
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.propagate = is_propagated
        vars(worker)["print_to_stdstream"] = printed


def _log_report(data: Mapping[str, object], *_: object, **__: object) -> None:
    """Log a report of Ray in place of printing it."""
    lines = data.get("lines")
    for line in lines if isinstance(lines, list) else []:
        _log.info("ray: %s", line, extra={"event": "ray-report"})


def is_debugging() -> bool:
    """Whether the user has asked for the messages of libraries."""
    return bool(os.environ.get(DEBUG))


@contextlib.contextmanager
def held_stop_signals() -> Iterator[None]:
    """Hold signals that stop a program back during a with-block in which Ray connects or ends.

    Ray's native code crashes when an exception leaves it halfway, and Ray replaces the handler of SIGTERM by one that
    exits. The handlers that were there get the first signal at the end of the block, or a second one, `REPEAT_S` later,
    at once. Outside of the main thread, which gets no signals, nothing changes.
    """
    from ray._private import utils

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first: signal.Signals | None = None
    received_at = 0.0

    def hold(received: signal.Signals) -> None:
        nonlocal first, received_at
        if first is None:
            first, received_at = received, time.monotonic()
        elif time.monotonic() - received_at > REPEAT_S:
            raise KeyboardInterrupt

    set_handler = utils.set_sigterm_handler
    try:
        vars(utils)["set_sigterm_handler"] = lambda _: None
        with handled_stop_signals(hold):
            yield
    finally:
        vars(utils)["set_sigterm_handler"] = set_handler
        if first is not None:
            signal.raise_signal(first)
