"""Running a fleet: connecting to Ray, following the file, and watching the actors until the user ends it."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cluster.bundle_shipping import BundleReference, ship_bundle
from tcmoa_runtime.cluster.nodes import list_nodes, on_each_node
from tcmoa_runtime.cluster.session import RaySession, ray_session
from tcmoa_runtime.errors import BundleError, InputError, TcmoaError, first_line
from tcmoa_runtime.fleet.actor import this_supervisor
from tcmoa_runtime.fleet.claim import check_outputs_free
from tcmoa_runtime.fleet.file import FleetFile, unnamed
from tcmoa_runtime.fleet.pool import Work
from tcmoa_runtime.fleet.ray_actors import RayActors
from tcmoa_runtime.fleet.supervisor import CHANGE_S, POLL_S, FleetStoppingError, Supervisor
from tcmoa_runtime.location import redact_text
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.typing import OnMessage

NODES_S: Final = 10.0
"""Time between two looks for nodes that have joined."""
CACHE_S: Final = 300.0
"""Time between two looks at the copies on a node: caches may be deleted at any time."""
SETTLE_S: Final = 0.5
"""A file that has changed is read when it has not changed for this long: editors write in parts."""

_log = get_logger("fleet")


class WatchedFile:
    """A file that may change at any time."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the file as it is for known; `clock` returns seconds."""
        self._path, self._clock = path, clock
        self._known = self._seen = self._stamp()
        self._seen_at = clock()

    def has_changed(self) -> bool:
        """Return whether the file differs from the last call that returned True, and has settled."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen, self._seen_at = stamp, self._clock()
        if self._seen == self._known or self._clock() - self._seen_at < SETTLE_S:
            return False
        self._known = self._seen
        return True

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


class Shipper:
    """Bundles of a fleet on the nodes, also on those that join later: a node may take over any pair."""

    def __init__(self) -> None:
        self._references: dict[str, BundleReference] = {}
        self._fetched: dict[tuple[str, str], float] = {}
        self._looked_at = -NODES_S
        self._thread: threading.Thread | None = None

    def work_of(self, file: FleetFile) -> dict[str, Work]:
        """Ship the bundles of a file, also those that have changed, and return what each actor is to run.

        Raises:
            BundleError: A bundle cannot be used.
        """
        paths = dict.fromkeys(str(pair.setup.bundle) for pair in file.pairs.values())
        references = {path: ship_bundle(path) for path in paths}
        self._references, self._looked_at = references, -NODES_S
        self.spread()
        work = {}
        for name, pair in file.pairs.items():
            reference = references[str(pair.setup.bundle)]
            digest = hashlib.sha256(f"{pair.digest} {reference.sha256}".encode()).hexdigest()
            # Without the files in the object store, which end with this process: actors outlive it.
            work[name] = Work(pair, replace(reference, files=()), digest)
        return work

    @property
    def _copied(self) -> list[BundleReference]:
        return [reference for reference in self._references.values() if reference.path is None]

    @property
    def _is_due(self) -> bool:
        return bool(self._copied) and time.monotonic() - self._looked_at >= NODES_S

    def spread_beside(self) -> None:
        """Call `spread` on another thread: a node that does not answer must not stop the supervisor."""
        if self._is_due and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self.spread, name="tcmoa-fleet-bundles", daemon=True)
            self._thread.start()

    def spread(self) -> None:
        """Copy the bundles to the caches of nodes that lack them: actors move without asking the supervisor."""
        if not self._is_due:
            return
        import ray

        now = self._looked_at = time.monotonic()
        for reference in self._copied:
            try:
                nodes = [
                    node
                    for node in list_nodes()
                    if now - self._fetched.get((reference.sha256, node.node_id), -CACHE_S) >= CACHE_S
                ]
                problems = on_each_node(_fetch, nodes, reference)
            except (TcmoaError, ray.exceptions.RayError, RuntimeError) as error:
                _log.warning("%s: not copied to all nodes: %s", reference.spelling, first_line(error))
                continue
            for node, problem in zip(nodes, problems, strict=True):
                if problem is None or not problem:
                    self._fetched[reference.sha256, node.node_id] = now
                else:
                    _log.warning("%s: not copied to node %s: %s", reference.spelling, node.address, problem)


def check_bundles(file: FleetFile, path: Path) -> None:
    """Open the bundles of a file.

    Raises:
        BundleError: A bundle cannot be used; the subject has the table that names it.
    """
    checked = set()
    for name, pair in file.pairs.items():
        if pair.setup.bundle in checked:
            continue
        try:
            Bundle.open(pair.setup.bundle)
        except BundleError as error:
            raise error.with_subject(f"{path}: pairs.{name}: bundle: {error.subject}") from error
        checked.add(pair.setup.bundle)


def _fetch(reference: BundleReference) -> str:
    """Fetch a bundle into the cache of this node; returns why that failed, or an empty text."""
    try:
        reference.open_path()
    except (TcmoaError, OSError) as error:
        return first_line(error)
    return ""


class ConnectionLostError(TcmoaError):
    """The supervisor has lost the cluster; what becomes of the streams is not known."""


@dataclass(frozen=True)
class FleetRun:
    """A fleet whose supervisor is this process.

    Attributes:
        file: Path of its file.
        watched: The file, which is read again when it changes.
        supervisor: Its supervisor.
        session: The connection to Ray.
        shipper: Its bundles.
        on_message: Takes a line for each event.
    """

    file: Path
    watched: WatchedFile
    supervisor: Supervisor
    session: RaySession
    shipper: Shipper
    on_message: OnMessage

    def watch(self, ending: threading.Event, reading: threading.Event) -> None:
        """Watch the fleet until `ending` is set, or until another process stops it; read the file when it changes.

        Args:
            ending: Ends the supervisor.
            reading: Reads the file now, e.g. after SIGHUP.

        Raises:
            InputError: Another supervisor watches the fleet.
            ConnectionLostError: Ray does not answer any more.
        """
        import ray

        while not ending.is_set():
            began = time.monotonic()
            try:
                if self.watched.has_changed() or reading.is_set():
                    reading.clear()
                    self._read_again()
                self.supervisor.step()
                self.shipper.spread_beside()
            except FleetStoppingError:
                self.on_message(f"fleet {self.supervisor.fleet} is being stopped by another process")
                return
            except (ray.exceptions.RayError, ConnectionError) as error:
                raise ConnectionLostError(
                    f"the connection to Ray is lost: {first_line(error, 200)}",
                    subject=f"fleet {self.supervisor.fleet}",
                    remedy="Start it again when the cluster answers: it takes over the streams that run",
                ) from error
            interval = CHANGE_S if self.supervisor.is_changing else POLL_S
            ending.wait(max(0.0, interval - (time.monotonic() - began)))

    def _read_again(self) -> None:
        """Take the file as it is now; a wrong one is refused, and the fleet goes on as it is."""
        try:
            file = FleetFile.read(self.file)
            if file.name != self.supervisor.fleet:
                raise InputError(
                    f"{file.name!r}; expected {self.supervisor.fleet!r}, the name of the fleet that runs",
                    subject=f"{self.file}: name",
                    remedy="End this fleet first, to start another one",
                )
            check_bundles(file, self.file)
            work = self.shipper.work_of(file)
        except TcmoaError as error:
            self.supervisor.refuse_file(redact_text(str(error)))
            _log.warning("%s; the fleet goes on as it is", error.render_problem().rstrip("."))
            return
        self.supervisor.set_work(work)
        self.on_message(f"{self.file}: read again: {self.supervisor.changes()}")


@contextlib.contextmanager
def open_fleet(path: Path, address: str | None, on_message: OnMessage) -> Iterator[FleetRun]:
    """Connect to Ray, take over what runs of the fleet, and set what is to run; without an address, in `claimed_fleet`.

    Args:
        path: The file of the fleet.
        address: Address of the cluster, see `ray_session`; None for a private Ray.
        on_message: Takes a line for each event.

    Raises:
        InputError: The file is wrong, there is no such cluster, or another supervisor watches the fleet.
        BundleError: A bundle of the file cannot be used.
        MissingError: Ray is not installed, or a node lacks a package.
    """
    watched = WatchedFile(path)  # before it is read: it may change while Ray starts
    file = FleetFile.read(path)
    if address is not None and not file.is_named:
        raise unnamed(path)
    check_bundles(file, path)
    if address is None:
        check_outputs_free(file, path)
        on_message(f"fleet {file.name}: starting Ray on this machine")
    with ray_session(address) as session:
        me = this_supervisor()
        supervisor = Supervisor(file.name, RayActors(file.name, me), me, on_message)
        shipper = Shipper()
        work = shipper.work_of(file)
        count = supervisor.take_over()
        if count:
            on_message(f"fleet {file.name}: takes over the streams that are there already: {count}")
        supervisor.set_work(work)
        yield FleetRun(path, watched, supervisor, session, shipper, on_message)


@contextlib.contextmanager
def visit_fleet(path: Path, address: str) -> Iterator[Supervisor]:
    """Connect to Ray as a visitor of a fleet, who watches nothing; also while nodes do not answer.

    Raises:
        InputError: The file has no name, or there is no such cluster.
        MissingError: Ray is not installed.
    """
    name = FleetFile.read_name(path)
    with ray_session(address, checks_nodes=False):
        yield Supervisor(name, RayActors(name, None), this_supervisor(), lambda _line: None)
