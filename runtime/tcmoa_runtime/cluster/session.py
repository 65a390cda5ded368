"""Sessions of Ray: a private one on this machine, or a connection to a cluster whose nodes are checked."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from tcmoa_runtime.cluster.address import AUTO, CLIENT_SCHEME, ask, check_address
from tcmoa_runtime.cluster.environment import (
    LOOPBACK_SETTINGS,
    held_stop_signals,
    is_debugging,
    quiet_ray,
    read_token,
    set_variables,
)
from tcmoa_runtime.cluster.nodes import ClusterNode, check_nodes, list_nodes
from tcmoa_runtime.cluster.private_folder import private_folder
from tcmoa_runtime.errors import InputError, MissingError, TcmoaError, first_line
from tcmoa_runtime.install import install_hint
from tcmoa_runtime.log import get_logger

NAMESPACE: Final = "tcmoa"
"""Ray's namespace of named actors of this project."""

_CLIENT_RETRIES: Final = 3
_RETRY_S: Final = 0.5
_NO_STATISTICS: Final = {"RAY_USAGE_STATS_ENABLED": "0"}
_TOKEN_REMEDY: Final = "Set RAY_AUTH_TOKEN to the token of the cluster, or write it to ~/.ray/auth_token"

_log = get_logger("cluster")


@dataclass(frozen=True)
class RaySession:
    """A connection of this process to Ray.

    Attributes:
        address: Address of the cluster; None for a private Ray on this machine.
        nodes: The nodes that take work, as they were at the start.
    """

    address: str | None
    nodes: tuple[ClusterNode, ...]

    @property
    def is_private(self) -> bool:
        """Whether Ray runs for this session only, on this machine."""
        return self.address is None


@contextlib.contextmanager
def ray_session(
    address: str | None = None,
    *,
    num_cpus: int | None = None,
    object_store_bytes: int | None = None,
    checks_nodes: bool = True,
) -> Iterator[RaySession]:
    """Connect this process to Ray for the time of a with-block.

    Args:
        address: `auto`, HOST:PORT or ray://HOST:PORT of a cluster. None starts a private Ray, which listens on
            loopback only, needs a token that this process makes, and ends with the block. In a program that has called
            `ray.init` itself, None uses its connection, and leaves it open.
        num_cpus: CPUs of a private Ray; those of the machine if None.
        object_store_bytes: Size of the object store of a private Ray; Ray's default if None.
        checks_nodes: Whether each node of a cluster must answer, with this version of tcmoa; not for a session that
            starts no work.

    Raises:
        InputError: No Ray cluster is at the address, or it refuses the token.
        MissingError: Ray is not installed, or a node has another version of Python, Ray or tcmoa.
        TcmoaError: Ray cannot be started.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingError(
            f"the package {error.name} is not installed", subject="ray", remedy=install_hint("ray")
        ) from error
    with quiet_ray():
        if ray.is_initialized():
            if address is not None:
                raise InputError(
                    "this program is connected to Ray already; expected no address, or no connection",
                    subject="address",
                )
            yield RaySession(ray.get_runtime_context().gcs_address, check_nodes())
        elif address is None:
            with _private_ray(num_cpus, object_store_bytes):
                yield RaySession(None, list_nodes())  # this machine, with this interpreter
        else:
            with _connection(check_address(address)):
                yield RaySession(address, check_nodes() if checks_nodes else list_nodes())


@contextlib.contextmanager
def _private_ray(num_cpus: int | None, object_store_bytes: int | None) -> Iterator[None]:
    import ray

    from tcmoa_runtime.cluster.processes import processes_ended  # needs psutil

    variables = {
        **LOOPBACK_SETTINGS,
        **_NO_STATISTICS,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Ports that are the same for every Ray of a machine; 0 takes any.
        "AUTOSCALER_METRIC_PORT": "0",
        "DASHBOARD_METRIC_PORT": "0",
    }

    def start() -> None:
        ray.init(
            address="local",
            namespace=NAMESPACE,
            num_cpus=num_cpus,
            object_store_memory=object_store_bytes,
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=is_debugging(),
            _temp_dir=str(folder / "r"),  # which Ray opens to all users
        )

    def wrap(error: Exception) -> TcmoaError:
        return TcmoaError(
            f"cannot be started: {first_line(error)}",
            subject="Ray on this machine",
            remedy=_debug_remedy(),
        )

    def shut_down() -> None:
        with processes_ended(folder):
            ray.shutdown()

    with (
        private_folder() as folder,
        set_variables(variables),
        _without("RAY_ADDRESS"),
        _connected(start, wrap, shut_down),
    ):
        yield


@contextlib.contextmanager
def _connection(address: str) -> Iterator[None]:
    import ray

    def connect() -> None:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=is_debugging(), configure_logging=False)

    def start() -> None:
        # Each client gets a server of its own on the head, on the next free port, which another program may take
        # first; on a busy head it may not be there in time, or end again.
        for _ in range(_CLIENT_RETRIES if address.startswith(CLIENT_SCHEME) else 0):
            try:
                return connect()
            except ConnectionError as error:
                _log.info("the connection to %s failed, it is tried again: %s", address, _reason(error))
                ray.shutdown()
                time.sleep(_RETRY_S)
        return connect()

    with (
        set_variables(_variables_for(address)),
        _connected(start, partial(_connect_error, address), ray.shutdown),
    ):
        yield


@contextlib.contextmanager
def _connected(
    start: Callable[[], None], wrap: Callable[[Exception], TcmoaError], shut_down: Callable[[], None]
) -> Iterator[None]:
    """Connect for the time of a with-block; what a connection that fails has begun is ended, too.

    Args:
        start: Connects.
        wrap: Returns the error of this project about one of `start`.
        shut_down: Ends the connection, also one that has begun only.
    """
    try:
        try:
            with held_stop_signals():
                start()
        except Exception as error:
            raise wrap(error) from error
        yield
    finally:
        with held_stop_signals():
            shut_down()


@contextlib.contextmanager
def _without(variable: str) -> Iterator[None]:
    """Hide an environment variable during a with-block: `RAY_ADDRESS` must not replace what the caller chose."""
    value = os.environ.pop(variable, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[variable] = value


def _variables_for(address: str) -> dict[str, str]:
    """Return the settings of a connection, after a call that tells a wrong address from a wrong token.

    Raises:
        InputError: No Ray cluster answers at the address, or it refuses the token.
    """
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return {}  # the call knows no certificates: Ray's own errors must do
    target = _resolve_auto() if address == AUTO else address
    token = read_token()
    # A token goes only to a cluster that asks for one.
    answer = ask(target, None)
    if answer == "token" and token is not None and ask(target, token) == "ready":
        return {"RAY_AUTH_MODE": "token"}
    if answer == "ready":
        return {}
    if answer == "token":
        raise InputError(
            "the cluster needs a token, and none is set; expected its token"
            if token is None
            else "the cluster refuses the token; expected its own",
            subject=address,
            remedy=_TOKEN_REMEDY,
        )
    kind = "Ray Client server" if address.startswith(CLIENT_SCHEME) else "Ray cluster"
    what = "no" if answer == "silent" else "another server, no"
    raise InputError(
        f"{what} {kind} answers; expected the address of a head node, "
        "e.g. HOST:6379, or ray://HOST:10001 for its Ray Client server",
        subject=address,
        remedy="Start the head of one with `ray start`, or leave the address out to use this machine",
    )


def _resolve_auto() -> str:
    """Return the address of the cluster that runs on this machine, or that RAY_ADDRESS names."""
    from ray._private import services

    try:
        return str(services.canonicalize_bootstrap_address_or_die(AUTO))
    except ConnectionError as error:
        raise InputError(
            "no Ray cluster runs on this machine; expected one, or its address",
            subject=AUTO,
            remedy="Start the head of one with `ray start`, or leave the address out",
        ) from error


def _connect_error(address: str, error: Exception) -> TcmoaError:
    text = str(error)
    if isinstance(error, RuntimeError) and "ersion" in text:
        found = re.findall(r"(Ray|Python):? v?(\d+[\w.]+)", text)
        theirs = ", ".join(f"{name} {version}" for name, version in found[:2]) or first_line(error, 200)
        import ray

        return MissingError(
            f"the cluster runs {theirs}; expected Ray {ray.__version__} and "
            f"Python {'.'.join(map(str, sys.version_info[:3]))} as here",
            subject=address,
            remedy="Install the versions of the cluster here, or those of here on its nodes",
        )
    return InputError(f"the connection failed: {_reason(error)}", subject=address, remedy=_debug_remedy())


def _reason(error: Exception) -> str:
    """Return why a connection failed, in one line: that of gRPC, or the last one if it is a traceback."""
    details = re.findall(r'details = "([^"]+)"', str(error))
    if details:
        return str(details[-1])
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines and lines[0].endswith(":") else first_line(error, 200)


def _debug_remedy() -> str:
    return "Run it again with the environment variable TCMOA_DEBUG=1 for Ray's own messages"
