"""The process of one pair, as an actor of Ray: it lives as long as the fleet, whatever happens to the supervisor."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from tcmoa_runtime.cluster.bundle_shipping import CACHE_FOLDER, BundleReference
from tcmoa_runtime.errors import BundleError
from tcmoa_runtime.fleet.backoff import StartHistory
from tcmoa_runtime.fleet.file import Pair
from tcmoa_runtime.fleet.report import NodeInfo, PairReport, SupervisorInfo
from tcmoa_runtime.fleet.runner import PairRunner
from tcmoa_runtime.log_output import show_log_of_worker
from tcmoa_runtime.user_folders import open_user_folder

LEASE_S: Final = 5.0
"""A supervisor that has not asked for this long watches no more."""


def open_bundle(reference: BundleReference) -> Path:
    """Return the folder of a bundle on this node; one that is copied was brought to its cache by the supervisor.

    Raises:
        BundleError: There is no copy on this node yet, or the path holds another bundle here.
        OSError: The cache is not private.
    """
    if reference.path is not None:
        return reference.open_path()
    folder = open_user_folder("cache", CACHE_FOLDER, create=True) / reference.sha256
    if not folder.is_dir():
        raise BundleError(
            "no copy of it on this node yet; expected one from the supervisor of the fleet",
            subject=reference.spelling,
            remedy="Start the supervisor, if none runs",
        )
    return folder


class Lease:
    """Which supervisor watches a fleet: of those that ask, the one that has started first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Grant it to no supervisor; `clock` returns seconds."""
        self._clock, self._asked_at = clock, 0.0
        self._holder: SupervisorInfo | None = None

    def ask(self, supervisor: SupervisorInfo | None) -> SupervisorInfo | None:
        """Return who else has the lease; None if it is granted to the one who asks, or no one has it.

        Args:
            supervisor: Who asks; None for a visitor, who does not take it.
        """
        holder = self._holder if self._clock() - self._asked_at < LEASE_S else None
        if supervisor is None or (holder is not None and holder["id"] < supervisor["id"]):
            return holder
        self._holder, self._asked_at = supervisor, self._clock()
        return None


class PairActor:
    """Runs the stream of a pair from its construction on; Ray constructs it again when its process or node has died."""

    def __init__(self, fleet: str, pair: Pair, bundle: BundleReference, digest: str) -> None:
        """Start the stream; errors of it are reported, not raised, because Ray would give up.

        Args:
            fleet: Name of the fleet.
            pair: The pair.
            bundle: Its bundle.
            digest: What `PairReport.digest` is to be.
        """
        import cv2

        show_log_of_worker()
        threads = pair.setup.fuser.threads
        if threads is not None:
            cv2.setNumThreads(threads)
        self._name = pair.name
        self._history = StartHistory(fleet, pair.name)
        self._runner = PairRunner(
            pair,
            partial(open_bundle, bundle),
            _this_node(),
            role=f"pair {pair.name} of fleet {fleet}",
            digest=digest,
            first_pause=self._history.record_start(),
        )
        self._lease = Lease()
        self._is_fleet_stopping = False
        self._runner.start()

    def __repr__(self) -> str:
        return self._name

    def report(self, supervisor: SupervisorInfo | None = None) -> PairReport:
        """Return what is known of the stream.

        Args:
            supervisor: Who watches the fleet and asks; None for a visitor.
        """
        report = self._runner.report()
        report["is_fleet_stopping"] = self._is_fleet_stopping
        report["supervisor"] = self._lease.ask(supervisor)
        return report

    def picture(self, width: int) -> bytes | None:
        """Return the newest fused frame as a JPEG of at most `width` pixels; None before the first one."""
        return self._runner.picture(width)

    def stop(self, is_fleet_stopping: bool = False) -> bool:
        """End the stream with complete files; returns whether that was done in time.

        Args:
            is_fleet_stopping: Whether the fleet ends, which its supervisor reads from the next report.
        """
        self._is_fleet_stopping = self._is_fleet_stopping or is_fleet_stopping
        self._history.clear()
        return self._runner.stop()


def _this_node() -> NodeInfo:
    import ray

    return {
        "id": ray.get_runtime_context().get_node_id(),
        "ip": ray.util.get_node_ip_address(),
        "host": socket.gethostname(),
    }


def this_supervisor() -> SupervisorInfo:
    """Return what identifies this process as a supervisor."""
    return {
        "id": f"{time.time_ns():020}-{os.urandom(4).hex()}",
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
