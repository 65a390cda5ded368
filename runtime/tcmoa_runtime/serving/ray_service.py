"""Running the service on Ray Serve until it is stopped, on a cluster or a private Ray of this machine."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tcmoa_runtime import errors
from tcmoa_runtime.cluster.bundle_shipping import ship_bundle
from tcmoa_runtime.cluster.environment import is_debugging
from tcmoa_runtime.cluster.nodes import ClusterNode, list_nodes
from tcmoa_runtime.cluster.session import ray_session
from tcmoa_runtime.errors import InputError, TcmoaError, first_line
from tcmoa_runtime.given_prompt import Prompt
from tcmoa_runtime.log import get_logger, log_step
from tcmoa_runtime.options.fuser import FuserOptions
from tcmoa_runtime.options.serve import ReplicaOptions, ServeOptions
from tcmoa_runtime.serving.deployment import ReplicaSpec, make_deployment
from tcmoa_runtime.serving.local import SUBJECT, service_access, service_url
from tcmoa_runtime.stop_signals import handled_stop_signals
from tcmoa_runtime.web.access import choose_token
from tcmoa_runtime.web.address import Address

if TYPE_CHECKING:
    from ray.serve import Application

_log = get_logger("service")

APPLICATION: Final = "tcmoa"
SHUTDOWN_SECONDS: Final = 30.0
"""Time that Ray Serve has to end its processes."""

_CONTROLLER: Final = "SERVE_CONTROLLER_ACTOR"
_CONTROLLER_NAMESPACE: Final = "serve"
_OWN_ERROR: Final = re.compile(r"\btcmoa_runtime\.errors\.(\w+): (.+)")


def serve_on_ray(
    bundles: Mapping[str, str],
    options: ServeOptions,
    fuser_options: FuserOptions,
    replica_options: ReplicaOptions,
    *,
    cluster: str | None,
    address: Address,
    token: str | None = None,
    on_started: Callable[[str], None],
    on_message: Callable[[str], None] = log_step,
) -> None:
    """Serve bundles on Ray Serve until a signal; then replicas end when their requests have ended.

    Args:
        bundles: Paths, or names of ready bundles, by name; they are shipped to the nodes.
        options: Limits of each replica.
        fuser_options: How to load and fit; `threads` are the CPUs of a replica, by default those of a node.
        replica_options: Number of replicas, and GPUs of each.
        cluster: Address of a cluster; None starts a private Ray on this machine.
        address: What the proxies of Ray Serve listen on: the head node alone on loopback, else every node.
        token: The token that clients need; made if the address is not on loopback.
        on_started: Called with the URL when requests are taken.
        on_message: Takes a line for each step of the start.

    Raises:
        InputError: The cluster cannot be reached, Ray Serve runs there already, or an option is wrong.
        MissingError: Ray is not installed, or a node lacks this version.
        BundleError: A bundle must not be loaded.
        TcmoaError: The replicas cannot be started.
    """
    if address.port == 0:
        raise InputError("0; expected 1 to 65535: the proxies of all nodes listen on it", subject="port")
    choose_token(token, is_loopback=address.is_loopback)
    prompt = Prompt.read(fuser_options.prompt_scale, fuser_options.prompt_shift)
    stopped = threading.Event()

    def stop(_signal: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    if cluster is None:  # where a port in use is known at once
        address.bind(subject=SUBJECT).close()
        on_message("starting Ray on this machine")
    with ray_session(cluster), _quiet_serve():
        from ray import serve

        _check_free(cluster)
        access = service_access(address, token, address.port)
        nodes = list_nodes()
        num_cpus = fuser_options.threads or max(1, int(min(node.num_cpus for node in nodes)))
        _check_places(nodes, replica_options, num_cpus, is_private=cluster is None)
        low = replica_options.bounds[0]
        on_message(f"loading the bundles in {low} {'replica' if low == 1 else 'replicas'}")
        shipped = {name: ship_bundle(path, nodes=nodes) for name, path in bundles.items()}
        spec = ReplicaSpec(
            bundles=shipped,
            options=options,
            fuser_options=_with_threads(fuser_options, num_cpus),
            prompt=prompt,
            access=access,
        )
        try:
            serve.start(
                proxy_location="HeadOnly" if address.is_loopback else "EveryNode",
                http_options={"host": address.host, "port": address.port},
            )
            _run(make_deployment(spec, replica_options, num_cpus))
            with handled_stop_signals(stop):
                on_started(service_url(address, access))
                while not stopped.wait(1.0):
                    pass
                serve.delete(APPLICATION)
        finally:
            _shut_down_serve()


def _check_free(cluster: str | None) -> None:
    """Refuse a cluster on which Ray Serve runs: its address cannot be changed, and its end would be another's too."""
    import ray

    try:
        ray.get_actor(_CONTROLLER, namespace=_CONTROLLER_NAMESPACE)
    except ValueError:
        return
    raise InputError(
        "Ray Serve runs on it already; expected a cluster without",
        subject=cluster or "this machine",
        remedy="Stop it with `serve shutdown`, or deploy tcmoa_runtime.serving.deployment:build_application with "
        "`serve deploy`",
    )


def _check_places(
    nodes: Sequence[ClusterNode], replica_options: ReplicaOptions, num_cpus: int, *, is_private: bool
) -> None:
    """Check whether the fewest replicas fit on the nodes; else they would be waited for.

    Raises:
        InputError: They do not fit on this machine. On a cluster, whose autoscaler may add nodes, it is a warning.
    """
    low, gpus = replica_options.bounds[0], replica_options.gpus
    places = sum(
        min(
            int(node.num_cpus // num_cpus),
            int(node.num_gpus // gpus) if gpus else low,
        )
        for node in nodes
    )
    if places >= low:
        return
    needed = f"{num_cpus} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
    if is_private:
        raise InputError(
            f"{low} replicas with {needed} each; expected at most {places}, for which this machine has room",
            subject="replicas",
            remedy="Lower {replicas}, {threads} or {gpus}, or give the {address} of a cluster.",
            settings={"replicas": ..., "threads": ..., "gpus": ..., "address": ...},
        )
    _log.warning(
        "service: waits until the cluster has room for %d replicas with %s each; it has room for %d",
        low,
        needed,
        places,
        extra={"event": "waits-for-nodes", "replicas": low, "places": places},
    )


def _run(application: Application) -> None:
    """Deploy and wait until a replica takes requests.

    Raises:
        TcmoaError: The replicas cannot be started. An error of this project in one has its own type and line.
    """
    from ray import serve

    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
    except Exception as error:
        reports = [str(error)]
        with contextlib.suppress(Exception):  # the status says more, where it can be asked for
            deployments = serve.status().applications[APPLICATION].deployments
            reports += [deployment.message for deployment in deployments.values()]
        raise _start_error(error, "\n".join(reports)) from error


def _shut_down_serve() -> None:
    """End the processes of Ray Serve.

    `serve.shutdown` alone waits for a call that its controller never answers, which Ray then reports on stdout.
    """
    import ray
    from ray import serve

    with contextlib.suppress(ValueError, ray.exceptions.RayError):
        controller = ray.get_actor(_CONTROLLER, namespace=_CONTROLLER_NAMESPACE)
        ray.get(controller.graceful_shutdown.remote(wait=False))
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while time.monotonic() < deadline:
            time.sleep(0.05)
            ray.get_actor(_CONTROLLER, namespace=_CONTROLLER_NAMESPACE)  # ValueError when it has ended
    serve.shutdown()


def _start_error(error: Exception, report: str) -> TcmoaError:
    """Return the error of a replica from the traceback that Ray reports."""
    found = [match for line in report.splitlines() if (match := _OWN_ERROR.search(line))]
    kind = getattr(errors, found[-1][1], None) if found else None
    if isinstance(kind, type) and issubclass(kind, TcmoaError):
        return kind(found[-1][2], subject="in a replica")
    return TcmoaError(
        f"the replicas cannot be started: {first_line(error)}",
        subject="Ray Serve",
        remedy="Run it again with the environment variable TCMOA_DEBUG=1 for Ray's own messages",
    )


def _with_threads(options: FuserOptions, threads: float) -> FuserOptions:
    return options if options.threads else replace(options, threads=max(1, int(threads)))


@contextlib.contextmanager
def _quiet_serve() -> Iterator[None]:
    """Hide the log of Ray Serve during a with-block, unless `TCMOA_DEBUG` is set."""
    logger = logging.getLogger("ray.serve")
    was_disabled = logger.disabled
    logger.disabled = was_disabled or not is_debugging()
    try:
        yield
    finally:
        logger.disabled = was_disabled
