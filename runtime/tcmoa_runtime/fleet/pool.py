"""The actors of a fleet, as the supervisor uses them; `RayActors` is the one of Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from tcmoa_runtime.cluster.bundle_shipping import BundleReference
from tcmoa_runtime.fleet.file import Pair
from tcmoa_runtime.fleet.report import PairReport


class NameTakenError(Exception):
    """An actor of this name is still there."""


@dataclass(frozen=True)
class Work:
    """What an actor is to run.

    Attributes:
        pair: The pair.
        bundle: Its bundle, as nodes open it.
        digest: Digest of both.
    """

    pair: Pair
    bundle: BundleReference
    digest: str


class StopOutcome(Enum):
    """What has become of the request to end a stream."""

    NOT_ASKED = auto()
    PENDING = auto()
    COMPLETE = auto()
    """Its files are complete."""
    INCOMPLETE = auto()
    """It has not ended within the time that an actor takes for it."""
    DIED = auto()
    """Its process has died before; Ray starts another one."""


class ActorPool(Protocol):
    """Actors by the names of their pairs. No method waits for an actor."""

    def names(self) -> set[str]:
        """Return the names of all actors that are there, also of those that have no process at the moment."""
        ...

    def start(self, work: Work) -> None:
        """Create an actor.

        Raises:
            NameTakenError: There is one of this name.
        """
        ...

    def poll(self, timeout: float) -> Mapping[str, PairReport]:
        """Ask all actors that have answered the last question, and return the answers that come within the timeout."""
        ...

    def request_stop(self, name: str, *, is_fleet_stopping: bool = False) -> None:
        """Ask an actor to end its stream with complete files."""
        ...

    def stop_outcome(self, name: str) -> StopOutcome:
        """Return what has become of the last `request_stop` of an actor."""
        ...

    def kill(self, name: str) -> None:
        """End an actor for good."""
        ...

    def picture(self, name: str, width: int, timeout: float) -> bytes | None:
        """Return the newest frame of an actor as a JPEG; None without one. Waits; from any thread."""
        ...

    def problem_of(self, name: str) -> str | None:
        """Return why an actor did not answer last, in one line; None if it did."""
        ...

    def why_pending(self, pair: Pair) -> str:
        """Return what a pair waits for that has no process yet."""
        ...
