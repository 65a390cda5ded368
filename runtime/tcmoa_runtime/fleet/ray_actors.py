"""The actors of a fleet on Ray: named, detached, restarted by Ray when their process or node dies."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from tcmoa_runtime.errors import first_line
from tcmoa_runtime.fleet.actor import PairActor
from tcmoa_runtime.fleet.file import Pair
from tcmoa_runtime.fleet.pool import NameTakenError, StopOutcome, Work
from tcmoa_runtime.fleet.report import PairReport, SupervisorInfo
from tcmoa_runtime.location import redact_text
from tcmoa_runtime.log import get_logger

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

NAMESPACE_PREFIX: Final = "tcmoa-fleet-"
"""Each fleet has a namespace of Ray, in which its actors have the names of their pairs."""
CONCURRENCY: Final = 4
"""Calls that an actor serves at once: a report, a picture and a stop never wait for each other."""
NODES_S: Final = 5.0
"""Time between two looks at the nodes of the cluster."""

_log = get_logger("fleet")


class RayActors:
    """The actors of one fleet on the cluster that this process is connected to."""

    def __init__(self, fleet: str, supervisor: SupervisorInfo | None) -> None:
        """Know no actor yet.

        Args:
            fleet: Name of the fleet.
            supervisor: Who asks the actors; None for a visitor.
        """
        self._fleet, self._supervisor = fleet, supervisor
        self._namespace = f"{NAMESPACE_PREFIX}{fleet}"
        self._handles: dict[str, ActorHandle[Any]] = {}
        self._questions: dict[str, ObjectRef[PairReport]] = {}
        self._stops: dict[str, ObjectRef[bool]] = {}
        self._problems: dict[str, str] = {}
        self._nodes: list[dict[str, Any]] = []
        self._nodes_at = -NODES_S

    def names(self) -> set[str]:
        """Return the names of all actors that are there, also of those that have no process at the moment."""
        import ray

        listed = ray.util.list_named_actors(all_namespaces=True)
        found = {each["name"] for each in listed if each["namespace"] == self._namespace}
        for name in self._handles.keys() - found:
            self._forget(name)
        for name in found - self._handles.keys():
            with contextlib.suppress(ValueError):  # it has gone meanwhile
                self._handles[name] = ray.get_actor(name, namespace=self._namespace)
        return set(self._handles)

    def start(self, work: Work) -> None:
        """Create an actor; Ray places it where its resources are free, and spreads the actors over the nodes.

        Raises:
            NameTakenError: There is one of this name.
        """
        import ray

        options = work.pair.options
        actor = ray.remote(PairActor).options(
            name=work.pair.name,
            namespace=self._namespace,
            lifetime="detached",
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=CONCURRENCY,
            num_cpus=options.cpus,
            num_gpus=options.gpus,
            label_selector=dict(options.labels) or None,
            scheduling_strategy="SPREAD",
        )
        try:
            handle = actor.remote(self._fleet, work.pair, work.bundle, work.digest)
        except ValueError as error:
            raise NameTakenError(work.pair.name) from error
        self._forget(work.pair.name)
        self._handles[work.pair.name] = cast("ActorHandle[Any]", handle)

    def poll(self, timeout: float) -> Mapping[str, PairReport]:
        """Ask all actors that have answered the last question, and return the answers that come within the timeout."""
        import ray

        for name, handle in self._handles.items():
            if name not in self._questions:
                self._questions[name] = handle.report.remote(self._supervisor)
        names = {question: name for name, question in self._questions.items()}
        if not names:
            return {}
        answered, _ = ray.wait(list(names), num_returns=len(names), timeout=timeout)
        reports = {}
        for question in answered:
            name = names[question]
            del self._questions[name]
            try:
                reports[name] = ray.get(question)
                self._problems.pop(name, None)
            except ray.exceptions.RayError as error:  # its process has died; Ray starts another one
                self._problems[name] = redact_text(first_line(error, 200))
                _log.debug("%s does not answer: %s", name, error)
        return reports

    def request_stop(self, name: str, *, is_fleet_stopping: bool = False) -> None:
        """Ask an actor to end its stream with complete files."""
        handle = self._handles.get(name)
        if handle is not None:
            self._stops[name] = handle.stop.remote(is_fleet_stopping)

    def stop_outcome(self, name: str) -> StopOutcome:
        """Return what has become of the last `request_stop` of an actor."""
        import ray

        stop = self._stops.get(name)
        if stop is None:
            return StopOutcome.NOT_ASKED
        if not ray.wait([stop], timeout=0)[0]:
            return StopOutcome.PENDING
        try:
            return StopOutcome.COMPLETE if ray.get(stop) else StopOutcome.INCOMPLETE
        except ray.exceptions.RayError as error:
            _log.debug("%s has not answered its stop: %s", name, error)
            return StopOutcome.DIED

    def kill(self, name: str) -> None:
        """End an actor for good."""
        import ray

        handle = self._handles.get(name)
        if handle is not None:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(handle, no_restart=True)
        self._forget(name)

    def picture(self, name: str, width: int, timeout: float) -> bytes | None:
        """Return the newest frame of an actor as a JPEG; None without one or without an answer."""
        import ray

        handle = self._handles.get(name)
        if handle is None:
            return None
        try:
            found: object = ray.get(handle.picture.remote(width), timeout=timeout)
        except (ray.exceptions.RayError, TimeoutError):
            return None
        return found if isinstance(found, bytes) else None

    def problem_of(self, name: str) -> str | None:
        """Return why an actor did not answer last, in one line; None if it did."""
        return self._problems.get(name)

    def why_pending(self, pair: Pair) -> str:
        """Return what a pair waits for that has no process yet."""
        import ray

        if time.monotonic() - self._nodes_at >= NODES_S:
            self._nodes, self._nodes_at = ray.nodes(), time.monotonic()
        options = pair.options
        needs = _amount(options.cpus, "CPU") + (
            f" and {_amount(options.gpus, 'GPU')}" if options.gpus else ""
        )
        labels = ", ".join(f"{name} = {value}" for name, value in options.labels.items())
        fitting = [
            node
            for node in self._nodes
            if node["Alive"]
            and node["Resources"].get("CPU", 0) >= options.cpus
            and node["Resources"].get("GPU", 0) >= options.gpus
            and all((node.get("Labels") or {}).get(name) == value for name, value in options.labels.items())
        ]
        if not fitting:
            return f"no node has {needs}{f' and the labels {labels}' if labels else ''}"
        nodes = "the node that has" if len(fitting) == 1 else f"the {len(fitting)} nodes that have"
        return f"waiting for {needs}: {nodes} it may run other pairs; set cpus lower, or add a node"

    def _forget(self, name: str) -> None:
        for known in (self._handles, self._questions, self._stops):
            known.pop(name, None)


def _amount(number: float, unit: str) -> str:
    return f"{number:g} {unit}" if number == 1 else f"{number:g} {unit}s"
